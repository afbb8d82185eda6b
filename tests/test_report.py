"""Properties of the report: complete, reproducible to the byte, and honest about what failed."""

import json
import math
import threading

import numpy as np
import pandas
import pytest
import soundfile
import torch

from codec.metrics.table import METRICS
from codec.report import Report, evaluate, spectrogram_figure

RATE = 16_000
FAST = {name: METRICS[name] for name in ("stoi", "si_sdr", "mel_distance")}


def clip(seed: int, seconds: float = 1.0) -> dict:
    """A dataset item: harmonics with syllables at 4 Hz."""
    t = torch.arange(int(seconds * RATE)) / RATE
    tone = sum(torch.sin(2 * math.pi * (110 + 20 * seed) * k * t) / k for k in range(1, 12))
    wav = 0.2 * tone * (0.55 + 0.45 * torch.sin(2 * math.pi * 4 * t))
    return {"wav": wav[None], "speaker": f"s{seed % 2}", "file": f"/data/corpus/s{seed % 2}/take {seed}.wav"}


def quantize(wav: torch.Tensor) -> torch.Tensor:
    """A codec of 6 bits a sample."""
    assert wav.ndim == 3
    return (wav * 32).round() / 32


def report_of(count: int = 4, **options) -> Report:
    facts = {"n_q": 8, "kbps": 6.0, "checkpoint": None, "parameters": np.int64(123)}
    clips = (clip(i) for i in range(count))
    return evaluate(quantize, clips, RATE, facts, workers=0, metrics=FAST, **options)


def test_every_clip_is_scored_and_summed_up():
    report = report_of()
    assert list(report.clips.columns) == ["clip", "speaker", "seconds", *FAST]
    assert list(report.clips["clip"]) == ["s0/take 0", "s1/take 1", "s0/take 2", "s1/take 3"]
    assert (report.clips["seconds"] == 1).all()
    assert report.failures == []
    assert report.facts["clips"] == 4
    for name, entry in report.summary().items():
        assert entry["mean"] == pytest.approx(report.clips[name].mean())
        assert entry["low"] <= entry["mean"] <= entry["high"]
        assert (entry["n"], entry["failed"]) == (4, 0)


def test_processes_give_the_same_report():
    there = evaluate(quantize, [clip(i) for i in range(2)], RATE, {}, workers=1, metrics=FAST)
    here = evaluate(quantize, [clip(i) for i in range(2)], RATE, {}, workers=0, metrics=FAST)
    pandas.testing.assert_frame_equal(there.clips, here.clips, rtol=1e-6)  # BLAS: another order with more threads


def test_written_twice_is_equal_to_the_byte(tmp_path):
    for folder in ("a", "b"):
        report_of().write(tmp_path / folder)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["report.csv", "report.json", "report.md"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_json_has_no_nan(tmp_path):
    clips = pandas.DataFrame(
        {"clip": ["a", "b"], "speaker": [None, "s"], "seconds": [1.0, 2.0], "stoi": [math.nan, 0.51234567]}
    )
    failures = [{"clip": "a", "metric": "stoi", "reason": "The estimate is silent."}]
    facts = {"entropy": math.nan, "rate": np.float32(1.5)}
    path = Report(clips, failures, facts).write(tmp_path, stem="test")

    def refuse(constant):
        raise AssertionError(constant)

    content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert content["clips"][0]["stoi"] is None
    assert content["clips"][1]["stoi"] == 0.512346
    assert content["facts"] == {"entropy": None, "rate": 1.5}
    assert content["summary"]["stoi"]["failed"] == 1
    assert content["failures"] == failures
    assert "nan" not in (tmp_path / "test.csv").read_text(encoding="utf-8").lower()


def test_tables_show_direction_unit_and_failures():
    report = report_of()
    report.clips.loc[1, "stoi"] = math.nan
    report.failures.append({"clip": "s1/take 1", "metric": "stoi", "reason": "Too short."})
    for text in (report.table(), report.markdown()):
        assert "SI-SDR (dB) ↑" in text
        assert "Mel distance (log10) ↓" in text
        assert "s1/take 1, stoi: Too short." in text
        assert "n_q" in text
    widths = {line.find("[") for line in report.table().splitlines() if "[" in line}
    assert len(widths) == 1  # the columns stand under one another


def test_a_clip_on_which_the_codec_raises_is_listed():
    def moody(wav):
        if wav.abs().max() > 0.9:
            raise RuntimeError("no latents today")
        return quantize(wav)

    clips = [clip(0), {**clip(1), "wav": torch.ones(1, RATE)}, clip(2)]
    report = evaluate(moody, clips, RATE, {}, workers=0, metrics=FAST)
    reason = "RuntimeError: no latents today"
    assert report.failures == [{"clip": "s1/take 1", "metric": "codec", "reason": reason}]
    assert report.clips.loc[1, list(FAST)].isna().all()
    assert report.clips.loc[[0, 2], list(FAST)].notna().all(axis=None)
    assert report.summary()["stoi"]["failed"] == 1


def test_a_codec_that_always_raises_still_reports(tmp_path):
    def broken(wav):
        raise RuntimeError("broken")

    report = evaluate(broken, [clip(0)], RATE, {}, workers=0, metrics=FAST)
    assert report.summary()["stoi"]["n"] == 0
    assert json.loads(report.write(tmp_path).read_text(encoding="utf-8"))["summary"]["stoi"]["mean"] is None


def test_another_length_is_an_error():
    with pytest.raises(ValueError, match="must return the length it was given"):
        evaluate(lambda wav: wav[..., :-1], [clip(0)], RATE, {}, workers=0)
    with pytest.raises(ValueError, match="no clip"):
        evaluate(quantize, [], RATE, {}, workers=0)
    with pytest.raises(ValueError, match="mono"):
        evaluate(quantize, [{"wav": torch.zeros(2, RATE)}], RATE, {}, workers=0)


def test_the_first_pairs_can_be_heard(tmp_path):
    report_of(3, audio_folder=tmp_path, audio_count=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "00_s0_take_0_decoded.wav",
        "00_s0_take_0_reference.wav",
        "01_s1_take_1_decoded.wav",
        "01_s1_take_1_reference.wav",
    ]
    wav, rate = soundfile.read(tmp_path / "00_s0_take_0_decoded.wav")
    assert rate == RATE
    assert soundfile.info(tmp_path / "00_s0_take_0_decoded.wav").subtype == "PCM_16"
    np.testing.assert_allclose(wav, quantize(clip(0)["wav"][None])[0, 0].numpy(), atol=1 / 32768)


def test_figure_has_both_spectrograms_on_one_scale():
    wav = clip(0)["wav"]
    figure = spectrogram_figure(wav, wav / 10, RATE)
    images = [axis.images[0] for axis in figure.axes[:2]]
    assert images[0].get_clim() == images[1].get_clim()
    loud, quiet = (np.asarray(image.get_array()) for image in images)
    assert (loud - quiet)[loud > loud.max() - 60] == pytest.approx(20, abs=0.1)  # dB
    assert images[0].get_extent()[1] == pytest.approx(1, abs=0.05)  # seconds
    figure.canvas.draw()


def test_figure_is_safe_in_a_thread_and_for_a_blank_estimate():
    done = []

    def draw():
        figure = spectrogram_figure(torch.zeros(100), torch.full((100,), math.nan), RATE)
        figure.canvas.draw()
        done.append(True)

    thread = threading.Thread(target=draw)
    thread.start()
    thread.join()
    assert done
