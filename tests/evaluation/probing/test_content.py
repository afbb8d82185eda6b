"""What latents hold, of latents whose content is known."""

import numpy as np
import pytest
import torch

from codec.evaluation.probing import probes
from codec.evaluation.probing.content import content, in_words, speaker_error
from codec.utils.errors import InputError
from tests.helpers.phone_latents import corpus


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    monkeypatch.setattr(probes, "NAMING", 40)
    monkeypatch.setattr(probes, "SPELLING", 40)


def test_all_is_measured_and_told():
    found = content(corpus(recordings=16))
    assert found["linear"]["accuracy"]["mean"] > 0.8 > found["chance"]
    assert found["mlp"]["error_rate"]["mean"] < 0.5
    assert (found["train"], found["test"], found["speakers"]) == (16, 6, 3)
    assert found["abx_within"] is None or found["abx_within"]["mean"] < 0.3
    text = in_words(found)
    for name in (
        "16 channels at 12.5 Hz (pre)",
        "linear phone probe",
        "mlp phone probe",
        "abx across",
        "over speakers",
    ):
        assert name in text


def voiced(speakers: int, each: int, strength: float, first: int = 0, seed: int = 0) -> list[dict]:
    """Recordings whose channels have means that are their speaker's, times ``strength``."""
    rng = np.random.default_rng(seed)
    items = []
    for n in range(first, first + speakers):
        own = strength * np.random.default_rng((7, n)).standard_normal((6, 1))
        for _ in range(each):
            latents = torch.from_numpy(own + rng.standard_normal((6, 30)))
            items.append({"latents": latents, "speaker": f"s{n}"})
    return items


def test_voices_are_told_apart_where_there_are_any():
    plain = speaker_error(voiced(12, 4, 2.0), voiced(5, 4, 2.0, first=50))
    none = speaker_error(voiced(12, 4, 0.0), voiced(5, 4, 0.0, first=50, seed=1))
    assert plain < 0.1
    assert none == pytest.approx(0.5, abs=0.15)


def test_voices_that_are_not_known_are_refused():
    with pytest.raises(InputError, match="two speakers or more"):
        speaker_error(voiced(12, 4, 1.0), voiced(5, 1, 1.0, first=50))
    with pytest.raises(InputError, match="two speakers or more"):
        speaker_error(voiced(1, 4, 1.0), voiced(5, 4, 1.0, first=50))
