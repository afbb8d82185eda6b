"""A teacher whose features are kept on disk."""

import contextlib
import hashlib
from pathlib import Path

import torch
from torch import Tensor

from codec.distillation.teachers.base import Teacher
from codec.layers.precision import fp32
from codec.utils.cache import load_tensors, save_tensors

LARGEST = torch.finfo(torch.float16).max


class CachedTeacher(Teacher):
    """``teacher``, but an example that has been seen before is read from below ``folder``.

    It helps where the same crops come again: in a sweep whose runs share the seed of the data, in repeated runs, on
    fixed clips. In one long run of random crops almost nothing comes again, and the cache only grows: 100 kB per
    second of audio for C = 1024 at 50 Hz.

    An example's key is its samples, its rate and the teacher's identity, so a cache may serve several teachers.
    Features are float16 on disk, and pass through float16 also where they were just computed: a later run trains on
    the same numbers. A file that cannot be read is made again; one that cannot be written costs only time.
    """

    def __init__(self, teacher: Teacher, folder: str | Path):
        super().__init__(teacher, teacher.dim, teacher.frame_rate, teacher.identity, teacher.sample_rate)
        self.folder = Path(folder).expanduser()

    @torch.no_grad()
    @fp32
    def forward(self, wav: Tensor, sample_rate: int) -> Tensor:
        paths = [self.path(example, sample_rate) for example in wav.cpu()]
        found = [load_tensors(path) for path in paths]
        features = [stored[0].get("features") if stored else None for stored in found]
        missing = [i for i, known in enumerate(features) if known is None]
        if missing:
            computed = self.network(wav[missing], sample_rate).clamp(-LARGEST, LARGEST).half().cpu()
            for i, new in zip(missing, computed, strict=True):
                features[i] = new
                with contextlib.suppress(OSError):
                    save_tensors(paths[i], {"features": new.contiguous()})
        return torch.stack(features).to(wav.device).float()

    def path(self, wav: Tensor, sample_rate: int) -> Path:
        """Where the features of one example ``[1, T]`` float32 on the CPU are."""
        name = hashlib.blake2b(wav.contiguous().numpy().tobytes(), digest_size=16)
        name.update(f"{sample_rate} {self.identity}".encode())
        digest = name.hexdigest()
        return self.folder / digest[:2] / digest[2:4] / f"{digest}.safetensors"
