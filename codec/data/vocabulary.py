"""The symbols that a model knows: learned from its corpus once, and kept in its configuration."""

import unicodedata
from collections.abc import Iterable, Sequence

from codec.utils.errors import InputError

FILLER = 0  # stands where there is no symbol


class Vocabulary:
    """Symbols -> numbers from 1.

    Args:
        symbols: each once.
        kind: what they are, for sentences: ``phone`` or ``character``.

    Raises:
        InputError: if there are none.
    """

    def __init__(self, symbols: Sequence[str], kind: str):
        if not symbols:
            lacks = {"phone": "phones", "character": "texts"}[kind]
            raise InputError(
                f"this condition is learned from {lacks}, and the corpus has none: choose another condition="
            )
        self.numbers = {symbol: number for number, symbol in enumerate(symbols, start=FILLER + 1)}
        self.kind = kind

    def __len__(self) -> int:
        """How many numbers there are, the filler's included."""
        return len(self.numbers) + 1

    def unknown(self, symbols: Iterable[str]) -> list[str]:
        """Those that it does not have, each once."""
        return [symbol for symbol in dict.fromkeys(symbols) if symbol not in self.numbers]

    def __call__(self, symbols: Iterable[str]) -> list[int]:
        """Raises InputError, with the ones that there are, for an unknown symbol."""
        symbols = list(symbols)
        if unknown := self.unknown(symbols):
            named = ", ".join(repr(symbol) for symbol in unknown[:5])
            raise InputError(f"this model has never met the {self.kind} {named}: it knows {' '.join(self.numbers)}")
        return [self.numbers[symbol] for symbol in symbols]


def spelt(text: str) -> str:
    """A text as models read it: compatible Unicode forms, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def characters(texts: Iterable[str]) -> str:
    """All characters of the texts, each once. Backwards, so that ``${`` cannot stand there, which configurations would
    take for a reference."""
    return "".join(sorted(set().union(*map(spelt, texts)), reverse=True))


def phones(recordings: Iterable[Iterable[tuple[str, float]]]) -> str:
    """All symbols of the phones, each once, with spaces between them."""
    return " ".join(sorted({symbol for recording in recordings for symbol, _ in recording}, reverse=True))
