"""The command line: ``python -m codec COMMAND`` (training and scoring are ``train.py`` and ``eval.py``).

python -m codec encode in.wav out.codes --ckpt mimi.ckpt
python -m codec decode out.codes again.wav --ckpt mimi.ckpt
python -m codec import kyutai/mimi -o mimi.ckpt
python -m codec export runs/.../checkpoints/last.ckpt --to transformers DIR
python -m codec compare runs/multirun/...
python -m codec ratings results-*.json
python -m codec pack dataset=voiceassistant DIR
python -m codec extract DIR TOKENS --ckpt mimi.ckpt
python -m codec extract kind=latents DIR LATENTS --ckpt mimi.ckpt
python -m codec inpaint in.wav --span 1.2 1.9 --flow flow.ckpt -o out.wav
python -m codec tts "what to say" --flow flow.ckpt -o out.wav
python -m codec edit in.wav --old "some words" --new "others" --flow flow.ckpt -o out.wav
python -m codec judge flow.ckpt dataset=espeak --ckpt mimi.ckpt
"""

import argparse
from collections.abc import Sequence

from codec.cli.app import one_sentence
from codec.cli.compare import add_compare
from codec.cli.convert import add_export, add_import
from codec.cli.corpora import add_extract, add_pack
from codec.cli.files import add_files
from codec.cli.judge import add_judge
from codec.cli.ratings import add_ratings
from codec.cli.speech import add_edit, add_inpaint, add_tts
from codec.utils.errors import InputError


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m codec", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    files, flow = (add_files, add_import, add_export), (add_inpaint, add_tts, add_edit, add_judge)
    for add in (*files, add_compare, add_ratings, add_pack, add_extract, *flow):
        add(commands)
    options = parser.parse_args(arguments)
    with one_sentence():
        try:
            options.run(options)
        except OSError as error:  # a folder that is a file, a place that cannot be written
            raise InputError(f"{error.filename}: {error.strerror}") from error


if __name__ == "__main__":
    main()
