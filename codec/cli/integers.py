"""Whole numbers in any notation: ``max_steps=1e5`` and ``batch_size=16.0`` become ints before anything reads them."""

from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from codec.utils.errors import InputError

NULL = {"clips", "workers", "n_q", "sample_rate", "codebook_dim", "layer"}  # integers that are null by default
REAL = {"frame_rate", "cutoff", "kbps", "cache_gb", "f_min"}  # written without a point, but no integers


def whole_numbers_of_run(cfg: DictConfig) -> None:
    """:func:`whole_numbers` for the running program of Hydra."""
    from hydra.core.hydra_config import HydraConfig

    if HydraConfig.initialized():
        hydra = HydraConfig.get()
        whole_numbers(cfg, hydra.job.config_name, hydra.overrides.task)


def whole_numbers(cfg: DictConfig, config_name: str, overrides: Sequence[str]) -> None:
    """Turn the options of ``cfg`` that are integers by default into integers, in place.

    Hydra is initialised. Raises InputError, with the option's name, for 2.5, true, and infinity,
    and for a word where the default is a number with a fraction.
    """
    from hydra import compose
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    loader = GlobalHydra.instance().config_loader()
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
    chosen = [one for one in parsed if loader.get_group_options(one.key_or_group)]
    if len(chosen) == len(parsed):
        return
    defaults = compose(config_name, [one.input_line for one in chosen])
    for path, value in _leaves(OmegaConf.to_container(cfg)):
        try:
            default = OmegaConf.select(defaults, path)
        except OmegaConfBaseException:  # an interpolation of what must be given
            default = None
        if isinstance(value, str) and isinstance(default, float) and "${" not in value:
            raise InputError(f"{path}={value}: give a number, such as {default:g}")
        whole = _whole(path, value, OmegaConf.to_container(default) if OmegaConf.is_config(default) else default)
        if path == "seed" and "${" not in str(whole) and not (_is_int(whole) and 0 <= whole < 2**32):
            raise InputError(f"seed={whole}: give a whole number from 0 to {2**32 - 1}")
        if whole is not value:
            OmegaConf.update(cfg, path, whole)


def _leaves(value: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, part in value.items():
        if isinstance(part, dict):
            yield from _leaves(part, f"{before}{key}.")
        else:
            yield f"{before}{key}", part


def _whole(path: str, value: Any, default: Any) -> Any:
    """``value`` as an int, or a list of ints, if the default says that it is one; else unchanged."""
    if isinstance(value, list):
        kinds = default if isinstance(default, list) and default else [default]
        wanted = kinds[0] if all(_is_int(kind) for kind in kinds) or default is None else 0.0
        values = [_whole(path, one, wanted) for one in value]
        return value if all(a is b for a, b in zip(values, value, strict=True)) else values
    key = path.rpartition(".")[2]
    if key in REAL or _is_int(value) or not (_is_int(default) or (default is None and key in NULL)):
        return value
    try:
        number = float(value) if isinstance(value, float | str) and not isinstance(value, bool) else None
    except ValueError:  # a word, such as auto
        return value
    if number is not None and number.is_integer():
        return int(number)
    if value is None or isinstance(value, dict):
        return value
    raise InputError(f"{path}={value}: give a whole number, such as {default or 1}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
