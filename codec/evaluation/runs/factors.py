"""What differs between runs: the settings that tell them apart, without those that follow from others."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SEED = "seed"
# by nature each run's own: its place, its name, where it goes on from, who is told of it, which file listed it
OWN = {"run_dir", "name", "ckpt_path", "logger", "sweep"}
ABSENT = "-"  # the level of a setting that a run does not have: quantizer.n_q where quantizer=none
NOTHING = (ABSENT, "none", "off", "null", "false", "no")


@dataclass(frozen=True)
class Settings:
    """What one run was told, and what came of it.

    overrides: as they were given: ``disc=msd``, ``lr=1e-3``.
    groups: group -> the option taken (``disc`` -> ``msd``), given or not; empty where it is not known.
    values: dotted key -> value as text, of the configuration.
    complete: whether ``values`` is all of it, so that a key that is not there is absent, not unknown.
    """

    overrides: Sequence[str]
    groups: Mapping[str, str]
    values: Mapping[str, str]
    complete: bool = True

    @property
    def told(self) -> dict[str, str]:
        """key -> value as text, of the overrides."""
        pairs = (override.lstrip("+~").partition("=") for override in self.overrides)
        return {key.partition("@")[0]: value for key, _, value in pairs}

    def value(self, key: str, group: bool) -> str | None:
        """The option of a group, or the value of any other key, as text; None: not known."""
        if group:
            return self.groups.get(key, ABSENT) if self.groups else None
        known = self.values.get(key, self.told.get(key))
        return ABSENT if known is None and self.complete else known


def differences(settings: Sequence[Settings]) -> dict[str, list[str | None]]:
    """key -> its value in each run, for the keys that tell the runs apart; ``seed``, where it is one, last.

    A key that was given on the command line of any run is one if its values differ. After these come groups, then
    single values, shared numbers before those inside of parts, and only such as do not follow from the keys before
    them: a group's option decides all that is in it, and ``lr`` every learning rate that refers to it.
    """
    told = list(dict.fromkeys(key for run in settings for key in run.told))
    groups = dict.fromkeys(key for run in settings for key in run.groups)
    values = dict.fromkeys(key for run in settings if run.complete for key in run.values)
    found: dict[str, list[str | None]] = {}
    for key in dict.fromkeys([*told, *groups, *sorted(values, key=lambda key: key.count("."))]):
        if key in OWN or key.startswith(("hydra", "logger.")):
            continue
        column = [run.value(key, key in groups) if key in told or run.complete else None for run in settings]
        if len({value for value in column if value is not None}) < 2:
            continue
        if key in told or not _follows(column, list(found.values())):
            found[key] = column
    if SEED in found:
        found[SEED] = found.pop(SEED)
    return found


def levels(column: Sequence[str | None], given: Sequence[bool]) -> list[str]:
    """The values of a factor in order; the first is the one that others are compared with.

    It is the level that stands for nothing (absent, none, off, null, false) if there is one, and else the smallest of
    numbers, else the default, which is what a run has that was not told (``given`` says who was), else the first to
    appear. The others follow by size, if they are numbers, else as they appear.
    """
    seen = list(dict.fromkeys(value for value in column if value is not None))
    default = {value for value, was_given in zip(column, given, strict=True) if not was_given}
    nothing = [value for value in NOTHING if value in seen]
    others = [value for value in seen if value not in nothing]
    if all(_number(value) is not None for value in others):
        return nothing + sorted(others, key=_number)
    return nothing + sorted(others, key=lambda value: value not in default)


def flat(config: Mapping[str, Any], own: str | None = None, prefix: str = "") -> dict[str, str]:
    """Dotted key -> value as text, of a nested configuration.

    Left out is what mentions the folder ``own``, the run's, and what still is to be resolved (``${...}``).
    """
    found: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, own, f"{prefix}{key}.")
            continue
        text = as_text(value)
        if "${" not in text and not (own and own in text):
            found[f"{prefix}{key}"] = text
    return found


def as_text(value: Any) -> str:
    """A plain value as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(as_text, value))}]"
    return str(value)


def _follows(column: Sequence[str | None], others: Iterable[Sequence[str | None]]) -> bool:
    """Whether runs that agree in all others agree in this one, too."""
    seen: dict[tuple, str] = {}
    for *key, value in zip(*others, column, strict=True):
        if value is not None and seen.setdefault(tuple(key), value) != value:
            return False
    return True


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
