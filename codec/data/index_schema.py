"""What the index of shards and that of units of latents share: parts in a list, and splits that number them."""

from collections.abc import Callable
from typing import Any, TypeVar

from codec.data.base import CorpusError

SPLITS = ("train", "val", "test")
Part = TypeVar("Part")


def listed(
    content: dict[str, Any], where: str, what: str, most: int, part: Callable[[Any, str], Part]
) -> tuple[list[Part], dict[str, list[int]]]:
    """The parts and the splits in an index from outside.

    Args:
        what: a part is: ``shard`` or ``unit``; they are listed under its plural.
        most: of them.
        part: checks and makes one; has a ``name``.

    Raises:
        CorpusError: if there are none or too many, one comes twice, or is for training and held out at once.
    """
    values, splits = content.get(f"{what}s"), content.get("splits")
    if not isinstance(values, list) or not 0 < len(values) <= most:
        raise CorpusError(f"{where} must list 1 to {most:,} {what}s.")
    parts = [part(value, where) for value in values]
    if len({one.name for one in parts}) < len(parts):
        raise CorpusError(f"{where} lists a {what} twice.")
    if not isinstance(splits, dict) or not all(_numbers(splits.get(name), len(parts)) for name in SPLITS):
        raise CorpusError(f"{where} must say for {', '.join(SPLITS)} which {what}s they have, each once.")
    if set(splits["train"]) & {*splits["val"], *splits["test"]}:
        raise CorpusError(f"{where} has a {what} for training and held out at once.")
    return parts, {name: splits[name] for name in SPLITS}


def _numbers(values: Any, count: int) -> bool:
    whole = isinstance(values, list) and all(type(value) is int and 0 <= value < count for value in values)
    return whole and len(set(values)) == len(values)
