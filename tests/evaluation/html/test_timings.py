"""What was measured beside the reports is read back, or refused."""

import dataclasses

import pytest

from codec.evaluation.html.base import TIMING, timings
from codec.evaluation.html.write import write_pages
from codec.evaluation.report import ReportError


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"a": 1}', '{"a": {"rtf_encode": "fast"}}', '{"a": {"rtf_decode": NaN}}', "[" * 200_000, b"\xff"],
)
def test_timings_that_are_none_are_named(tmp_path, text):
    (tmp_path / TIMING).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ReportError, match=TIMING):
        timings(tmp_path)


def test_timings_read_back(entries, tmp_path):
    assert timings(tmp_path) == {}
    timing = {"rtf_encode": 0.25, "rtf_decode": 0.5, "device": "CPU", "threads": 2}
    systems = [dataclasses.replace(entries[0], timing=timing), dataclasses.replace(entries[1])]
    write_pages(tmp_path / "new", systems, "Timed")
    assert timings(tmp_path / "new") == {systems[0].name: timing, systems[1].name: {}}
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["report.html", TIMING]
