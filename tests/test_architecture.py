"""Who may import whom, read from the syntax trees, so that a convenient import cannot slip in (docs/design.md)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "codec").rglob("*.py"))
# part of the package -> the parts that it may import besides itself
ALLOWED = {
    "layers": set(),
    "metrics": set(),
    "losses": {"layers"},
    "discriminators": {"layers"},
    "encoders": {"layers"},
    "decoders": {"layers"},
    "quantizers": {"layers"},
    "data": {"outside"},
    "teachers": {"layers", "data.cache"},
    "judge": {
        "checkpoint",
        "data",
        "errors",
        "evaluation",
        "flow.load",
        "flow.model",
        "latents",
        "metrics",
        "page.base",
        "page.report",
        "report",
        "report_check",
        "runs",
        "source",
        "teachers.base",
        "teachers.store",
    },
    "lesson": {"errors", "quantizers.base"},
    "distillation": {"layers", "lesson", "teachers.base", "teachers.cached", "teachers.rate"},
    "ctc": {"errors", "layers", "lesson"},
    "optim": {"layers"},
    "errors": set(),
    "run": {"checkpoint", "data.base", "errors", "metrics.base", "redact"},
    "divergence": {"checkpoint", "errors", "lesson", "outside", "task", "untrusted"},
    "guard": {"checkpoint_io", "divergence", "lesson", "storage"},
    "watch": set(),
    "waiting": set(),
    "archive": set(),
    "storage": {"archive", "errors"},
    "checkpoint_io": {"storage"},
    "resume": {"checkpoint", "layers", "storage"},
    "saving": {"checkpoint_io"},
    "slurm": {"saving"},
    "random_state": set(),
    "outside": set(),
    "redact": set(),
    "untrusted": set(),
    "report": {"errors", "metrics", "outside", "report_check"},
    "report_check": set(),
    "spectrogram": set(),
    "cost": {"model"},
    "systems": {"cost", "metrics.base", "model", "quantizers.base"},
    "page": {"errors", "metrics", "outside", "report", "systems.anchors", "systems.opus"},  # anchor, coder of its sound
    "lineup": {
        "checkpoint",
        "cost",
        "evaluation",
        "data.base",
        "page.base",
        "quantizers.base",
        "untrusted",
        "report",
        "runs",
        "systems.base",
        "systems.codec",
    },
    "tracking": {"redact", "report", "runs"},
    "wandb_logger": {"redact"},
    "stream": {"layers"},
    "model": {"encoders.base", "decoders.base", "quantizers.base", "layers", "stream"},
    "tokens": {"quantizers.base"},
    "unit_file": {"outside"},
    "latents": {
        "checkpoint",
        "data",
        "errors",
        "extract",
        "model",
        "outside",
        "quantizers.base",
        "teachers.base",
        "teachers.rate",
        "tokens",
        "unit_file",
    },
    "files": {"data.audio", "model", "stream", "tokens"},
    "generate": {"errors", "flow", "latents"},
    "filling": {"data", "errors", "flow", "generate", "run"},
    "interop": {
        "outside",
        "untrusted",
        "checkpoint",
        "model",
        "layers",
        "encoders.mimi",
        "encoders.seanet",
        "decoders.mimi",
        "decoders.seanet",
        "quantizers.base",
        "quantizers.split_rvq",
    },
    "factors": set(),
    "runs": {"errors", "factors", "outside", "redact", "report"},
    "compare": {"errors", "factors", "metrics.intervals", "page.base", "report", "runs"},
    "compare_files": {"compare", "page.base", "page.report", "report", "runs"},
    "share": set(),
    "source": {"data"},
    "bulk": {"checkpoint", "data", "errors", "extract", "latents.export", "run", "share", "source"},
    "extract": {"data", "model", "tokens", "unit_file"},
    "__main__": {
        "errors",
        "bulk",
        "page.ratings",
        "checkpoint",
        "compare",
        "compare_files",
        "files",
        "filling",
        "interop",
        "judge.command",
        "model",
        "report",
        "run",
        "runs",
    },
    "checkpoint": {"archive", "model", "storage", "untrusted"},
    "evaluation": {"metrics", "report", "report_check", "systems.base"},
    "base_task": {"optim", "resume"},
    "flow": {
        "base_task",
        "checkpoint",
        "data.base",
        "data.drawn",
        "data.espeak",
        "data.places",
        "errors",
        "latents.beside",
        "latents.corpus",
        "latents.index",
        "layers",
        "optim",
        "quantizers",
        "untrusted",
    },
    "jobs": {  # what train.py trains: all that it takes to build and report
        "checkpoint",
        "data",
        "errors",
        "evaluation",
        "extract",
        "flow",
        "interop",
        "latents",
        "lineup",
        "page.write",
        "quantizers.base",
        "resume",
        "run",
        "share",
        "task",
        "teachers.base",
        "tracking",
    },
    "task": {"base_task", "model", "losses.base", "discriminators.base", "lesson", "optim"},
    "callbacks": {"metrics", "spectrogram"},
}
LIGHTNING = {"base_task", "task", "flow", "callbacks", "checkpoint_io", "guard", "random_state", "saving"}
LIGHTNING |= {"waiting", "watch", "data", "jobs", "slurm", "wandb_logger"}
# to rebuild a codec from a checkpoint's configuration; to unwrap Hydra's errors; to compose a dataset as train.py does;
# to build what train.py trains
HYDRA = {"untrusted", "run", "source", "jobs"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_import_directions(path):
    names = path.relative_to(ROOT / "codec").with_suffix("").parts
    part = names[0]
    if part == "__init__":
        assert not path.read_text().strip()
        return
    assert part in ALLOWED, f"say in ALLOWED what {part} may import"
    for name in imports(path):
        package, _, rest = name.partition(".")
        if package == "codec":
            own = rest.split(".")[0] == part
            allowed = any(rest == a or rest.startswith(f"{a}.") for a in ALLOWED[part])
            assert own or allowed, f"{part} imports {name}"
        if package in ("lightning", "pytorch_lightning"):
            assert part in LIGHTNING, f"{part} imports {name}"
        if package == "hydra":
            assert part in HYDRA, f"{part} imports {name}"


def test_what_judges_sound_knows_no_model():
    """Else a score could hang on what made the sound."""
    for path in (ROOT / "codec" / "judge").glob("*.py"):
        if path.stem not in ("models", "command"):
            parts = {name.split(".")[1] for name in imports(path) if name.startswith("codec.")}
            assert not parts & {"checkpoint", "flow", "latents", "model"}, path.name


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_packages_re_export_nothing(path):
    if path.name == "__init__.py":
        assert not path.read_text().strip()


def test_the_programs_stay_short():
    for name in ("train.py", "eval.py"):
        assert len((ROOT / name).read_text().splitlines()) <= 80


@pytest.mark.parametrize("path", [*FILES, ROOT / "train.py", ROOT / "eval.py"], ids=lambda p: p.name)
def test_nothing_unpickles_or_decodes_with_torchaudio(path):
    """Checkpoints are weights and plain values; audio is read by soundfile (torchaudio.load needs an FFmpeg)."""
    text = path.read_text()
    assert "weights_only=False" not in text
    assert not imports(path) & {"pickle", "dill", "joblib"}
    for call in ("torchaudio.load(", "torchaudio.save(", "trust_remote_code=True"):
        assert call not in text
