"""``ratings``: scores of a blind listening test."""

import argparse
from pathlib import Path

from codec.evaluation.html.ratings import read_results, screened, summarise
from codec.utils.errors import InputError


def add_ratings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", nargs="+", type=Path, help="JSON files of listening.html, one per listener")
    parser.add_argument("--against", help="also the paired difference to this system")


def run_ratings(options: argparse.Namespace) -> None:
    try:
        kept, excluded = screened(read_results(options.results))
        if excluded:
            print(f"excluded, for not hearing the hidden reference (BS.1534-3): {', '.join(excluded)}\n")
        if kept.empty:
            raise InputError("no listener is left: all rated the hidden reference below 90 too often")
        print(summarise(kept, options.against).to_string(index=False, float_format="%.1f"))
    except ValueError as error:
        raise InputError(str(error)) from error
