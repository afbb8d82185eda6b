"""What the start of train.py and eval.py takes for overrides."""

import pytest

from codec.cli.app import overrides_of


@pytest.mark.parametrize("words", [["--cfg", "job"], ["-c", "all", "--resolve"], ["--experimental-rerun", "x.pickle"]])
def test_values_of_hydras_flags_are_no_overrides(words):
    assert overrides_of([*words, "seed=1"]) == ["seed=1"]
