"""``python -m codec inpaint``, ``tts`` and ``edit``: a flow model at work on sound files."""

import argparse
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile

from codec.data.audio import AudioError, read
from codec.data.espeak import said
from codec.data.manifest import phones_are_timed, read_manifest
from codec.data.vocabulary import spelt
from codec.flow.editing import find_words, plan_edit, stretched
from codec.flow.generate import Generator, Sampling
from codec.utils.atomic import atomic_file, refuse_existing
from codec.utils.device import usable_device
from codec.utils.errors import InputError

MANIFEST = "manifest.csv"
Phones = list[tuple[str, float | None]]
OUTSIDE = (
    "Outside of what is new, samples are those of the recording, but for 20 ms on either side, over which the two are "
    "mixed; --resynthesise gives all of it as the codec decodes it. The output has the codec's sample rate."
)
TIMES = (
    "A model that is told phones gets those that eSpeak NG says, with their times, at the pace of --seconds or of "
    "--prompt-text. Phones that it never met in its corpus are refused."
)


def add_inpaint(commands) -> None:
    parser = commands.add_parser(
        "inpaint", help="a recording -> the same with spans filled in by a flow model", description=OUTSIDE
    )
    parser.add_argument("source", type=Path, help="audio file (wav, flac, ogg, opus, mp3), any rate and length")
    parser.add_argument(
        "--span",
        type=number,
        nargs=2,
        action="append",
        required=True,
        metavar=("START", "END"),
        help="to be filled in, in seconds; may be given many times",
    )
    add_said(parser, "what is said in all of the recording, the spans included")
    add_model(parser, "the voice (default: the longest piece of the recording that stays)")
    add_mixing(parser)
    parser.set_defaults(run=run_inpaint)


def add_tts(commands) -> None:
    parser = commands.add_parser("tts", help="a text -> speech of a flow model", description=TIMES)
    parser.add_argument("text", help="what is to be said")
    parser.add_argument("--seconds", type=number, help="how long it takes (default: as eSpeak NG says it)")
    parser.add_argument("--prompt-text", help="what is said in the prompt; the text is said at its pace")
    parser.add_argument("--voice", default="en-us", help="language or voice of eSpeak NG (%(default)s)")
    add_model(parser, "a recording of the voice; a model without prompts goes on from it, and needs --prompt-text")
    parser.set_defaults(run=run_tts)


def add_edit(commands) -> None:
    parser = commands.add_parser(
        "edit",
        help="a recording -> the same with words replaced by a flow model",
        description="The phones with their times tell where the words are; what follows them is moved. " + OUTSIDE,
    )
    parser.add_argument("source", type=Path, help="audio file (wav, flac, ogg, opus, mp3), any rate")
    parser.add_argument("--old", required=True, help="the words to be replaced, as they stand in the text")
    parser.add_argument("--new", required=True, help="the words in their place")
    add_said(parser, "what is said in the recording")
    add_model(parser, "the voice (default: the longest piece of the recording that stays)")
    add_mixing(parser)
    parser.set_defaults(run=run_edit)


def add_said(parser: argparse.ArgumentParser, what: str) -> None:
    beside = f"(default: as {MANIFEST} beside the recording says)"
    parser.add_argument("--text", help=f"{what} {beside}")
    parser.add_argument("--phones", help=f'its phones, "h@0.1 e@0.2 ...", with their starts in seconds {beside}')
    parser.add_argument(
        "--voice", default="en-us", help="language or voice in which eSpeak NG reads text (%(default)s)"
    )


