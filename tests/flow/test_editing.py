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
    """Every letter of WORDS lasts so long, and there is a pause after each comma."""
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


def test_spans_are_the_frames_that_they_touch():
    assert span_frames([(1.2, 1.9)], 3.2, 12.5) == [(15, 24)]
    assert span_frames([(0.0, 0.3), (2.9, 3.25)], 3.25, RATE) == [(0, 3), (29, 33)]
    assert span_frames([(0.3, 0.7)], 3.0, 10.0) == [(3, 7)]  # 0.7 * 10 is a little less than 7


@pytest.mark.parametrize(
    ("span", "sentence"),
    [
        ((1.9, 1.2), "from 1.9 to 1.2 s ends before it begins"),
        ((1.0, 1.0), "ends before it begins"),
        ((-0.1, 1.0), "is not within the recording, which is 3.00 s long"),
        ((2.0, 3.2), "is not within the recording"),
        ((1.0, 1.05), r"is shorter than a latent frame, which is 0.1 s"),
    ],
)
def test_spans_that_cannot_be(span, sentence):
    with pytest.raises(InputError, match=sentence):
        span_frames([(0.5, 1.0), span], 3.0, RATE)


def test_the_longest_known_piece():
    span = np.array([0, 1, 0, 0, 0, 1, 1, 0], bool)
    assert longest_known(span, 10) == (2, 5)
    assert longest_known(span, 2) == (2, 4)
    assert longest_known(np.ones(4, bool), 2) == (0, 0)
    assert longest_known(np.zeros(4, bool), 9) == (0, 4)


def test_words_are_found_whatever_their_case_and_punctuation():
    text = "The red fox; the Blue, fox."
    place = find_words(text, "blue FOX")
    assert text[place.begin : place.end] == "Blue, fox"
    assert (place.first, place.last) == (4, 6)
    for old, sentence in (("fox", "2 times in the text"), ("dog", "not in the text"), ("!", "no words to be replaced")):
        with pytest.raises(InputError, match=sentence):
            find_words(text, old)


def test_an_edit_takes_the_phones_of_its_words_and_moves_the_rest():
    """Twice as slow as eSpeak, and begun 0.25 s late."""
    text = "the red fox runs"
    phones = [(symbol, 0.25 + 2 * time) for symbol, time in spoken(text).phones]
    edit = planned(text, "red", "blue", phones, 2.4)
    assert edit.text == "the blue fox runs"
    assert [symbol for symbol, _ in edit.phones] == list("abfghijkl")
    # "red" is from 0.65 to 1.25 s; "blue" takes 0.4 s, 0.2 s less
    assert (edit.first, edit.end, edit.frames) == (6, 13, 5)
    times = dict(edit.phones)
    assert times["a"] == 0.25
    assert times["f"] == pytest.approx(0.65)
    assert times["g"] == pytest.approx(0.85)
    assert times["h"] == pytest.approx(1.25 - 0.2)
    assert times["l"] == pytest.approx(dict(phones)["l"] - 0.2)
    longer = planned(text, "fox", "red red red", phones, 2.4)
    assert longer.frames - (longer.end - longer.first) == 14  # 1.8 s in place of 0.4 s
    at = [time for _, time in longer.phones]
    assert at == sorted(at)


def test_phones_of_somebody_else_say_where_words_are_too():
    """A recogniser heard one phone more, one otherwise, and not the last."""
    text = "the red fox runs"
    heard = [
        ("a", 0.0),
        ("x", 0.05),
        ("b", 0.1),
        ("c", 0.2),
        ("y", 0.3),
        ("e", 0.4),
        ("h", 0.5),
        ("i", 0.6),
        ("j", 0.7),
    ]
    edit = planned(text, "red", "blue", [*heard, ("k", 0.8)], 1.0)
    assert (edit.first, edit.end, edit.frames) == (2, 5, 2)
    assert [symbol for symbol, _ in edit.phones] == list("axbfghijk")


def test_pauses_stay_and_the_last_word_can_go():
    text = "the red, fox"
    before, after = spoken(text, pause=0.3), spoken("the blue, fox", pause=0.3)
    edit = planned(text, "red", "blue", before.phones, before.seconds, before, after)
    assert [symbol for symbol, _ in edit.phones] == list("abfg_hi")
    assert (edit.first, edit.end, edit.frames) == (2, 5, 2)
    edit = planned(text, "fox", "runs", before.phones, 1.05, before, spoken("the red, runs", pause=0.3))
    assert (edit.first, edit.end) == (8, 11)
    assert [symbol for symbol, _ in edit.phones] == list("abcde_jkl")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"new": " ,"}, "no new words"),
        ({"phones": []}, "give phones with their times"),
        ({"phones": [("a", None)]}, "give phones with their times"),
        ({"phones": [("z", 0.0), ("y", 0.1), ("x", 0.2)]}, "not those of the text"),
        (
            {"before": Pronunciation(spoken("the red fox").phones, [(0, 0.0), (8, 0.5)], 0.7)},
            "'the red' is said in one breath",
        ),
        (
            {"after": Pronunciation(spoken("the blue fox").phones, [(0, 0.0), (4, 0.2)], 0.6)},
            "'blue fox' is said in one breath",
        ),
        ({"after": Pronunciation([("a", 0.0)], [(0, 0.0), (4, 0.2), (9, 0.2)], 0.6)}, "'blue' is not heard"),
    ],
)
def test_edits_that_cannot_be(change, sentence):
    text = "the red fox"
    options = {"new": "blue", "phones": spoken(text).phones, "seconds": 0.7, "after": spoken("the blue fox")} | change
    with pytest.raises(InputError, match=sentence):
        planned(text, "red", **options)


def test_how_a_text_sounds():
    """eSpeak NG itself: words at their letters, in order, and the same again."""
    text = "The größe of the dog, isn't"
    once = pronounce(text)
    assert [text[letter:].split()[0] for letter, _ in once.words] == ["The", "größe", "of", "dog,", "isn't"]
    times = [time for _, time in once.phones]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] < once.seconds < 5
    assert "ð" in dict(once.phones)
    assert once == pronounce(text)
    edit = plan_edit(
        text,
        once.phones,
        find_words(text, "dog"),
        "cat",
        once,
        pronounce("The größe of the cat, isn't"),
        once.seconds,
        RATE,
    )
    assert "".join(symbol for symbol, _ in edit.phones[-9:]).startswith("æt_")
    with pytest.raises(CorpusError, match="no voice nowhere"):
        pronounce("a", "nowhere")
    with pytest.raises(CorpusError, match="no sound"):
        pronounce("...")
