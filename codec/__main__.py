"""Command line of a neural speech codec: everything but training (train.py) and evaluation (eval.py)."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from codec.utils.environment import prepare
from codec.utils.errors import UserError

# command -> (module of codec/cli with add_COMMAND, its options, and run_COMMAND; description)
COMMANDS = {
    "encode": ("files", "audio file -> token file"),
    "decode": ("files", "token file -> audio file"),
    "import": ("convert", "Kyutai's Mimi -> checkpoint of this project"),
    "export": ("convert", "checkpoint -> files for transformers, moshi or ONNX"),
    "compare": ("compare", "training runs -> one page: scores, failures, main effects"),
    "ratings": ("ratings", "results of a blind listening test -> scores"),
    "pack": ("corpora", "dataset -> shards, by many processes; the same call resumes"),
    "extract": ("corpora", "dataset -> tokens or latents, by many processes; the same call resumes"),
    "inpaint": ("speech", "recording -> the same with spans inpainted by a flow model"),
    "tts": ("speech", "text -> speech of a flow model"),
    "edit": ("speech", "recording -> the same with words replaced by a flow model"),
    "judge": ("judge", "flow models -> scores of inpainted spans; or codec -> probes of its latents"),
}
EXAMPLES = """examples:
  python -m codec encode in.wav out.codes --ckpt mimi.ckpt
  python -m codec import kyutai/mimi -o mimi.ckpt
  python -m codec extract LATENTS --kind latents --ckpt mimi.ckpt dataset=folder dataset.path=DIR
  python -m codec inpaint in.wav --span 1.2 1.9 --ckpt flow.ckpt -o out.wav
  python -m codec judge --ckpt flow.ckpt dataset=espeak
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command. An input error ends the program with one sentence and status 1, wrong usage with status 2."""
    prepare()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] not in COMMANDS:
        show_commands(arguments)
    options = parse(arguments)
    try:
        options.run(options)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:  # a folder that is a file, a disk that is full
        sys.exit(f"error: {error.filename}: {error.strerror}" if error.filename else f"error: {error}")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command, the first of the arguments, and ``run``, the function that takes them."""
    name = arguments[0]
    module, description = COMMANDS[name]
    commands = import_module(f"codec.cli.{module}")
    parser = argparse.ArgumentParser(prog=f"python -m codec {name}", description=description)
    getattr(commands, f"add_{name}")(parser)
    parser.set_defaults(run=getattr(commands, f"run_{name}"))
    return parser.parse_intermixed_args(arguments[1:])


def show_commands(arguments: Sequence[str]) -> None:
    """Print the commands for --help; end with an error for anything else."""
    commands = "\n".join(f"  {name:<8}  {text}" for name, (_, text) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m codec",
        description=f"{__doc__ or ''}\n\ncommands (python -m codec COMMAND --help shows the options):\n{commands}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    parser.parse_args(arguments[:1])


if __name__ == "__main__":
    main()
