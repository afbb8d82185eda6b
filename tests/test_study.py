"""The distillation study: its commands compose, run once and resume; its tables and verdict follow the rule."""

import importlib.util
import re
import sys
from pathlib import Path

import pandas
import pytest
from hydra import compose, initialize

from codec.evaluation.report import Report

STUDY = Path(__file__).parents[1] / "sweeps" / "distillation"


def program(name: str):
    """A script of the study, which is no package."""
    spec = importlib.util.spec_from_file_location(f"study_{name}", STUDY / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


RUN, COST, TABLES = program("run"), program("cost"), program("tables")
PLAN = RUN.study()


def steps(scale: str, out: Path, seeds: list[int]) -> list:
    return RUN.steps(PLAN, scale, out, list(PLAN["arms"]), list(PLAN["scales"][scale]["flow_steps"]), seeds)


@pytest.mark.parametrize("scale", PLAN["scales"])
def test_every_training_of_the_study_composes(scale):
    own = ("hydra.", "codec_ckpt=", "max_steps=", "init_from=", "trainer=")
    trainings = [step.command[2:] for step in steps(scale, Path("out"), [0]) if step.command[1] == "train.py"]
    with initialize(version_base="1.3", config_path="../conf"):
        for overrides in {tuple(word for word in words if not word.startswith(own)) for words in trainings}:
            compose("train", overrides=list(overrides))


def test_arms_share_codecs_and_differ_in_their_commands(tmp_path):
    found = {step.name: step for step in steps("small", tmp_path, [0, 1])}
    commands = [tuple(word for word in step.command if "run.dir" not in word) for step in found.values()]
    assert len(set(commands)) == len(commands)
    assert "codec/a3-0" not in found
    assert found["flow/a3-aligned_phones-0"].needs == ("codec/a0-0",)
    assert sum("codec/a0-0/checkpoints" in word for word in found["flow/a3-aligned_phones-0"].command) == 1
    long, short = (
        next(w for w in found[f"flow/{n}-aligned_phones-0"].command if "max_steps" in w) for n in ("a0x4", "a0")
    )
    assert int(long.partition("=")[2]) == 4 * int(short.partition("=")[2])
    curve = [word for word in found["judge/a1-aligned_phones-0"].command if word.endswith(".ckpt")]
    assert len(curve) == PLAN["scales"]["small"]["points"] + 1  # and the codec's
    quiet = [name for name, step in found.items() if "--silenced" in step.command]
    assert {name.split("-")[0] for name in quiet} == {
        f"silenced/{arm}{longer}" for arm in PLAN["silenced"] for longer in ("", "x4")
    }
    assert quiet == [name for name in found if name.startswith("silenced/")]
    names = list(found)
    assert max(i for i, name in enumerate(names) if name.endswith("-0")) < names.index("codec/a0-1")


def test_steps_run_once_and_after_those_that_they_need(tmp_path):
    def scripted(name: str, code: str, *needs: str):
        return RUN.Step(name, [sys.executable, "-c", code], tmp_path / name, needs, tmp_path / f"{name}.log")

    line = f"open({str(tmp_path / 'order')!r}, 'a').write('{{}} ')"
    todo = [
        scripted("b", line.format("b"), "a"),
        scripted("a", "import time; time.sleep(0.2); " + line.format("a")),
        scripted("bad", "raise SystemExit('no')"),
        scripted("later", line.format("later"), "bad"),
    ]
    for _ in range(2):
        assert set(RUN.run_all(todo, 2)) == {"bad", "later"}
        assert (tmp_path / "order").read_text() == "a b "
    assert "no" in (tmp_path / "bad.log").read_text()


def test_the_rule():
    """That of docs/distillation.md."""
    seeds = {"a0": [0.50, 0.52], "a1": [0.40, 0.41], "a6": [0.50, 0.51], "a0x4": [0.45, 0.45]}
    assert TABLES.verdict(seeds, 0.9).startswith("useful, and necessary")
    assert TABLES.verdict(seeds | {"a0x4": [0.39, 0.40]}, 0.9).startswith("useful, not necessary")
    assert "seeds are missing" in TABLES.verdict(seeds | {"a0x4": [0.45]}, 0.9)
    assert "placebo" in TABLES.verdict(seeds | {"a6": [0.40, 0.42]}, 0.9)
    assert "a1 does not beat a0" in TABLES.verdict(seeds | {"a1": [0.30, 0.60], "a6": [0.70, 0.71]}, 0.9)
    assert TABLES.verdict(seeds | {"a1": [0.5, 0.51], "a1x4": [0.1, 0.1]}, 0.9).startswith("not decided")
    assert "within the seed spread" in TABLES.verdict({arm: [0.4, 0.6] for arm in seeds}, 0.9)
    assert "not clearly below the floor" in TABLES.verdict(seeds, 0.405)


def judged(out: Path, name: str, scores: dict[str, list[float]], kind: str = "judge") -> None:
    """Reports of `python -m codec judge`, with F0 of the first recording only."""
    for stem, values in scores.items():
        clips = [{"clip": f"c{n}", "speaker": f"s{n % 3}", "seconds": 1.0} for n in range(len(values))]
        table = pandas.DataFrame(clips)
        for metric in TABLES.METRICS:
            if metric != "frechet":
                table[metric] = values
        table.loc[1:, "span_f0_rmse"] = float("nan")
        Report(table, [], {"frechet": 1.5}).write(out / kind / name, stem)
    (out / kind / name / "ended").touch()


def test_tables_have_means_spreads_and_missing_seeds(tmp_path):
    bounds = {"copy_synthesis_ceiling": [0.1, 0.1, 0.1], "interpolation_floor": [0.9, 0.9, 0.9], "recording": [0, 0, 0]}
    for arm, level in (("a0", 0.5), ("a1", 0.3), ("a6", 0.5), ("a0x4", 0.4), ("a1x4", 0.35)):
        for seed in PLAN["seeds"]:
            values = [level + 0.01 * seed + 0.1 * n for n in range(3)]
            judged(tmp_path, f"{arm}-characters-{seed}", {"last": values, "200": [0.8] * 3, **bounds})
    judged(tmp_path, "a0-characters-0", {"last": [0.6, 0.7, 0.8], **bounds}, kind="silenced")
    judged(tmp_path, "a3-characters-0", {"last": [0.1] * 3, **bounds})  # one seed has no spread: the rule leaves it out
    judged(tmp_path, "a0-aligned_phones-0", {"last": [0.2, 0.2, 0.2], **bounds})
    found = TABLES.read(tmp_path)
    text = TABLES.tables(found, tmp_path, PLAN)
    assert "| A1 | 3 | 0.410 [" in text
    assert "(0.400 to 0.420) | -0.200 [-0.200, -0.200] |" in text  # minus A0's, paired
    assert "| A1 x 4 | 3 | 0.460 [" in text
    assert "(0.450 to 0.470) | -0.050 [-0.050, -0.050] |" in text  # minus A0 x 4's
    assert text.count("| A0 | 1 |") == 3  # ceilings of the condition that comes first, its spans, and silenced
    bound = "| recording | 9 | 0.000 [0.000, 0.000] (0.000 to 0.000) | - |"
    assert bound in text  # of three codecs, not of more for A0 x 4 and A3
    assert "| characters | A0 | 1 | 0.700 [0.452, 0.948] | - | +0.100 |" in text  # one seed: nothing is known of others
    assert "| characters | A1 x 4 | 200 | 3 | 0.800 [0.800, 0.800] (0.800 to 0.800) | +0.000 [+0.000, +0.000] |" in text
    assert "- (1 of 3 spans)" in text
    assert re.search("By the rule: useful, and necessary.* reach a1; without A3, whose seeds are missing", text)
    assert "A1 is ahead of A0 by 0.200 (seed spread 0.020)" in text
    assert "By the rule: seeds are missing" in text
    TABLES.plots(found, tmp_path, PLAN)
    once = [(tmp_path / name).read_bytes() for name in ("scores.svg", "curves.svg")]
    TABLES.plots(found, tmp_path, PLAN)
    assert once == [(tmp_path / name).read_bytes() for name in ("scores.svg", "curves.svg")]
    rows = TABLES.scores(found, TABLES.read(tmp_path, "silenced"))
    assert len(rows) == 5 * 3 * 5 + 4 + 4 + 4
    assert rows["silenced"].sum() == 4
    assert set(rows["spans_with_f0"]) == {1}


def test_discriminators_and_teachers_cost(speech_folder):
    words = ["dataset=folder", f"dataset.path={speech_folder}", "dataset.holdout=0.25", "trainer=cpu", "data.workers=0"]
    words += ["channels=4", "segment=0.52", "batch_size=1", "quantizer=none"]
    plain = COST.training_gflop(words)
    assert 0 < plain < COST.training_gflop([*words, "disc=mrd", "disc.members.mrd.width=8"])
    teacher = ["distill=random", "distill.target=bottleneck", "distill.weight=1"]
    assert plain < COST.training_gflop([*words, *teacher])


def test_what_could_not_be_measured_in_every_report_is_left_out(tmp_path):
    """F0 in 22 recordings of each of two seeds, in 21 of them in both, and then in 19."""
    names = [f"c{n:02d}" for n in range(30)]
    for both, shown in ((21, "2, 21 of 30 spans"), (19, "- (19 of 30 spans)")):
        reports = []
        for seed, there in enumerate([range(22), range(22 - both, 44 - both)]):
            table = pandas.DataFrame({"clip": names, "speaker": [name[-1] for name in names], "seconds": 1.0})
            table["span_f0_rmse"] = [2.0 if n in there else float("nan") for n in range(30)]
            reports.append(TABLES.Judged("a0", "none", seed, "last", Report(table, [], {})))
        assert TABLES._cell(reports, "span_f0_rmse").replace(" [2, 2]", "") == shown


def test_an_arm_with_the_codec_of_another_has_its_bounds(tmp_path):
    judged(tmp_path, "a3-characters-0", {"last": [0.5] * 3, "copy_synthesis_ceiling": [0.1] * 3, "recording": [0] * 3})
    judged(tmp_path, "a3-characters-1", {"last": [0.5] * 3, "interpolation_floor": [0.9] * 3})
    text = TABLES.tables(TABLES.read(tmp_path), tmp_path, PLAN)
    assert "| ceiling, all codecs | 1 | 0.100 [" in text
    assert "| A0 | 1 | 0.100 [" in text  # its codec
    TABLES.plots(TABLES.read(tmp_path), tmp_path, PLAN)


def test_a_difference_of_one_seed_only_is_not_certain(tmp_path):
    """The interval is over seeds and speakers."""
    for seed, gain in enumerate([0.0, 0.0, 0.3]):
        judged(tmp_path, f"a0-characters-{seed}", {"last": [0.5, 0.6, 0.7]})
        judged(tmp_path, f"a1-characters-{seed}", {"last": [0.5 - gain, 0.6 - gain, 0.7 - gain]})
        judged(tmp_path, f"a2-characters-{seed}", {"last": [0.5, 0.6, 0.4]})  # one voice only
        judged(tmp_path, f"a3-characters-{seed}", {"last": [0.4, 0.5, 0.6]})
    found = TABLES.read(tmp_path)
    a0, *others = ([one for one in found if one.arm == arm] for arm in ("a0", "a1", "a2", "a3"))
    seeds, voices, both = (TABLES.difference(other, a0) for other in others)
    assert (seeds.mean, voices.mean, both.mean) == pytest.approx((-0.1, -0.1, -0.1))
    assert seeds.low < -0.5
    assert (seeds.low, seeds.high) == pytest.approx((voices.low, voices.high))
    assert (both.low, both.high) == pytest.approx((-0.1, -0.1))
    assert seeds.n == 3
