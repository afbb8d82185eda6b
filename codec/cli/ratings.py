"""``ratings``: scores of a blind listening test."""

import argparse
from pathlib import Path

from codec.utils.errors import InputError


def add_ratings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", nargs="+", type=Path, help="JSON files of listening.html, one per listener")
    parser.add_argument("--against", help="also the paired difference to this system")


def run_ratings(options: argparse.Namespace) -> None:
    from codec.evaluation.html.ratings import read_ratings, screen_listeners, summarise

    ratings, excluded = screen_listeners(read_ratings(options.results))
    if excluded:
        print(f"excluded, for not hearing the hidden reference (BS.1534-3): {', '.join(excluded)}\n")
    if ratings.empty:
        raise InputError("no listener is left: all rated the hidden reference below 90 too often")
    print(summarise(ratings, options.against).to_string(index=False, float_format="%.1f"))
