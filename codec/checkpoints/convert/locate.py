"""Files of a published Mimi, local or on the Hugging Face Hub: safetensors and JSON, nothing is unpickled."""

from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from codec.checkpoints.load import CheckpointError
from codec.utils.errors import first_line
from codec.utils.safe_io import UntrustedFileError, read_json

MAX_CONFIG = 2**20  # bytes
MIMI_FILES = ("tokenizer-*.safetensors", "mimi*.safetensors")  # Kyutai's names, beside a language model's weights


def locate_mimi(source: str | Path) -> Path:
    """The weights file of a Mimi, given the file, its folder or a Hub id; raises CheckpointError if there is none."""
    path = Path(source)
    if path.is_file():
        return path
    if not path.is_dir():
        try:
            path = Path(snapshot_download(str(source), allow_patterns=["config.json", *MIMI_FILES]))
            if _is_mimi(path):  # elsewhere model.safetensors is a language model
                hf_hub_download(str(source), "model.safetensors")
        except CheckpointError:
            raise
        except Exception as error:  # of dozens of kinds, from a malformed id to the network
            raise CheckpointError(
                f"{source} is neither a file nor a folder here, and cannot be had from the Hugging Face Hub "
                f"({first_line(error)}): give a Mimi's .safetensors file, or a folder with config.json and "
                "model.safetensors"
            ) from None
    if (path / "model.safetensors").is_file() and _is_mimi(path):
        return path / "model.safetensors"
    found = sorted({file for pattern in MIMI_FILES for file in path.glob(pattern)})
    if len(found) != 1:
        what = f"more than one ({', '.join(file.name for file in found[:3])})" if found else "none"
        raise CheckpointError(
            f"a Mimi's folder has config.json and model.safetensors, or one of {' and '.join(MIMI_FILES)}, but "
            f"{path} has {what}: give the file itself"
        )
    return found[0]


def _is_mimi(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and read_config(config).get("model_type") == "mimi"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; raises CheckpointError for any other file."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as a safetensors file: {first_line(error)}") from None


def read_config(path: Path) -> dict[str, Any]:
    """A JSON object from a file; raises CheckpointError if there is none."""
    try:
        return read_json(path, MAX_CONFIG)
    except (OSError, UntrustedFileError) as error:
        raise CheckpointError(f"{path}, the configuration of this Mimi, cannot be read: {error}") from None
