"""Vocabularies of phones or characters, collected from a corpus and stored in the configuration of a model."""

import unicodedata
from collections.abc import Iterable, Sequence

from codec.utils.errors import InputError

FILLER = 0  # the number of "no symbol"


class Vocabulary:
    """Map of distinct symbols to numbers from 1; `kind` is "phone" or "character". InputError if there are none."""

    def __init__(self, symbols: Sequence[str], kind: str):
        if not symbols:
            source = {"phone": "phones", "character": "texts"}[kind]
            raise InputError(f"this condition needs {source}, and the corpus has none: choose another text=")
        self.numbers = {symbol: number for number, symbol in enumerate(symbols, start=FILLER + 1)}
        self.kind = kind

    def __len__(self) -> int:
        """Number of symbols, with the filler."""
        return len(self.numbers) + 1

    def unknown(self, symbols: Iterable[str]) -> list[str]:
        """The symbols that are not in the vocabulary, each once."""
        return [symbol for symbol in dict.fromkeys(symbols) if symbol not in self.numbers]

    def __call__(self, symbols: Iterable[str]) -> list[int]:
        """Numbers of the symbols. Raises InputError for an unknown symbol."""
        symbols = list(symbols)
        if unknown := self.unknown(symbols):
            named = ", ".join(map(repr, unknown[:5]))
            raise InputError(f"this model was not trained on the {self.kind} {named}; valid: {' '.join(self.numbers)}")
        return [self.numbers[symbol] for symbol in symbols]


def normalized_text(text: str) -> str:
    """A text in the models' form: NFKC, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def characters(texts: Iterable[str]) -> str:
    """Distinct characters of the texts; in reverse order, so that no ``${`` can be parsed as an interpolation."""
    return "".join(sorted(set().union(*map(normalized_text, texts)), reverse=True))


def phones(recordings: Iterable[Iterable[tuple[str, float]]]) -> str:
    """Distinct symbols of the phones, separated by spaces."""
    return " ".join(sorted({symbol for recording in recordings for symbol, _ in recording}, reverse=True))
