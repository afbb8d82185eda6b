"""Names of classes in checkpoints that were written before the modules were moved, and their names now.

A checkpoint keeps the configuration of its run, in which ``_target_`` names classes. Those of encoders, decoders,
quantizers, discriminators and losses have never changed.
"""

from typing import Any

# module then -> module now
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
    "codec.teachers.cached": "codec.distillation.teachers.cached",
    "codec.teachers.phones": "codec.distillation.teachers.phones",
    "codec.teachers.random": "codec.distillation.teachers.random",
    "codec.teachers.shuffled": "codec.distillation.teachers.shuffled",
    "codec.teachers.wavlm": "codec.distillation.teachers.wavlm",
}


def current_name(target: Any) -> Any:
    """The name now of a class that was called ``target``, a dotted path; anything else stays as it is."""
    if not isinstance(target, str):
        return target
    module, _, name = target.rpartition(".")
    return f"{MODULES[module]}.{name}" if module in MODULES else target


def with_current_names(config: Any) -> Any:
    """A copy of a plain configuration whose ``_target_`` entries have their names of today."""
    if isinstance(config, dict):
        return {k: current_name(v) if k == "_target_" else with_current_names(v) for k, v in config.items()}
    if isinstance(config, list | tuple):
        return [with_current_names(value) for value in config]
    return config
