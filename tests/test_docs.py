"""The documentation is true: pages that are generated, links, and the code that the README shows."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hydra import compose, initialize
from hydra.utils import instantiate

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text()


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_up_to_date():
    assert (ROOT / "docs" / "options.md").read_text() == script("make_options").page(), "run docs/make_options.py"
    assert (ROOT / "docs" / "architecture.svg").read_text() == script("make_architecture").picture()


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if not link.startswith("http"):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_modules_that_pages_name_exist(page):
    text = page.read_text()
    for name in re.findall(r"`((?:codec|conf|tests|bench|sweeps|docs)/[\w./+-]+)`", text):
        placeholder = "NAME" in name or (page.name == "README.md" and "rounding" in name)
        assert placeholder or (ROOT / name).exists(), name
    for module in re.findall(r"^from (codec[\w.]+) import", text, re.MULTILINE):
        assert importlib.util.find_spec(module), module


def test_readme_is_short():
    assert len(README.splitlines()) <= 130


def test_the_part_that_the_readme_adds_works(tmp_path, monkeypatch):
    source = re.search(r"```python\n(from torch import Tensor.*?)```", README, re.DOTALL).group(1)
    option = re.search(r"```yaml\n(.*?)```", README, re.DOTALL).group(1)
    module = ModuleType("codec.quantizers.rounding")
    exec(source, module.__dict__)
    module.Rounding.__module__ = module.__name__
    monkeypatch.setitem(sys.modules, module.__name__, module)
    (tmp_path / "quantizer").mkdir()
    (tmp_path / "quantizer" / "rounding.yaml").write_text(option)
    with initialize(version_base="1.3", config_path="../conf"):
        overrides = [
            f"hydra.searchpath=[file://{tmp_path}]",
            "quantizer=rounding",
            "quantizer.step=0.05",
            "latent_dim=16",
        ]
        cfg = compose("train", overrides=overrides)
    quantizer = instantiate(cfg.quantizer)
    z = torch.randn(2, 16, 5, requires_grad=True)
    quantized = quantizer(z)
    assert (quantized.z - z).abs().max() <= 0.0251
    quantized.z.sum().backward()
    assert torch.equal(z.grad, torch.ones_like(z))
    codec = instantiate(cfg.codec, _convert_="all")
    assert codec(torch.randn(1, 1, 3200)).wav.shape == (1, 1, 3200)
