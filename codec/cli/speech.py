"""``inpaint``, ``tts`` and ``edit``: speech inpainting, synthesis and editing with a flow model, to audio files."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from codec.cli import options as shared
from codec.cli.options import finite
from codec.data.vocabulary import normalized_text
from codec.utils.atomic import refuse_existing
from codec.utils.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from codec.flow.generate import Generator
    from codec.flow.sampler import Sampling

MANIFEST = "manifest.csv"
AUDIO = "audio file (wav, flac, ogg, opus, mp3), any rate and length"
Phones = list[tuple[str, float | None]]
EPILOG = (
    "Outside of the new spans the output has the samples of the recording, resampled to the rate of the codec, with a "
    "cross-fade of 20 ms at each border; --resynthesise decodes all of it."
)


def add_inpaint(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("source", type=Path, help=AUDIO)
    parser.add_argument(
        "--span",
        type=finite,
        nargs=2,
        action="append",
        required=True,
        metavar=("START", "END"),
        help="to inpaint, in seconds; may be repeated",
    )
    add_transcript(parser, "text of the whole recording, the spans included")
    add_model(parser, "recording of the voice (default: the longest piece of the recording outside of the spans)")
    parser.add_argument("--resynthesise", action="store_true", help="decode all of the output")


def add_tts(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Phones and their times are those of eSpeak NG, at the pace of --seconds or of --prompt-text."
    parser.add_argument("text", help="to speak")
    parser.add_argument("--seconds", type=finite, help="duration (default: that of eSpeak NG)")
    parser.add_argument("--prompt-text", help="text of the prompt, whose pace is used")
    parser.add_argument("--voice", default="en-us", help="language or voice of eSpeak NG (%(default)s)")
    add_model(parser, "recording of the voice; a model trained without prompts continues it, and needs --prompt-text")


def add_edit(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"The timed phones locate the words; what follows them is moved. {EPILOG}"
    parser.add_argument("source", type=Path, help=AUDIO)
    parser.add_argument("--old", required=True, help="words to replace, as they stand in the text")
    parser.add_argument("--new", required=True, help="words in their place")
    add_transcript(parser, "text of the recording")
    add_model(parser, "recording of the voice (default: the longest piece of the recording outside of the words)")
    parser.add_argument("--resynthesise", action="store_true", help="decode all of the output")


def add_transcript(parser: argparse.ArgumentParser, text: str) -> None:
    default = f"(default: from {MANIFEST} beside the recording)"
    parser.add_argument("--text", help=f"{text} {default}")
    parser.add_argument("--phones", help=f'its phones, "h@0.1 e@0.2 ...", with their starts in seconds {default}')
    parser.add_argument("--voice", default="en-us", help="language or voice of eSpeak NG for text (%(default)s)")


def add_model(parser: argparse.ArgumentParser, prompt: str) -> None:
    shared.add_ckpt(parser, "the flow model")
    shared.add_codec_ckpt(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, help="audio file to write: .wav, .flac, .ogg, ...")
    parser.add_argument("--prompt", type=Path, help=prompt)
    shared.add_sampling(parser, steps=32)
    for add in (shared.add_seed, shared.add_device, shared.add_raw, shared.add_force):
        add(parser)


def run_inpaint(options: argparse.Namespace) -> None:
    from codec.data import audio
    from codec.data.espeak import pronounce

    generator = load_generator(options)
    wav = audio.read(options.source, generator.sample_rate)
    text, phones = transcript(options)
    check_conditioning(generator, text=options.text, phones=options.phones, prompt=options.prompt)
    condition = generator.flow.condition
    if "phones" in condition.transcripts:
        check_within(phones, len(wav) / generator.sample_rate)
        if not phones and condition.needs_times:
            raise InputError('this model is conditioned on timed phones: give --phones "h@0.1 e@0.2 ..."')
        phones = phones or [(symbol, None) for symbol, _ in pronounce(not_empty(text), options.voice).phones]
    with sampling(options) as how:
        given = {"text": text, "phones": phones, "prompt": read_prompt(options, generator), "sampling": how}
        wav = generator.inpaint(wav, options.span, resynthesise=options.resynthesise, **given)
    write(options, wav, generator.sample_rate, str(options.source))


def run_tts(options: argparse.Namespace) -> None:
    from codec.data.espeak import pronounce
    from codec.flow.editing import stretched

    text = not_empty(options.text)
    if options.prompt_text is not None and not options.prompt:
        raise InputError("--prompt-text is the text of a prompt: give --prompt, too")
    generator = load_generator(options)
    prompt, spoken = read_prompt(options, generator), pronounce(text, options.voice)
    continues = prompt is not None and not generator.flow.condition.needs_prompt
    if continues and options.prompt_text is None:
        raise InputError("this model was trained without prompts, but can continue one: give its text, --prompt-text")
    seconds, before = spoken.seconds, None
    if options.prompt_text is not None:
        usual, length = pronounce(not_empty(options.prompt_text), options.voice), len(prompt) / generator.sample_rate
        seconds *= length / usual.seconds
    seconds = seconds if options.seconds is None else options.seconds
    phones = stretched(spoken.phones, seconds / spoken.seconds)
    if continues:
        before, prompt = prompt[: len(prompt) // generator.hop * generator.hop], None
        text = f"{options.prompt_text} {text}"
        start = len(before) / generator.sample_rate
        phones = stretched(usual.phones, length / usual.seconds) + [(symbol, start + at) for symbol, at in phones]
    with sampling(options) as how:
        wav = generator.speak(seconds, text=text, phones=phones, prompt=prompt, before=before, sampling=how)
    write(options, wav, generator.sample_rate, f'"{text}"')


def run_edit(options: argparse.Namespace) -> None:
    from codec.data import audio
    from codec.data.espeak import pronounce
    from codec.flow.editing import find_words, plan_edit

    text, phones = transcript(options)
    place = find_words(not_empty(text), options.old)
    after = text[: place.begin] + not_empty(options.new) + text[place.end :]
    generator = load_generator(options)
    check_conditioning(generator, prompt=options.prompt)
    wav = audio.read(options.source, generator.sample_rate)
    spoken = pronounce(text, options.voice), pronounce(after, options.voice)
    seconds = len(wav) / generator.sample_rate
    check_within(phones, seconds)
    plan = plan_edit(text, phones, place, options.new, *spoken, seconds, generator.frame_rate)
    with sampling(options) as how:
        given = {"prompt": read_prompt(options, generator), "sampling": how, "resynthesise": options.resynthesise}
        wav = generator.edit(wav, plan, **given)
    write(options, wav, generator.sample_rate, str(options.source))


def load_generator(options: argparse.Namespace) -> "Generator":
    """The flow model and its codec. Raises InputError before loading them if the output cannot be written."""
    from codec.data.audio import format_of
    from codec.flow.generate import Generator
    from codec.utils.device import usable_device

    refuse_existing([options.output], options.force)
    format_of(options.output)
    return Generator.load(options.ckpt, options.codec_ckpt, usable_device(options.device), not options.raw)


def read_prompt(options: argparse.Namespace, generator: "Generator") -> "np.ndarray | None":
    from codec.data import audio

    return audio.read(options.prompt, generator.sample_rate) if options.prompt else None


def transcript(options: argparse.Namespace) -> tuple[str, Phones]:
    """Text and phones of the recording: from the options, or from the manifest beside the recording."""
    from codec.data.manifest import phones_are_timed, read_manifest

    text, phones, manifest = options.text, options.phones, options.source.parent / MANIFEST
    if text is None and phones is None and manifest.is_file():
        row = next((row for row in read_manifest(manifest)[0] if row.file == options.source.name), None)
        text, phones = (row.text, row.phones) if row else (None, None)
    if options.text is not None:
        not_empty(text)
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
    """Raise InputError if a phone begins after the end of a recording of ``seconds``."""
    for symbol, start in phones:
        if start is not None and start >= seconds:
            raise InputError(f"the phone {symbol} begins at {start:g} s, and the recording is {seconds:.2f} s long")


def not_empty(text: str) -> str:
    """``text``. Raises InputError if it has no characters to speak."""
    if not normalized_text(text):
        raise InputError("the text is empty: give the words that are spoken")
    return text


def check_conditioning(generator: "Generator", **given: object) -> None:
    """Raise InputError if an option is given (not None) that the model is not conditioned on."""
    condition = generator.flow.condition
    known = condition.transcripts | ({"prompt"} if condition.needs_prompt else set())
    if "phones" in known and not condition.needs_times and not given.get("phones"):
        known.add("text")  # is converted to phones
    for name, value in given.items():
        if value is not None and name not in known:
            others = " and ".join(sorted(known)) or "nothing"
            raise InputError(f"this model is conditioned on {others}, not on --{name}: leave it out")


@contextmanager
def sampling(options: argparse.Namespace) -> "Iterator[Sampling]":
    """The sampling options, with a progress bar."""
    from tqdm import tqdm

    from codec.flow.sampler import Sampling

    with tqdm(total=1.0, bar_format="{percentage:3.0f}% |{bar}| {elapsed} < {remaining}") as bar:
        show = lambda share: bar.update(share - bar.n)  # noqa: E731
        yield Sampling(options.steps, options.guidance, options.sampler, options.seed, show)


def write(options: argparse.Namespace, wav: "np.ndarray", sample_rate: int, source: str) -> None:
    from codec.data import audio

    audio.write(options.output, [wav], sample_rate)
    print(f"{source} -> {options.output}: {len(wav) / sample_rate:.2f} s")
