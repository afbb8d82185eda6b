"""``compare``: training runs side by side."""

import argparse
from pathlib import Path

from codec.utils.errors import InputError


def add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, or folders of them, such as a multirun's")
    parser.add_argument("--scores", type=Path, help="folder that eval.py wrote (default: the reports of training)")
    parser.add_argument("--out", type=Path, help="folder of compare.html, .csv and .json (compare/ beside the runs)")
    parser.add_argument("--title", default="Runs compared", help="of the page (%(default)s)")
    parser.add_argument("--metrics", type=lambda names: names.split(","), help="only these: a,b,c")


def run_compare(options: argparse.Namespace) -> None:
    from codec.evaluation.runs.summary import common_folder, compare, format_comparison, write_files

    result = compare(options.runs, options.scores, options.metrics)
    folder = options.out or common_folder(result.runs) / "compare"
    print(format_comparison(result, options.metrics))
    written = write_files(result, folder, options.title)
    print(f"\nwritten to {', '.join(map(str, written))}")
    if not result.scored:
        raise InputError(f"no run has scores to compare; {written[0]} has their states")
