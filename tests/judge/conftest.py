import pytest

from codec.judge import recogniser, speaker
from codec.judge.recogniser import Recogniser
from codec.judge.speaker import SpeakerProbe
from tests.tones import RATE, Tones


@pytest.fixture(scope="package")
def tones() -> Recogniser:
    """Trained on a hundred tones or two."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("CROP", RATE), ("CROPS", 100), ("BATCH", 8), ("WARMUP", 10), ("LEARNING_RATE", 8e-3)):
            patch.setattr(recogniser, name, value)
        return Recogniser(Tones(), width=32, steps=160)


@pytest.fixture(scope="package")
def voices() -> SpeakerProbe:
    """Tells the four speakers of the tones apart."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speaker, "CROPS", 80)
        return SpeakerProbe([Tones()], dim=2)
