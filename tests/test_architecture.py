"""Who may import whom, read from the syntax trees, and how large things may grow (docs/design.md)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "codec").rglob("*.py"))
MODEL = {"utils", "layers", "encoders", "decoders", "quantizers", "model"}
LOADED = MODEL | {"checkpoints", "data", "distillation"}
# part of the package -> the parts that it may import besides itself
ALLOWED = {
    "utils": set(),
    "layers": {"utils"},
    **{part: {"utils", "layers"} for part in ("encoders", "decoders", "quantizers", "discriminators", "losses")},
    "model": MODEL,
    "checkpoints": MODEL,
    "data": {"utils"},
    "distillation": {"utils", "layers", "quantizers", "data"},
    "latents": LOADED,
    "evaluation": LOADED,
    "training": LOADED | {"losses", "discriminators", "evaluation"},
    "flow": LOADED | {"latents", "evaluation", "training"},
    "cli": LOADED | {"latents", "evaluation", "training", "flow"},
    "__main__": {"utils", "cli"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("part", ALLOWED)
def test_import_directions(part):
    files = [path for path in FILES if path.relative_to(ROOT / "codec").with_suffix("").parts[0] == part]
    assert files
    for path in files:
        others = {name.split(".")[1] for name in imports(path) if name.startswith("codec.")} - {part}
        assert others <= ALLOWED[part], f"{path.relative_to(ROOT)} imports {sorted(others - ALLOWED[part])}"


def test_every_part_has_a_rule():
    parts = {path.relative_to(ROOT / "codec").with_suffix("").parts[0] for path in FILES} - {"__init__"}
    assert parts == set(ALLOWED)
    assert len(parts - {"__main__"}) <= 16


def test_text_files_have_an_encoding():
    """Without one, a locale decides, and a run ends with an error after its last step."""
    for path in [*FILES, ROOT / "train.py", ROOT / "eval.py", *(ROOT / "docs").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", None if not isinstance(node.func, ast.Name) else node.func.id)
            method = isinstance(node.func, ast.Attribute)
            modes = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            binary = any(set(mode) <= set("rwxab+:") and {"b", ":"} & set(mode) for mode in modes)
            text = (method and name in ("read_text", "write_text")) or (name == "open" and not method and not binary)
            where = f"{path.relative_to(ROOT)}:{node.lineno}"
            assert not text or any(word.arg == "encoding" for word in node.keywords), where


def test_judges_know_no_model():
    """Else a score could depend on what made the sound."""
    for path in (ROOT / "codec" / "evaluation" / "judges").glob("*.py"):
        parts = {name.split(".")[1] for name in imports(path) if name.startswith("codec.")}
        assert not parts & {"checkpoints", "flow", "latents", "model"}, path.name


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_packages_re_export_nothing(path):
    if path.name == "__init__.py":
        assert not path.read_text().strip()


def test_files_and_functions_stay_short():
    programs = [ROOT / "train.py", ROOT / "eval.py"]
    lengths = {path: len(path.read_text().splitlines()) for path in [*FILES, *programs]}
    assert not {path.name: n for path, n in lengths.items() if n > (60 if path in programs else 350)}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path.name}: {node.name}"


@pytest.mark.parametrize("path", [*FILES, ROOT / "train.py", ROOT / "eval.py"], ids=lambda p: p.name)
def test_nothing_unpickles_or_decodes_with_torchaudio(path):
    """Checkpoints are weights and plain values; audio is read by soundfile (torchaudio.load needs an FFmpeg)."""
    text = path.read_text()
    assert "weights_only=False" not in text
    assert not imports(path) & {"pickle", "dill", "joblib"}
    for call in ("torchaudio.load(", "torchaudio.save(", "trust_remote_code=True"):
        assert call not in text
