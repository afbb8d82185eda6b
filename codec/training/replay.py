"""The batch on which a run diverged: a file that says which clips, and brings the step back.

A safetensors file beside ``config.yaml``, one from each process that had a hand in it:

wav: ``[B, 1, T]`` float32, as the codec heard it, augmented; of a flow model latents ``[B, C, F]`` and span ``[B, F]``
random, random_cuda: torch's random state before the step, bytes; the latter where there was a GPU
metadata: ``step``, ``rank``, ``files`` (JSON, B names), ``suspects`` (JSON, those of them that are not finite) and
    ``phones`` (JSON, of each clip [symbol, start in seconds]; null or missing where nobody looked for any)

The weights that the step met are in ``checkpoints/diverged.ckpt``.
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
from codec.distillation.base import Phones
from codec.training.codec_task import CodecTask
from codec.utils.errors import UserError
from codec.utils.safe_io import parse_json

DIVERGED = "diverged.ckpt"
STARTS = ("adversarial_start", "codec_start")  # steps, in the configuration


class DivergenceError(UserError, RuntimeError):
    """Training has diverged; the message is one sentence that says where and what to do."""


@dataclass
class BadBatch:
    """Its tensors, the random state before it, and whose recordings they are."""

    tensors: dict[str, Tensor]
    files: Sequence[str]
    suspects: Sequence[str]
    step: int
    rank: int
    random: dict[str, Tensor]
    phones: Phones | None = None

    def save(self, folder: str | Path) -> Path:
        """Write it into a run folder -> the file."""
        path = Path(folder, f"diverged_step={self.step}_rank={self.rank}.safetensors")
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = {"step": str(self.step), "rank": str(self.rank)}
        facts |= {"files": json.dumps(list(self.files)), "suspects": json.dumps(list(self.suspects))}
        facts["phones"] = json.dumps(self.phones)
        tensors = {name: value.float().cpu().contiguous() for name, value in self.tensors.items()}
        save_file({**tensors, **self.random}, path, facts)
        return path


def load_batch(path: str | Path) -> BadBatch:
    """A file of :meth:`BadBatch.save`. Raises CheckpointError if it is none."""
    try:
        with safe_open(path, "pt") as file:
            facts, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        files, suspects = parse_json(facts["files"]), parse_json(facts["suspects"])
        random = {name: tensors.pop(name) for name in ("random", "random_cuda") if name in tensors}
        here = torch.get_rng_state()
        if (random["random"].shape, random["random"].dtype) != (here.shape, here.dtype):
            raise ValueError("its random state is none")
        found = {name: (value.ndim, value.dtype) for name, value in tensors.items()}
        if found not in ({"wav": (3, torch.float32)}, {"latents": (3, torch.float32), "span": (2, torch.float32)}):
            raise ValueError("its tensors are those of no step")
        phones = _phones(parse_json(facts.get("phones", "null")), len(files))
        return BadBatch(tensors, files, suspects, int(facts["step"]), int(facts["rank"]), random, phones)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is no batch of a run that diverged: {error}") from error


def _phones(content: Any, clips: int) -> Phones | None:
    if content is None:
        return None
    if len(content) != clips:
        raise ValueError(f"it has phones of {len(content)} clips, and {clips} clips")
    return [[(str(symbol), float(start)) for symbol, start in clip] for clip in content]


def replay(path: str | Path) -> tuple[CodecTask, dict[str, Tensor]]:
    """A codec's step again, on the CPU in fp32: forward and backward, no optimiser -> the task, with its gradients, and
    the values that the step logs. The checkpoint is the ``checkpoints/diverged.ckpt`` beside the file.

    Raises:
        CheckpointError: if either file cannot be used.
        InputError: if the step was taught phones that the file has not.
    """
    batch, checkpoint = load_batch(path), Path(path).parent / "checkpoints" / DIVERGED
    content = load_checkpoint(checkpoint)
    config = content["config"]
    wav = batch.tensors.get("wav")
    if wav is None or not isinstance(config.get("codec"), dict):
        raise CheckpointError(f"{path} is of no codec's training, and only a codec's step can be taken again")
    if odd := [name for name in STARTS if type(config.get(name)) is not int]:
        raise CheckpointError(f"{checkpoint} is no checkpoint of training: its configuration has no number {odd[0]}")
    parts = {"codec": "codec", "discriminators": "disc", "losses": "loss", "optim": "optim", "distillation": "distill"}
    if odd := [group for group in parts.values() if not isinstance(config.get(group), dict)]:
        raise CheckpointError(f"{checkpoint} is no checkpoint of training: its configuration has no {odd[0]}")
    built = {part: build(config[group], STEP) or None for part, group in parts.items()}
    # A task without a trainer is at step 0: what begins or ends at a step does so that much earlier.
    starts = {name: config[name] - batch.step for name in STARTS}
    try:
        if built["losses"].reconstruction_until is not None:
            built["losses"].reconstruction_until -= batch.step
        task = CodecTask(**built, **starts, config=config)
        load_weights(task, content["state_dict"], str(checkpoint))
        torch.set_rng_state(batch.random["random"])
    except (AttributeError, TypeError, RuntimeError) as error:  # parts of other kinds; a random state of another size
        raise CheckpointError(f"{path} cannot be replayed: {str(error).splitlines()[0][:200]}") from error
    total, values = task.train().one_pass(wav, batch.phones)
    total.backward()
    return task, values