def add_model(parser: argparse.ArgumentParser, prompt: str) -> None:
    parser.add_argument("--flow", type=Path, required=True, help="checkpoint of the flow model")
    parser.add_argument("--ckpt", type=Path, help="checkpoint of its codec (default: where it was in training)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="audio file to write, by its ending")
    parser.add_argument("--prompt", type=Path, help=prompt)
    parser.add_argument("--steps", type=int, default=32, help="of the sampler (%(default)s)")
    parser.add_argument(
        "--guidance", type=number, default=2.0, help="1 is none, more holds on to what is told (%(default)g)"
    )
    parser.add_argument("--sampler", default="euler", help="euler, or midpoint, at twice the time (%(default)s)")
    parser.add_argument("--seed", type=seed, default=0, help="the same gives the same file (%(default)s)")
    parser.add_argument("--device", default="auto", help="(default: a GPU where there is one)")
    parser.add_argument("--raw", action="store_true", help="the flow model's last weights, not their moving average")
    parser.add_argument("--force", action="store_true", help="replace the output if it exists")


def add_mixing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resynthesise", action="store_true", help="decode what stays, too")


def number(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError
    return value


def seed(text: str) -> int:
    if not 0 <= (value := int(text)) < 2**62:
        raise ValueError
    return value


def run_inpaint(options: argparse.Namespace) -> None:
    generator = opened(options)
    wav = heard(options.source, generator.sample_rate)
    text, phones = told(options)
    check_wanted(generator, text=options.text, phones=options.phones, prompt=options.prompt)
    condition = generator.flow.condition
    if "phones" in condition.parts:
        check_within(phones, len(wav) / generator.sample_rate)
    if "phones" in condition.parts and not phones:
        if condition.timed:
            raise InputError('this model is told when each phone starts: give --phones "h@0.1 e@0.2 ..."')
        phones = [(symbol, None) for symbol, _ in said(some(text), options.voice).phones]
    with sampling(options) as how:
        given = {"text": text, "phones": phones, "prompt": voice(options, generator), "sampling": how}
        wav = generator.inpaint(wav, options.span, resynthesise=options.resynthesise, **given)
    write(options, wav, generator.sample_rate, str(options.source))


def run_tts(options: argparse.Namespace) -> None:
    text = some(options.text)
    if options.prompt_text is not None and not options.prompt:
        raise InputError("--prompt-text says what is said in a prompt: give --prompt, too")
    generator = opened(options)
    prompt, spoken = voice(options, generator), said(text, options.voice)
    goes_on = prompt is not None and not generator.flow.condition.prompted
    if goes_on and options.prompt_text is None:
        raise InputError(
            "this model was trained without prompts, but can go on from one: say what is said in it, --prompt-text"
        )
    seconds, before = spoken.seconds, None
    if options.prompt_text is not None:
        usual, length = said(some(options.prompt_text), options.voice), len(prompt) / generator.sample_rate
        seconds *= length / usual.seconds
    seconds = seconds if options.seconds is None else options.seconds
    phones = stretched(spoken.phones, seconds / spoken.seconds)
    if goes_on:
        before, prompt = prompt[: len(prompt) // generator.hop * generator.hop], None
        text = f"{some(options.prompt_text)} {text}"
        begins = len(before) / generator.sample_rate
        phones = stretched(usual.phones, length / usual.seconds) + [(symbol, begins + at) for symbol, at in phones]
    with sampling(options) as how:
        wav = generator.speak(seconds, text=text, phones=phones, prompt=prompt, before=before, sampling=how)
    write(options, wav, generator.sample_rate, f'"{text}"')


def run_edit(options: argparse.Namespace) -> None:
    text, phones = told(options)
    place = find_words(some(text), options.old)
    after = text[: place.begin] + some(options.new) + text[place.end :]
    generator = opened(options)
    check_wanted(generator, prompt=options.prompt)
    wav = heard(options.source, generator.sample_rate)
    sounds = said(text, options.voice), said(after, options.voice)
    seconds = len(wav) / generator.sample_rate
    check_within(phones, seconds)
    plan = plan_edit(text, phones, place, options.new, *sounds, seconds, generator.frame_rate)
    with sampling(options) as how:
        given = {"prompt": voice(options, generator), "sampling": how, "resynthesise": options.resynthesise}
        wav = generator.edit(wav, plan, **given)
    write(options, wav, generator.sample_rate, str(options.source))


def opened(options: argparse.Namespace) -> Generator:
    """The models, once it is clear that the output can be written."""
    refuse_existing([options.output], options.force)
    if (ending := options.output.suffix[1:].upper()) not in ("WAV", "FLAC", "OGG"):
        raise InputError(f"{options.output} ends in {ending.lower() or 'nothing'}: choose .wav, .flac or .ogg")
    return Generator.load(options.flow, options.ckpt, usable_device(options.device), not options.raw)


def heard(path: Path, sample_rate: int) -> np.ndarray:
    """A recording ``[T]``, mono, resampled."""
    if not path.is_file():
        raise InputError(f"there is no audio file at {path}")
    try:
        return read(path, sample_rate)
    except AudioError as error:
        raise InputError(f"{path} {error.reason}") from None


def voice(options: argparse.Namespace, generator: Generator) -> np.ndarray | None:
    return heard(options.prompt, generator.sample_rate) if options.prompt else None


def told(options: argparse.Namespace) -> tuple[str, Phones]:
    """Text and phones of a recording: as the user says, or else the manifest beside it."""
    text, phones, manifest = options.text, options.phones, options.source.parent / MANIFEST
    if text is None and phones is None and manifest.is_file():
        row = next((row for row in read_manifest(manifest)[0] if row.file == options.source.name), None)
        text, phones = (row.text, row.phones) if row else (None, None)
    if options.text is not None:
        some(text)
    phones = phones or ""
    if phones_are_timed(phones):
        return text or "", [(symbol, float(time)) for symbol, _, time in (p.rpartition("@") for p in phones.split())]
    if "@" in phones:
        where = "" if options.phones else f"{manifest}: "
        raise InputError(
            f'{where}phones are "h@0.1 e@0.2 ...", each with its start in seconds, in their order, or "h e ..." without'
        )
    return text or "", [(symbol, None) for symbol in phones.split()]


def check_within(phones: Phones, seconds: float) -> None:
    """Raises InputError for phones that begin after the end of a recording of ``seconds``."""
    late = next(((symbol, start) for symbol, start in phones if start is not None and start >= seconds), None)
    if late:
        symbol, start = late
        raise InputError(f"the phone {symbol} begins at {start:g} s, and the recording is {seconds:.2f} s long")


def some(text: str) -> str:
    """Raises InputError if there is nothing in a text."""
    if not spelt(text):
        raise InputError("the text is empty: say what is to be said")
    return text


def check_wanted(generator: Generator, **given: object) -> None:
    """Raises InputError for something that the user says and the model was not trained to be told."""
    condition = generator.flow.condition
    wanted = condition.parts | ({"prompt"} if condition.prompted else set())
    if "phones" in wanted and not condition.timed and not given.get("phones"):
        wanted.add("text")  # which is turned into phones
    for name, value in given.items():
        if value is not None and name not in wanted:
            rest = f"it is told {' and '.join(sorted(wanted))}" if wanted else "it is told nothing"
            raise InputError(f"this model was not trained to be told --{name}, and {rest}: leave it out")


@contextmanager
def sampling(options: argparse.Namespace) -> Iterator[Sampling]:
    """How the user wants it, with a bar of what is done."""
    from tqdm import tqdm

    with tqdm(total=1.0, bar_format="{percentage:3.0f}% |{bar}| {elapsed} < {remaining}") as bar:
        show = lambda share: bar.update(share - bar.n)  # noqa: E731
        yield Sampling(options.steps, options.guidance, options.sampler, options.seed, show)


def write(options: argparse.Namespace, wav: np.ndarray, sample_rate: int, source: str) -> None:
    with atomic_file(options.output) as file:
        soundfile.write(file, wav, sample_rate, format=options.output.suffix[1:].upper())
    print(f"{source} -> {options.output}: {len(wav) / sample_rate:.2f} s")
