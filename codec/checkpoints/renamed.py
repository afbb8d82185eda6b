"""Today's names of the classes and options in the configurations of older checkpoints (``_target_``)."""

from typing import Any

# old module -> new module, for all its classes
MODULES = {
    "codec.ctc": "codec.distillation.ctc",
    "codec.data.module": "codec.data.codec_datamodule",
    "codec.data.shards": "codec.data.shard_corpus",
    "codec.distillation": "codec.distillation.cosine",
    "codec.flow.alignment": "codec.flow.repa",
    "codec.flow.condition": "codec.flow.conditioning",
    "codec.flow.data": "codec.flow.datamodule",
    "codec.flow.prompt": "codec.flow.speaker_prompt",
    "codec.flow.spans": "codec.flow.masking",
    "codec.flow.text": "codec.flow.text_conditioning",
    "codec.optim": "codec.training.optim",
    "codec.teachers.phones": "codec.distillation.teachers.phones",
    "codec.teachers.random": "codec.distillation.teachers.random",
    "codec.teachers.shuffled": "codec.distillation.teachers.shuffled",
    "codec.teachers.wavlm": "codec.distillation.teachers.wavlm",
}
# old class -> new class, both with their modules; a class of one of the modules above may also be under its new module
CLASSES = {
    "codec.callbacks.EMA": "codec.training.callbacks.ema.EMA",
    "codec.callbacks.Progress": "codec.training.callbacks.progress.Progress",
    "codec.callbacks.Throughput": "codec.training.callbacks.progress.Throughput",
    "codec.callbacks.ValidationReport": "codec.training.callbacks.validation.ValidationReport",
    "codec.checkpoint_io.WholeFiles": "codec.checkpoints.lightning_plugin.AtomicCheckpointIO",
    "codec.flow.repa.Alignment": "codec.flow.repa.RepaLoss",
    "codec.guard.DivergenceGuard": "codec.training.callbacks.nonfinite_guard.NonfiniteGuard",
    "codec.layers.seanet.Units": "codec.layers.seanet.ResidualUnits",
    "codec.random_state.RandomState": "codec.training.callbacks.rng_state.RandomState",
    "codec.saving.LeaveOnSignal": "codec.training.callbacks.preemption.Preemption",
    "codec.saving.SaveLastStep": "codec.training.callbacks.preemption.SaveLastStep",
    "codec.slurm.RequeueOnSignal": "codec.training.callbacks.preemption.SlurmPreemption",
    "codec.training.optim.Optim": "codec.training.optim.AdversarialOptimizer",
    "codec.training.optim.Side": "codec.training.optim.ParameterGroup",
    "codec.training.optim.Single": "codec.training.optim.SingleOptimizer",
    "codec.waiting.DataWait": "codec.training.callbacks.progress.Throughput",
    "codec.wandb_logger.WandbLogger": "codec.training.wandb.WandbLogger",
    "codec.watch.BalanceWatch": "codec.training.callbacks.gan_monitor.GANMonitor",
}

# class -> options that are ignored today
REMOVED_OPTIONS = {"codec.distillation.cosine.Distillation": ("cache",)}

# class -> {option that older checkpoints lack: what was done without it, the class's default}
ADDED_OPTIONS: dict[str, dict[str, Any]] = {
    "codec.distillation.cosine.Distillation": {"bias": True, "repeat": False},
    "codec.losses.adversarial.Hinge": {"clipped": False},
    "codec.losses.balancer.Balancer": {"reference_batch": None},
    "codec.quantizers.rvq.RVQ": {"dropout_choices": None},
}


def current_name(target: Any) -> Any:
    """The present name of the class ``target``, a dotted path; other values are returned as they are."""
    if not isinstance(target, str):
        return target
    target = CLASSES.get(target, target)
    module, _, name = target.rpartition(".")
    moved = f"{MODULES[module]}.{name}" if module in MODULES else target
    return CLASSES.get(moved, moved)


def removed_options(config: dict[Any, Any]) -> tuple[str, ...]:
    """The options of a part's configuration that are ignored today."""
    target = current_name(config.get("_target_"))
    return REMOVED_OPTIONS.get(target, ()) if isinstance(target, str) else ()


def is_older(saved: Any, config: Any) -> bool:
    """Whether ``config`` sets an option, other than to what was done without it, that is newer than ``saved``."""
    if not isinstance(config, dict) or not isinstance(saved, dict):
        return False
    added = ADDED_OPTIONS.get(str(current_name(saved.get("_target_"))), {})
    newer = [key for key, before in added.items() if key not in saved and config.get(key, before) != before]
    return bool(newer) or any(is_older(saved.get(key), config[key]) for key in config)


def with_current_names(config: Any) -> Any:
    """A copy of a plain configuration with today's class names in ``_target_`` and without removed options."""
    if isinstance(config, dict):
        removed = removed_options(config)
        left = {key: with_current_names(value) for key, value in config.items() if key not in removed}
        return left | ({"_target_": current_name(config["_target_"])} if "_target_" in config else {})
    if isinstance(config, list | tuple):
        return [with_current_names(value) for value in config]
    return config
