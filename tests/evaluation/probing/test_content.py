"""Contents of latents that are known beforehand."""

import numpy as np
import pytest
import torch

from codec.evaluation.probing import probes
from codec.evaluation.probing.content import content, speaker_error, summary
from codec.utils.errors import InputError
from tests.helpers.phone_latents import corpus


def test_all_is_measured_and_printed(monkeypatch):
    monkeypatch.setattr(probes, "FRAME_STEPS", 40)
    monkeypatch.setattr(probes, "CTC_STEPS", 40)
    found = content(corpus(recordings=16))
    assert found["linear"]["accuracy"]["mean"] > 0.8 > found["chance"]
    assert found["mlp"]["error_rate"]["mean"] < 0.5
    assert (found["train"], found["test"], found["speakers"]) == (16, 6, 3)
    assert found["abx_within"] is None or found["abx_within"]["mean"] < 0.3
    assert all(name in summary(found) for name in ("12.5 Hz", "linear phone probe", "mlp phone probe", "abx across"))


def voiced(speakers: int, each: int, strength: float, first: int = 0, seed: int = 0) -> list[dict]:
    """Recordings whose channels have means that are their speaker's, times ``strength``."""
    rng, items = np.random.default_rng(seed), []
    for n in range(first, first + speakers):
        own = strength * np.random.default_rng((7, n)).standard_normal((6, 1))
        latents = torch.from_numpy(own + rng.standard_normal((each, 6, 30)))
        items += [{"latents": one, "speaker": f"s{n}"} for one in latents]
    return items


def test_speaker_error_is_small_for_distinct_voices_and_half_for_equal_ones():
    assert speaker_error(voiced(12, 4, 2.0), voiced(5, 4, 2.0, first=50)) < 0.1
    same = speaker_error(voiced(12, 4, 0.0), voiced(5, 4, 0.0, first=50, seed=1))
    assert same == pytest.approx(0.5, abs=0.15)
    for train, test in ((12, 1), (1, 4)):
        with pytest.raises(InputError, match="two speakers or more"):
            speaker_error(voiced(train, 4, 1.0), voiced(5, test, 1.0, first=50))
