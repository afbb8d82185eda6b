"""Secrets that no file of a run may hold."""

from pathlib import Path

SECRETS = ["hunter2hunter2", "hf_" + "a1B2" * 8, "ghp_" + "a1B2" * 9]


def files_with_secrets(folder: Path) -> list[Path]:
    """The files under a folder, whatever their kind, that contain one of :data:`SECRETS`."""
    words = [secret.encode() for secret in SECRETS]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(word in path.read_bytes() for word in words)]
