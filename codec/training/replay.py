"""Save the batch on which training diverged, and repeat its step.

``diverged_step=N_rank=R.safetensors`` in the run folder; the weights before the step are in checkpoints/diverged.ckpt:

wav: ``[B, 1, T]`` float32, augmented (flow models: latents ``[B, C, F]`` and span ``[B, F]``)
random, random_cuda: torch's random states before the step, bytes; the latter only with a GPU
metadata: ``step``, ``rank``, ``files`` (JSON, B names), ``phones`` (JSON, [symbol, start in seconds] per clip, or null)
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from codec.checkpoints.load import CheckpointError, load_checkpoint, load_weights
from codec.checkpoints.safe_instantiate import STEP, build
from codec.distillation.base import PhoneBatch
from codec.training.codec_task import PARTS, STARTS, CodecTask
from codec.utils.errors import first_line
from codec.utils.safe_io import parse_json

DIVERGED = "diverged.ckpt"


@dataclass
class BatchDump:
    """A batch, the names of its recordings, and the random state before its step."""

    tensors: dict[str, Tensor]
    files: Sequence[str]
    step: int
    rank: int
    random: dict[str, Tensor]
    phones: PhoneBatch | None = None

    def save(self, folder: str | Path) -> Path:
        """Write the safetensors file into a run folder; returns its path."""
        path = Path(folder, f"diverged_step={self.step}_rank={self.rank}.safetensors")
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = {"step": str(self.step), "rank": str(self.rank)}
        facts |= {"files": json.dumps(list(self.files)), "phones": json.dumps(self.phones)}
        tensors = {name: value.float().cpu().contiguous() for name, value in self.tensors.items()}
        save_file({**tensors, **self.random}, path, facts)
        return path


def load_batch(path: str | Path) -> BatchDump:
    """Read a file of :meth:`BatchDump.save`. Raises CheckpointError if it is not one."""
    try:
        with safe_open(path, "pt") as file:
            facts, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        files = parse_json(facts["files"])
        random = {name: tensors.pop(name) for name in ("random", "random_cuda") if name in tensors}
        own = torch.get_rng_state()
        if (random["random"].shape, random["random"].dtype) != (own.shape, own.dtype):
            raise ValueError("it holds no random state of torch")
        found = {name: (value.ndim, value.dtype) for name, value in tensors.items()}
        if found not in ({"wav": (3, torch.float32)}, {"latents": (3, torch.float32), "span": (2, torch.float32)}):
            raise ValueError("it holds neither wav nor latents and span")
        phones = _phones(parse_json(facts.get("phones", "null")), len(files))
        return BatchDump(tensors, files, int(facts["step"]), int(facts["rank"]), random, phones)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is no batch of a run that diverged: {error}") from error


def _phones(content: Any, clips: int) -> PhoneBatch | None:
    if content is None:
        return None
    if len(content) != clips:
        raise ValueError(f"it has phones of {len(content)} clips, and {clips} clips")
    return [[(str(symbol), float(start)) for symbol, start in clip] for clip in content]


def replay(path: str | Path) -> tuple[CodecTask, dict[str, Tensor]]:
    """Repeat a codec's diverged step on the CPU in fp32, forward and backward without the optimiser.

    Takes the weights from ``checkpoints/diverged.ckpt`` in the file's folder. Returns the task with its gradients, and
    the logged values. Raises CheckpointError if a file is unusable, InputError if phones are needed and missing.
    """
    batch, checkpoint = load_batch(path), Path(path).parent / "checkpoints" / DIVERGED
    content = load_checkpoint(checkpoint)
    config = content["config"]
    wav = batch.tensors.get("wav")
    if wav is None or not isinstance(config.get("codec"), dict):
        raise CheckpointError(f"{path} is not of a codec's training, and only a codec's step can be repeated")
    wrong = [name for name in STARTS if type(config.get(name)) is not int]
    wrong += [group for group in PARTS.values() if not isinstance(config.get(group), dict)]
    if wrong:
        raise CheckpointError(f"{checkpoint} is no checkpoint of training: its configuration has no {wrong[0]}")
    built = {part: build(config[group], STEP) or None for part, group in PARTS.items()}
    # A task without a trainer is at step 0, so all steps of the configuration are shifted.
    starts = {name: config[name] - batch.step for name in STARTS}
    try:
        if built["losses"].reconstruction_until is not None:
            built["losses"].reconstruction_until -= batch.step
        task = CodecTask(**built, **starts, freeze=config.get("freeze", ()), config=config)
        load_weights(task, content["state_dict"], str(checkpoint))
        torch.set_rng_state(batch.random["random"])
    except (AttributeError, TypeError, RuntimeError) as error:  # parts of other kinds; a random state of another size
        raise CheckpointError(f"{path} cannot be replayed: {first_line(error)}") from error
    total, values = task.train().one_pass(wav, batch.phones)
    total.backward()
    return task, values
