"""Command-line options that several commands share, and number types for argparse."""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path


def number(kind: type, least: float, wanted: str, most: float = math.inf) -> Callable[[str], float]:
    """An argparse type: a number in [``least``, ``most``); ``wanted`` describes it in the error message."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value < most:
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return value

    return parse


finite = number(float, -sys.float_info.max, "a finite number")
positive = number(float, sys.float_info.min, "a finite number above 0")
count = number(int, 1, "a whole number above 0")


def add_ckpt(parser: argparse.ArgumentParser, model: str = "the codec") -> None:
    parser.add_argument("--ckpt", type=Path, required=True, help=f"checkpoint of {model}")


def add_codec_ckpt(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--codec-ckpt", type=Path, help="checkpoint of the codec (default: the one that the flow model was trained on)"
    )
    parser.add_argument("--flow", action=_Renamed, const="--ckpt, and the codec's is --codec-ckpt")


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")


def add_raw(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--raw", action="store_true", help="use the last weights, not their moving average")


def add_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="replace files that exist")


def add_seed(parser: argparse.ArgumentParser) -> None:
    seed = number(int, 0, "a whole number from 0 on", 2**62)
    parser.add_argument("--seed", type=seed, default=0, help="of all random numbers (%(default)s)")


def add_n_q(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--n-q", type=int, help="number of codebooks, from the first on (default: all)")


def add_sampling(parser: argparse.ArgumentParser, steps: int) -> None:
    parser.add_argument("--steps", type=count, default=steps, help="of the sampler (%(default)s)")
    parser.add_argument("--guidance", type=finite, default=2.0, help="classifier-free; 1 is none (%(default)g)")
    parser.add_argument("--sampler", default="euler", help="euler, or midpoint, which takes twice the time (euler)")


class _Renamed(argparse.Action):
    """An option of an earlier version: an error with its present name."""

    def __init__(self, option_strings: list[str], dest: str, const: str):
        super().__init__(option_strings, argparse.SUPPRESS, nargs="?", const=const, help=argparse.SUPPRESS)

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        parser.error(f"{option_string} is called {self.const} now")
