"""All commands of ``python -m codec``: help, wrong options, and files that are missing, damaged or there already."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from codec.__main__ import COMMANDS, EXAMPLES, main, parse
from codec.cli.corpus_args import open_corpus
from tests.helpers.codecs import saved as saved_codec
from tests.helpers.commands import fails, misused
from tests.helpers.flow_checkpoints import saved_flow
from tests.helpers.signals import speechlike

FLOW = ["--ckpt", "flow.ckpt", "-o", "out.wav", "--steps", "1"]
CORPUS = ["dataset=folder", "dataset.path=speech"]
GOOD = {
    "encode": ["in.wav", "out.codes", "--ckpt", "rvq.ckpt"],
    "decode": ["in.codes", "out.wav", "--ckpt", "rvq.ckpt"],
    "import": ["in.safetensors", "-o", "out.ckpt"],
    "export": ["out", "--to", "moshi", "--ckpt", "codec.ckpt"],
    "compare": ["run", "--out", "out"],
    "ratings": ["in.json"],
    "pack": ["out", "--workers", "0", *CORPUS],
    "extract": ["out", "--kind", "latents", "--ckpt", "codec.ckpt", *CORPUS],
    "inpaint": ["in.wav", "--span", "0.2", "0.5", "--text", "abc", *FLOW],
    "tts": ["some words", *FLOW],
    "edit": ["in.wav", "--old", "some", "--new", "other", "--text", "some words", *FLOW],
    "judge": ["--ckpt", "flow.ckpt", "--out", "out", *CORPUS],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What the commands above read; no test changes it."""
    folder = tmp_path_factory.mktemp("contract")
    saved_flow(folder, "characters")
    saved_codec(folder / "rvq.ckpt", "rvq")
    soundfile.write(folder / "in.wav", speechlike(1.0, 800, 0), 800)
    (folder / "speech").mkdir()
    soundfile.write(folder / "speech" / "a.wav", speechlike(1.0, 800, 0), 800)
    for name in ("in.codes", "in.json", "in.safetensors", "broken.ckpt"):
        (folder / name).write_text("damaged")
    return folder


@pytest.fixture(autouse=True)
def _nothing_is_written(folder, monkeypatch):
    monkeypatch.chdir(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    yield
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert not (folder / "out").exists()


def changed(command: str, old: str, new: str) -> list[str]:
    words = [command, *GOOD[command]]
    assert any(old in word for word in words)
    return [word.replace(old, new) for word in words]


def test_every_command_has_a_case():
    assert GOOD.keys() == COMMANDS.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: python -m codec {command}")
    assert COMMANDS[command][1] in text.replace("\n", " ")
    assert ("--ckpt" in text) == ("--ckpt" in GOOD[command])
    assert ("--device" in text) <= ("auto" not in text) & ("default: a GPU" in " ".join(text.split()))


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_options(command, capsys):
    misused(capsys, [command, *GOOD[command], "--wrong"], "unrecognized arguments: --wrong")
    misused(capsys, [command], "the following arguments are required")


@pytest.mark.parametrize(
    ("command", "name"),
    [(command, "in.") for command in ("encode", "decode", "import", "ratings", "inpaint", "edit")]
    + [("compare", "run"), ("pack", "speech"), ("extract", "speech"), ("export", "codec.ckpt")]
    + [(command, "flow.ckpt") for command in ("inpaint", "tts", "edit", "judge")],
)
def test_missing_files(command, name):
    fails(changed(command, name, f"missing/{name}"), f"missing/{name}")


@pytest.mark.parametrize("command", ["decode", "import", "ratings"])
def test_damaged_files(command):
    fails([command, *GOOD[command]], next(word for word in GOOD[command] if word.startswith("in.")))


@pytest.mark.parametrize("command", [command for command, words in GOOD.items() if "--ckpt" in words])
def test_broken_checkpoints(command):
    name = GOOD[command][GOOD[command].index("--ckpt") + 1]
    fails(changed(command, name, "broken.ckpt"), "broken.ckpt", "checkpoint")


@pytest.mark.parametrize("command", ["encode", "extract", "inpaint", "tts", "edit", "judge"])
def test_devices_that_there_are_not(command):
    for device in ("tape", "meta"):
        fails([command, *GOOD[command], "--device", device], f"the device {device} cannot be used")


@pytest.mark.parametrize("command", ["encode", "decode", "import", "inpaint", "tts", "edit"])
def test_existing_targets(command):
    target = next(word for word in GOOD[command] if word.startswith("out."))
    fails(changed(command, target, "in.wav"), "in.wav exists already", "--force")


@pytest.mark.parametrize("command", ["extract", "inpaint", "pack"])
def test_targets_below_a_file(command):
    fails(changed(command, "out", "in.wav/out"), "in.wav")


@pytest.mark.parametrize("command", ["inpaint", "judge"])
def test_names_of_an_earlier_version(command, capsys):
    misused(capsys, [command, *GOOD[command], "--flow", "flow.ckpt"], "--flow is called --ckpt", "--codec-ckpt")


@pytest.mark.parametrize("command", ["pack", "extract", "judge"])
def test_words_that_are_no_override_of_a_dataset(command):
    for word in ("words", "kind=latents", "flow.ckpt", "lr=1"):
        fails([command, *GOOD[command], word], f"{word} is no option of a corpus: give dataset=")


def test_a_folder_that_exists_is_a_corpus(folder, tmp_path, monkeypatch):
    """Whatever its name has that Hydra's grammar would read."""
    named = tmp_path / "my data" / "lang=Füße"
    named.mkdir(parents=True)
    soundfile.write(named / "a.wav", speechlike(1.0, 800, 0), 800)
    for words in (
        [str(named)],
        ["dataset=folder", f"dataset.path={named}"],
        ["dataset=folder", f'dataset.path="{named}"'],
    ):
        assert open_corpus(words, 800).size == 1
    monkeypatch.chdir(named.parent)
    assert open_corpus([named.name], 800).size == 1


def test_the_documentation_has_valid_commands():
    root = Path(__file__).parents[2]
    texts = [EXAMPLES, *(path.read_text() for path in [root / "README.md", *(root / "docs").glob("*.md")])]
    lines = [line for text in texts for line in re.findall(r"^ *python -m codec (?!-)(.*)", text, re.MULTILINE)]
    assert len(lines) > 15
    for line in lines:
        parse(shlex.split(line, comments=True))


def test_as_a_program():
    """Help imports nothing heavy; an input error has no trace, and status 1."""
    light = (
        "import sys; from codec.__main__ import show_commands as show\ntry: show(['--help'])\nexcept SystemExit: pass"
    )
    light += "\nassert not {'torch', 'numpy', 'hydra', 'yaml', 'pydantic'} & sys.modules.keys()"
    root = Path(__file__).parents[2]
    shown = subprocess.run([sys.executable, "-c", light], cwd=root, capture_output=True, text=True, check=True).stdout
    assert all(f"  {command} " in shown for command in COMMANDS)
    failed = subprocess.run(
        [sys.executable, "-m", "codec", "ratings", "no.json"], cwd=root, capture_output=True, text=True
    )
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in failed.stderr
    assert subprocess.run([sys.executable, "-m", "codec", "dance"], cwd=root, capture_output=True).returncode == 2
