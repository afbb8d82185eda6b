"""Vocabularies are sorted sets of symbols that a configuration can hold."""

import pytest

from codec.data.vocabulary import Vocabulary, characters, phones
from codec.utils.errors import InputError


def test_vocabularies_have_every_symbol_once():
    assert characters(["Ab  c", "b${}ﬁ"]) == "}{ifcba$ "
    assert "${" not in characters(["${"])  # which would be an interpolation
    assert phones([[("a", 0.0), ("t͡s", 0.1)], [("a", 0.2)]]).split() == ["t͡s", "a"]


def test_unknown_symbols_and_empty_vocabularies_are_refused():
    vocabulary = Vocabulary("abc", "character")
    assert vocabulary("cab") == [3, 1, 2]
    assert len(vocabulary) == 4
    with pytest.raises(InputError, match="character 'z'"):
        vocabulary("abz")
    with pytest.raises(InputError, match="text="):
        Vocabulary("", "character")
