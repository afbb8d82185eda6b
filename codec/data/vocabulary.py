"""Vocabularies of phones or characters, collected from a corpus and stored in the configuration of a model."""

import unicodedata
from collections.abc import Iterable, Sequence

from codec.utils.errors import InputError

FILLER = 0  # the number of "no symbol"


class Vocabulary:
    """Symbols -> numbers from 1.

    Args:
        symbols: each once.
        kind: of the symbols, for messages: ``phone`` or ``character``.

    Raises:
        InputError: if there are no symbols.
    """

    def __init__(self, symbols: Sequence[str], kind: str):
        if not symbols:
            source = {"phone": "phones", "character": "texts"}[kind]
            raise InputError(f"this condition needs {source}, and the corpus has none: choose another text=")
        self.numbers = {symbol: number for number, symbol in enumerate(symbols, start=FILLER + 1)}
        self.kind = kind

    def __len__(self) -> int:
        """The number of symbols, with the filler."""
        return len(self.numbers) + 1

    def unknown(self, symbols: Iterable[str]) -> list[str]:
        """The symbols that it lacks, each once."""
        return [symbol for symbol in dict.fromkeys(symbols) if symbol not in self.numbers]

    def __call__(self, symbols: Iterable[str]) -> list[int]:
        """Raises InputError for an unknown symbol."""
        symbols = list(symbols)
        if unknown := self.unknown(symbols):
            named = ", ".join(map(repr, unknown[:5]))
            raise InputError(f"this model was not trained on the {self.kind} {named}; valid: {' '.join(self.numbers)}")
        return [self.numbers[symbol] for symbol in symbols]


def normalized_text(text: str) -> str:
    """A text as models read it: compatible Unicode forms (NFKC), lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def characters(texts: Iterable[str]) -> str:
    """All characters of the texts, each once; in reverse order, so that no ``${`` can be taken for an interpolation."""
    return "".join(sorted(set().union(*map(normalized_text, texts)), reverse=True))


def phones(recordings: Iterable[Iterable[tuple[str, float]]]) -> str:
    """All symbols of the phones, each once, separated by spaces."""
    return " ".join(sorted({symbol for recording in recordings for symbol, _ in recording}, reverse=True))
