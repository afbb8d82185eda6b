"""Subprocess that calls eSpeak NG: writes a corpus of synthetic speech, or prints the pronunciation of a text.

    python -m codec.data.espeak_worker '{"folder": ..., "voices": 48, "utterances": 12, "seed": 0}'
    echo '{"text": ..., "voice": "en-us"}' | python -m codec.data.espeak_worker pronounce

eSpeak NG (GPL-3, not part of this project) is that of the espeakng-loader package; constants are from speak_lib.h.
"""

import csv
import ctypes
import json
import random
import sys
from pathlib import Path

import espeakng_loader
import numpy as np
import soundfile
import yaml

RATE = 22_050  # Hz
CORPUS = yaml.safe_load(Path(__file__).with_name("espeak_corpus.yaml").read_text(encoding="utf-8"))
ACCENTS, VARIANTS, SENTENCES = CORPUS["accents"], CORPUS["variants"], CORPUS["sentences"]
SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: the callback gets the samples before espeak_Synth returns
PHONEME_EVENTS, PHONEME_IPA = 1, 2
UTF8, EVENT_WORD, EVENT_PHONEME = 1, 1, 7
PARAMETER_RATE, PARAMETER_PITCH, PARAMETER_RANGE = 1, 3, 4


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int) for name in ("type", "unique_identifier", "text_position", "length")),
        *((name, ctypes.c_int) for name in ("audio_position", "sample")),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Espeak:
    """The eSpeak NG library, called through ctypes."""

    def __init__(self):
        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        rate = self.library.espeak_Initialize(SYNCHRONOUS, 0, data, PHONEME_EVENTS | PHONEME_IPA)
        if rate != RATE:
            raise RuntimeError(f"eSpeak NG has a sample rate of {rate} Hz, not {RATE} Hz")
        self._callback = _Callback(self._receive)  # a reference, as long as the library calls it
        self.library.espeak_SetSynthCallback(self._callback)
        self._pieces: list[np.ndarray] = []
        self._phones: list[tuple[int, str]] = []
        self.words: list[tuple[int, float]] = []
        """Of the last utterance: (index of its first character, start in seconds) of each word."""

    def set_voice(self, name: str, rate: int, pitch: int, span: int) -> None:
        """Set the voice; `rate` in words per minute, `pitch` and its range `span` from 0 to 99."""
        if self.library.espeak_SetVoiceByName(name.encode()):
            raise RuntimeError(f"eSpeak NG has no voice {name}")
        for parameter, value in ((PARAMETER_RATE, rate), (PARAMETER_PITCH, pitch), (PARAMETER_RANGE, span)):
            self.library.espeak_SetParameter(parameter, value, 0)

    def synthesize(self, text: str, seed: int) -> tuple[np.ndarray, list[tuple[str, float]]]:
        """int16 [T] at RATE and its phones (IPA symbol, start in seconds); "_" is a pause."""
        self._pieces, self._phones, self.words = [], [], []
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        data = text.encode()
        if self.library.espeak_Synth(data, len(data) + 1, 0, 1, 0, UTF8, None, None):
            raise RuntimeError(f"eSpeak NG cannot synthesize {text!r}")
        wav = np.concatenate(self._pieces) if self._pieces else np.zeros(0, np.int16)
        if not wav.any():
            raise RuntimeError(f"eSpeak NG has no sound for {text!r}")
        return wav, _tidy(self._phones, len(wav))

    def _receive(self, samples, count: int, events) -> int:
        if count > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        for i in range(1 << 30):
            event = events[i]
            if not event.type:  # the list ends with a type 0
                return 0
            if event.type == EVENT_WORD:
                self.words.append((event.text_position - 1, event.sample / RATE))
            if event.type == EVENT_PHONEME:
                self._phones.append((event.sample, event.id.string.decode(errors="ignore")))


def _tidy(phones: list[tuple[int, str]], samples: int) -> list[tuple[str, float]]:
    """Phones (symbol, seconds) without stress marks, language switches ("(en)") and empty phones; pauses are merged."""
    tidy: list[tuple[int, str]] = []
    for sample, symbol in phones:
        symbol = symbol.strip("ˈˌ") or "_"
        if symbol.startswith("(") or sample >= samples:
            continue
        if tidy and tidy[-1][0] >= sample:
            tidy.pop()
        if not (tidy and tidy[-1][1] == symbol == "_"):
            tidy.append((sample, symbol))
    return [(symbol, sample / RATE) for sample, symbol in tidy]


def sentence(language: str, rng: random.Random) -> str:
    """A random statement, or two joined, out of some 10,000 in a language."""
    parts = SENTENCES[language]

    def clause() -> str:
        return " ".join(rng.choice(parts[part]) for part in ("subjects", "verbs", "objects"))

    form = rng.randrange(3)
    text = clause() if form == 2 else f"{clause()} {rng.choice(parts['places'])}"
    if form:
        text += f", {parts['and']} {clause()}"
    return text[0].upper() + text[1:] + "."


def write(folder: Path, voices: int, utterances: int, seed: int, languages: list[str] | None = None) -> None:
    """Write `voices` x `utterances` FLAC files, and manifest.csv with file, speaker, text and phones."""
    if unknown := sorted(set(languages or ()) - set(SENTENCES)):
        raise ValueError(f"there are no sentences in {', '.join(unknown)}; valid: {', '.join(SENTENCES)}")
    accents = [accent for accent in ACCENTS if languages is None or accent.split("-")[0] in languages]
    if not 1 <= voices <= len(accents) * len(VARIANTS):
        raise ValueError(f"{voices} voices requested; there are 1 to {len(accents) * len(VARIANTS)}")
    espeak = Espeak()
    variants = random.Random(seed).sample(VARIANTS, len(VARIANTS))
    with open(folder / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "speaker", "text", "phones"])
        for number in range(voices):
            accent = accents[number % len(accents)]
            # The first 56 voices have different vocal tracts, and no pair of accent and tract comes twice.
            speaker = f"{accent}+{variants[(number + number // len(accents)) % len(VARIANTS)]}"
            rng = random.Random(f"{seed} {speaker}")
            espeak.set_voice(speaker, rng.randint(130, 200), rng.randint(30, 70), rng.randint(35, 75))
            for count in range(utterances):
                text = sentence(accent.split("-")[0], rng)
                wav, phones = espeak.synthesize(text, rng.randrange(1, 2**31))
                name = f"{speaker}-{count:03d}.flac"
                soundfile.write(folder / name, wav, RATE, subtype="PCM_16")
                table.writerow([name, speaker, text, " ".join(f"{symbol}@{time:.4f}" for symbol, time in phones)])


def pronounce(text: str, voice: str) -> dict:
    """Phones, word starts and duration in seconds of a text at a voice's default rate and pitch."""
    espeak = Espeak()
    espeak.set_voice(voice, 165, 50, 50)
    wav, phones = espeak.synthesize(text, 1)
    return {"phones": phones, "words": espeak.words, "seconds": len(wav) / RATE}


if __name__ == "__main__":
    if sys.argv[1] == "pronounce":
        print(json.dumps(pronounce(**json.load(sys.stdin))))
    else:
        arguments = json.loads(sys.argv[1])
        write(Path(arguments.pop("folder")), **arguments)
