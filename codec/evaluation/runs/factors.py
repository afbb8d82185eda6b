"""Factors of a set of runs: the settings that differ, without those that follow from others."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SEED = "seed"
IDENTITY = {"run_dir", "name", "ckpt_path", "logger", "sweep"}  # settings that differ by nature
ABSENT = "-"  # the level of a setting that a run does not have: quantizer.n_q with quantizer=none
NULL_LEVELS = (ABSENT, "none", "off", "null", "false", "no")


@dataclass(frozen=True)
class Settings:
    """Configuration of a run, as text."""

    overrides: Sequence[str]  # of the command line: disc=msd, lr=1e-3
    groups: Mapping[str, str]  # group -> option (disc -> msd), overridden or not; empty if unknown
    values: Mapping[str, str]  # dotted key -> value
    complete: bool = True  # a key that `values` lacks is absent, not unknown

    @property
    def overridden(self) -> dict[str, str]:
        pairs = (override.lstrip("+~").partition("=") for override in self.overrides)
        return {key.partition("@")[0]: value for key, _, value in pairs}

    def value(self, key: str, group: bool) -> str | None:
        """Option of a group, or value of any other key; None if unknown."""
        if group:
            return self.groups.get(key, ABSENT) if self.groups else None
        value = self.values.get(key, self.overridden.get(key))
        return ABSENT if value is None and self.complete else value


def differences(settings: Sequence[Settings]) -> dict[str, list[str | None]]:
    """Settings that distinguish the runs: key -> value in each run (None: unknown); ``seed`` last.

    Overridden keys come first, then groups, then other values by nesting depth. Groups and values that follow from
    earlier keys are omitted: a group's option implies all values in it, and ``lr`` the learning rates that use it.
    """
    overridden = dict.fromkeys(key for run in settings for key in run.overridden)
    groups = dict.fromkeys(key for run in settings for key in run.groups)
    values = dict.fromkeys(key for run in settings if run.complete for key in run.values)
    factors: dict[str, list[str | None]] = {}
    for key in dict.fromkeys([*overridden, *groups, *sorted(values, key=lambda key: key.count("."))]):
        if key in IDENTITY or key.startswith(("hydra", "logger.")):
            continue
        column = [run.value(key, key in groups) if key in overridden or run.complete else None for run in settings]
        varies = len({value for value in column if value is not None}) > 1
        if varies and (key in overridden or not _follows(column, list(factors.values()))):
            factors[key] = column
    if SEED in factors:
        factors[SEED] = factors.pop(SEED)
    return factors


def levels(column: Sequence[str | None], overridden: Sequence[bool]) -> list[str]:
    """Values of a factor in order, the reference level first.

    Reference: absent, none, off, null or false if present, else the smallest number, else the default (of runs without
    an override), else the first to appear. Numbers are sorted, other values in order of appearance.
    """
    seen = list(dict.fromkeys(value for value in column if value is not None))
    defaults = {value for value, given in zip(column, overridden, strict=True) if not given}
    null = [value for value in NULL_LEVELS if value in seen]
    others = [value for value in seen if value not in null]
    try:
        return null + sorted(others, key=float)
    except ValueError:
        return null + sorted(others, key=lambda value: value not in defaults)


def flatten(config: Mapping[str, Any], own: str | None = None, prefix: str = "") -> dict[str, str]:
    """Dotted key -> value as text, without unresolved values and those that contain the run's folder ``own``."""
    values: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            values |= flatten(value, own, f"{prefix}{key}.")
            continue
        text = as_text(value)
        if "${" not in text and not (own and own in text):
            values[f"{prefix}{key}"] = text
    return values


def as_text(value: Any) -> str:
    """A YAML value in the syntax of Hydra's command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(as_text, value))}]"
    return str(value)


def _follows(column: Sequence[str | None], others: Iterable[Sequence[str | None]]) -> bool:
    """Whether runs that agree in all others agree in this one."""
    seen: dict[tuple, str] = {}
    return all(
        value is None or seen.setdefault(tuple(key), value) == value
        for *key, value in zip(*others, column, strict=True)
    )
