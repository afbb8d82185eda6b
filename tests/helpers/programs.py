"""train.py and eval.py: as a user starts them, in a process of their own, or here, which saves seconds of imports."""

import importlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def start(program: str, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """``python PROGRAM ARGUMENTS`` in a folder, with these environment variables."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"} | environment
    command = [sys.executable, str(ROOT / program), *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def call(program: str, *arguments: str) -> int | str | None:
    """The same in this process -> what it exits with: a status, or the sentence that Python prints."""
    handlers, level = logging.root.handlers[:], logging.root.level
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [program, *arguments])
        patch.setenv("HYDRA_MAIN_MODULE", "__main__")  # conf/ is then where the file is
        try:
            importlib.import_module(Path(program).stem).main()
        except SystemExit as end:
            return end.code
        finally:
            logging.root.handlers[:] = handlers
            logging.root.setLevel(level)
    return 0
