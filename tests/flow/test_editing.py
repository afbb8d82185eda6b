"""From seconds and words to frames and times."""

import numpy as np
import pytest

from codec.data.base import CorpusError
from codec.data.espeak import Pronunciation, pronounce
from codec.flow.editing import find_words, longest_known, plan_edit, span_frames
from codec.utils.errors import InputError

RATE = 10.0  # frames per second
WORDS = {"the": "ab", "red": "cde", "blue": "fg", "fox": "hi", "runs": "jkl"}


def spoken(text: str, each: float = 0.1, pause: float = 0.0) -> Pronunciation:
    """Every letter of WORDS is a phone of ``each`` seconds, with a pause after each comma."""
    phones, words, time, letter = [], [], 0.0, 0
    for word in text.split():
        words.append((letter, time))
        for symbol in WORDS[word.strip(",").lower()]:
            phones.append((symbol, time))
            time += each
        if word.endswith(","):
            phones.append(("_", time))
            time += pause
        letter += len(word) + 1
    return Pronunciation(phones, words, time)


def planned(text, old, new, phones, seconds, before=None, after=None):
    place = find_words(text, old)
    edited = text[: place.begin] + new + text[place.end :]
    return plan_edit(text, phones, place, new, before or spoken(text), after or spoken(edited), seconds, RATE)


def symbols(edit) -> str:
    return "".join(symbol for symbol, _ in edit.phones)


def test_spans_are_the_frames_that_they_overlap():
    assert span_frames([(1.2, 1.9)], 3.2, 12.5) == [(15, 24)]
    assert span_frames([(0.0, 0.3), (2.9, 3.25)], 3.25, RATE) == [(0, 3), (29, 33)]
    assert span_frames([(0.3, 0.7)], 3.0, 10.0) == [(3, 7)]  # 0.7 * 10 is a little less than 7
    with pytest.raises(InputError, match="not within the recording"):
        span_frames([(0.5, 1.0), (-0.1, 1.0)], 3.0, RATE)


def test_the_longest_known_part():
    span = np.array([0, 1, 0, 0, 0, 1, 1, 0], bool)
    for given, most, part in (
        (span, 10, (2, 5)),
        (span, 2, (2, 4)),
        (span | True, 2, (0, 0)),
        (span & False, 9, (0, 8)),
    ):
        assert longest_known(given, most) == part


def test_words_are_found_ignoring_case_and_punctuation():
    text = "The red fox; the Blue, fox."
    place = find_words(text, "blue FOX")
    assert text[place.begin : place.end] == "Blue, fox"
    assert (place.first, place.last) == (4, 6)
    for old, sentence in (("fox", "2 times in the text"), ("!", "no words to replace")):
        with pytest.raises(InputError, match=sentence):
            find_words(text, old)


def test_an_edit_replaces_the_phones_of_its_words_and_moves_the_rest():
    """In a recording at half of eSpeak's pace that begins with 0.25 s of silence."""
    text = "the red fox runs"
    phones = [(symbol, 0.25 + 2 * time) for symbol, time in spoken(text).phones]
    edit = planned(text, "red", "blue", phones, 2.4)
    assert (edit.text, symbols(edit)) == ("the blue fox runs", "abfghijkl")
    # "red" is from 0.65 to 1.25 s; "blue" takes 0.4 s, 0.2 s less
    assert (edit.first, edit.end, edit.frames) == (6, 13, 5)
    wanted = {"a": 0.25, "f": 0.65, "g": 0.85, "h": 1.25 - 0.2, "l": dict(phones)["l"] - 0.2}
    assert {symbol: dict(edit.phones)[symbol] for symbol in wanted} == pytest.approx(wanted)
    longer = planned(text, "fox", "red red red", phones, 2.4)
    assert longer.frames - (longer.end - longer.first) == 14  # 1.8 s in place of 0.4 s
    at = [time for _, time in longer.phones]
    assert at == sorted(at)


def test_phones_may_differ_from_espeaks():
    """One phone is inserted, one substituted, and the last deleted."""
    phones = [("a", 0.0), ("x", 0.05), *((symbol, (n + 1) / 10) for n, symbol in enumerate("bcyehijk"))]
    edit = planned("the red fox runs", "red", "blue", phones, 1.0)
    assert (edit.first, edit.end, edit.frames) == (2, 5, 2)
    assert symbols(edit) == "axbfghijk"


def test_pauses_are_not_replaced_and_the_last_word_can_be():
    text = "the red, fox"
    before, after = spoken(text, pause=0.3), spoken("the blue, fox", pause=0.3)
    edit = planned(text, "red", "blue", before.phones, before.seconds, before, after)
    assert symbols(edit) == "abfg_hi"
    assert (edit.first, edit.end, edit.frames) == (2, 5, 2)
    edit = planned(text, "fox", "runs", before.phones, 1.05, before, spoken("the red, runs", pause=0.3))
    assert (edit.first, edit.end) == (8, 11)
    assert symbols(edit) == "abcde_jkl"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"new": " ,"}, "no new words"),
        ({"phones": []}, "start times"),
        ({"phones": [("a", None)]}, "start times"),
        ({"phones": [("z", 0.0), ("y", 0.1), ("x", 0.2)]}, "do not match"),
        ({"before": spoken("the red fox")._replace(words=[(0, 0.0), (8, 0.5)])}, "'the red' is spoken as one"),
        ({"after": spoken("the blue fox")._replace(words=[(0, 0.0), (4, 0.2)])}, "'blue fox' is spoken as one"),
        ({"after": Pronunciation([("a", 0.0)], [(0, 0.0), (4, 0.2), (9, 0.2)], 0.6)}, "'blue' has no phones"),
    ],
)
def test_impossible_edits_are_refused(change, sentence):
    text = "the red fox"
    options = {"new": "blue", "phones": spoken(text).phones, "seconds": 0.7, "after": spoken("the blue fox")} | change
    with pytest.raises(InputError, match=sentence):
        planned(text, "red", **options)


def test_espeaks_reading_of_a_text():
    """Words at their letters, in order."""
    text = "The größe of the dog, isn't"
    once = pronounce(text)
    assert [text[letter:].split()[0] for letter, _ in once.words] == ["The", "größe", "of", "dog,", "isn't"]
    times = [time for _, time in once.phones]
    assert 0 <= times[0] < times[-1] < once.seconds < 5
    assert times == sorted(times)
    after = pronounce("The größe of the cat, isn't")
    edit = plan_edit(text, once.phones, find_words(text, "dog"), "cat", once, after, once.seconds, RATE)
    assert symbols(edit)[-9:].startswith("æt_")
    for words, sentence in ((["a", "nowhere"], "no voice nowhere"), (["..."], "no sound")):
        with pytest.raises(CorpusError, match=sentence):
            pronounce(*words)
