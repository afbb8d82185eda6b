"""The distillation study: its commands compose, go on where they stopped, and are done once."""

import importlib.util
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize

STUDY = Path(__file__).parents[1] / "sweeps" / "distillation"


def program(name: str):
    """A file of the study, which is no package: another one is called sweeps."""
    spec = importlib.util.spec_from_file_location(f"study_{name}", STUDY / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


RUN = program("run")
Step, run_all, steps = RUN.Step, RUN.run_all, RUN.steps
PLAN = RUN.study()


def every(scale: str, out: Path, **options) -> list[Step]:
    """All steps of two seeds, or fewer."""
    chosen = {"arms": list(PLAN["arms"]), "conditions": PLAN["conditions"], "seeds": [0, 1]} | options
    return steps(PLAN, scale, out, **chosen)


@pytest.mark.parametrize("scale", PLAN["scales"])
def test_every_training_of_the_study_composes(scale):
    with initialize(version_base="1.3", config_path="../conf"):
        for step in every(scale, Path("out"), conditions=["characters"], seeds=[0]):
            if step.command[1] == "train.py":
                compose("train", overrides=[word for word in step.command[2:] if not word.startswith("hydra.")])


def test_arms_differ_by_what_they_say_and_share_what_they_can(tmp_path):
    found = {step.name: step for step in every("small", tmp_path)}
    commands = [tuple(word for word in step.command if "run.dir" not in word) for step in found.values()]
    assert len(set(commands)) == len(commands)
    assert "codec/a3-0" not in found
    assert found["flow/a3-characters-0"].needs == ("codec/a0-0",)
    assert sum("codec/a0-0/checkpoints" in word for word in found["flow/a3-characters-0"].command) == 1
    long, short = (next(w for w in found[f"flow/{n}-characters-0"].command if "max_steps" in w) for n in ("a0x4", "a0"))
    assert int(long.partition("=")[2]) == 4 * int(short.partition("=")[2])
    curve = [word for word in found["judge/a1-characters-0"].command if word.endswith(".ckpt")]
    scale = PLAN["scales"]["small"]
    assert len(curve) == scale["flow_steps"] / scale["every"] + 1  # and the codec
    names = list(found)
    assert max(i for i, name in enumerate(names) if name.endswith("-0")) < names.index("codec/a0-1")


def scripted(tmp_path: Path, name: str, code: str, *needs: str) -> Step:
    return Step(name, [sys.executable, "-c", code], tmp_path / name, needs, tmp_path / f"{name}.log")


def test_steps_wait_for_what_they_need_and_are_done_once(tmp_path):
    line = f"open({str(tmp_path / 'order')!r}, 'a').write('{{}} ')"
    todo = [
        scripted(tmp_path, "b", line.format("b"), "a"),
        scripted(tmp_path, "a", "import time; time.sleep(0.2); " + line.format("a")),
        scripted(tmp_path, "bad", "raise SystemExit('no')"),
        scripted(tmp_path, "later", line.format("later"), "bad"),
    ]
    for _ in range(2):
        assert set(run_all(todo, 2)) == {"bad", "later"}
        assert (tmp_path / "order").read_text() == "a b "
    assert "no" in (tmp_path / "bad.log").read_text()
