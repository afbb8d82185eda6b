"""Files of other projects: where they lie, here or on the Hugging Face Hub, and what is in them.

Weights are read with safetensors and configurations with json: nothing in them is run or unpickled.
"""

from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from codec.checkpoints.load import CheckpointError
from codec.utils.safe_io import UntrustedFileError, read_json

LARGEST = 2**20  # bytes of a configuration
MIMI_FILES = ("tokenizer-*.safetensors", "mimi*.safetensors")  # Kyutai's names of it beside a language model's weights


def locate_mimi(source: str | Path) -> Path:
    """The weights of a Mimi: a file, a folder that holds one, or a repository on the Hub -> the file.

    Raises:
        CheckpointError: says what is not there, or could not be reached.
    """
    path = Path(source)
    if path.is_file():
        return path
    if path.is_dir():
        return _in_folder(path)
    try:
        folder = Path(snapshot_download(str(source), allow_patterns=["config.json", *MIMI_FILES]))
        config = folder / "config.json"
        if config.is_file() and read_config(config).get("model_type") == "mimi":  # elsewhere this is a language model
            hf_hub_download(str(source), "model.safetensors")
    except CheckpointError:
        raise
    except Exception as error:  # of dozens of kinds, from a malformed id to the network
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise CheckpointError(
            f"{source} is neither a file nor a folder here, and cannot be had from the Hugging Face Hub "
            f"({reason[:200]}): give a .safetensors file of Mimi, or a folder with config.json and model.safetensors"
        ) from None
    return _in_folder(folder)


def _in_folder(folder: Path) -> Path:
    config, weights = folder / "config.json", folder / "model.safetensors"
    if config.is_file() and weights.is_file() and read_config(config).get("model_type") == "mimi":
        return weights
    found = sorted({path for pattern in MIMI_FILES for path in folder.glob(pattern)})
    if len(found) != 1:
        what = f"more than one ({', '.join(path.name for path in found[:3])})" if found else "none"
        raise CheckpointError(
            f"a Mimi's folder has config.json and model.safetensors, or one of {' and '.join(MIMI_FILES)}, but "
            f"{folder} has {what}: give the file itself"
        )
    return found[0]


def read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path} cannot be read as a safetensors file: {reason[:200]}") from None


def read_config(path: Path) -> dict[str, Any]:
    try:
        return read_json(path, LARGEST)
    except (OSError, UntrustedFileError) as error:
        raise CheckpointError(f"{path}, which tells the sizes of this Mimi, cannot be read: {error}") from None
