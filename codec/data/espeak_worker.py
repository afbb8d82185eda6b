"""Writes a folder of synthetic speech: `python -m codec.data.espeak_worker '{"folder": ..., "voices": 48, ...}'`; or
tells how a text sounds: `python -m codec.data.espeak_worker say`, with '{"text": ..., "voice": "en-us"}' as its input.

eSpeak NG (GPL-3, not part of this project) is called through the library in the espeakng-loader package.
Names and numbers below are those of its header, speak_lib.h.
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

from codec.data.espeak_sentences import LANGUAGES, sentence

RATE = 22_050  # Hz
# Accents whose sentences are those of the language before the first "-".
# fmt: off
ACCENTS = (
    "en-us", "de", "fr", "es", "it", "nl", "pl", "pt", "sv", "fi", "en", "en-gb-scotland", "es-419",
    "fr-be", "pt-br", "en-gb-x-rp", "fr-ch", "en-us-nyc",
)
VARIANTS = (
    "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "klatt", "klatt2",
    "klatt3", "klatt4", "Alex", "Alicia", "Andrea", "Andy", "Annie", "Denis", "Diogo", "Gene", "Henrique",
    "Hugo", "Lee", "Linda", "Marco", "Mario", "Michael", "Mike", "adam", "anika", "antonio", "aunty",
    "belinda", "benjamin", "boris", "caleb", "david", "ed", "edward", "grandma", "grandpa", "john",
    "marcelo", "max", "michel", "miguel", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert",
    "sandro",
)
# fmt: on

SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: hand the samples over before espeak_Synth returns
PHONEME_EVENTS, PHONEME_IPA = 1, 2
UTF8, EVENT_WORD, EVENT_PHONEME = 1, 1, 7
PARAMETER_RATE, PARAMETER_PITCH, PARAMETER_RANGE = 1, 3, 4


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Espeak:
    """One loaded eSpeak NG."""

    def __init__(self):
        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        rate = self.library.espeak_Initialize(SYNCHRONOUS, 0, data, PHONEME_EVENTS | PHONEME_IPA)
        if rate != RATE:
            raise RuntimeError(f"eSpeak NG speaks at {rate} Hz where {RATE} Hz was expected")
        self._callback = _Callback(self._receive)  # kept, or it is collected while the library still calls it
        self.library.espeak_SetSynthCallback(self._callback)
        self._pieces: list[np.ndarray] = []
        self._phones: list[tuple[int, str]] = []
        self.words: list[tuple[int, float]] = []
        """Of what was said last: the letter of the text at which a word begins, and its start in seconds. Words that
        are said as one count as one."""

    def voice(self, name: str, rate: int, pitch: int, span: int) -> None:
        """`rate` in words per minute, `pitch` and its range `span` from 0 to 99."""
        if self.library.espeak_SetVoiceByName(name.encode()):
            raise RuntimeError(f"eSpeak NG has no voice {name}")
        for parameter, value in ((PARAMETER_RATE, rate), (PARAMETER_PITCH, pitch), (PARAMETER_RANGE, span)):
            self.library.espeak_SetParameter(parameter, value, 0)

    def say(self, text: str, seed: int) -> tuple[np.ndarray, list[tuple[str, float]]]:
        """int16 [T] at RATE and its (phone in IPA, start in seconds); "_" is a pause."""
        self._pieces, self._phones, self.words = [], [], []
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        data = text.encode()
        if self.library.espeak_Synth(data, len(data) + 1, 0, 1, 0, UTF8, None, None):
            raise RuntimeError(f"eSpeak NG cannot say {text!r}")
        wav = np.concatenate(self._pieces) if self._pieces else np.zeros(0, np.int16)
        if not wav.any():
            raise RuntimeError(f"eSpeak NG says nothing for {text!r}")
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
    """Without stress marks, language switches such as "(en)", and what takes no time; pauses joined."""
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


def write(folder: Path, voices: int, utterances: int, seed: int, languages: list[str] | None = None) -> None:
    """`voices` x `utterances` FLAC files and manifest.csv with file, speaker, text and phones."""
    if odd := sorted(set(languages or ()) - set(LANGUAGES)):
        raise ValueError(f"there are no sentences in {', '.join(odd)}, only in {', '.join(LANGUAGES)}")
    accents = [accent for accent in ACCENTS if languages is None or accent.split("-")[0] in languages]
    if not 1 <= voices <= len(accents) * len(VARIANTS):
        raise ValueError(f"{voices} voices asked for, 1 to {len(accents) * len(VARIANTS)} can be had")
    espeak = Espeak()
    variants = random.Random(seed).sample(VARIANTS, len(VARIANTS))
    with open(folder / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "speaker", "text", "phones"])
        for number in range(voices):
            accent = accents[number % len(accents)]
            # A vocal tract does not come twice among the first 56 voices, nor a pair of accent and tract at
            # all.
            speaker = f"{accent}+{variants[(number + number // len(accents)) % len(VARIANTS)]}"
            rng = random.Random(f"{seed} {speaker}")
            espeak.voice(speaker, rng.randint(130, 200), rng.randint(30, 70), rng.randint(35, 75))
            for count in range(utterances):
                text = sentence(accent.split("-")[0], rng)
                wav, phones = espeak.say(text, rng.randrange(1, 2**31))
                name = f"{speaker}-{count:03d}.flac"
                soundfile.write(folder / name, wav, RATE, subtype="PCM_16")
                table.writerow([name, speaker, text, " ".join(f"{symbol}@{time:.4f}" for symbol, time in phones)])


def tell(text: str, voice: str) -> dict:
    """Phones, words and seconds of a text in a voice's usual way of speaking."""
    espeak = Espeak()
    espeak.voice(voice, 165, 50, 50)
    wav, phones = espeak.say(text, 1)
    return {"phones": phones, "words": espeak.words, "seconds": len(wav) / RATE}


if __name__ == "__main__":
    if sys.argv[1] == "say":
        print(json.dumps(tell(**json.load(sys.stdin))))
        sys.exit()
    arguments = json.loads(sys.argv[1])
    assert {accent.split("-")[0] for accent in ACCENTS} == set(LANGUAGES)
    write(Path(arguments.pop("folder")), **arguments)
