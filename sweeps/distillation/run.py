"""The distillation study: trains codecs and flow models on their latents, and evaluates inpainted speech.

    python sweeps/distillation/run.py small --out runs/distillation       # everything; the same line resumes
    python sweeps/distillation/run.py small --arms a1 --seeds 0 --dry     # the commands of one arm

Each step is a command of its own. Finished steps are skipped, interrupted trainings resume; tables.py makes the tables.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LAST = "checkpoints/last.ckpt"


@dataclass(frozen=True)
class Step:
    """Command of the study, the steps that it needs, and the file that marks its success."""

    name: str
    command: list[str]
    done: Path
    needs: tuple[str, ...] = ()
    log: Path = field(default=Path(), compare=False)


def study() -> dict:
    return yaml.safe_load((HERE / "study.yaml").read_text(encoding="utf-8"))


def steps(plan: dict, scale: str, out: Path, arms: list[str], conditions: list[str], seeds: list[int]) -> list[Step]:
    """All commands, those of the first seed first, so that arms can be compared at any time."""
    of_scale = plan["scales"][scale]
    found: dict[str, Step] = {}
    for seed in seeds:
        for arm in arms:
            for step in _of_arm(plan, of_scale, out, arm, conditions, seed):
                found.setdefault(step.name, step)
    return list(found.values())


def _of_arm(plan: dict, scale: dict, out: Path, arm: str, conditions: list[str], seed: int) -> Iterator[Step]:
    about = plan["arms"][arm]
    codec_arm = about.get("codec_of", arm)
    codec = out / f"codec/{codec_arm}-{seed}" / LAST
    yield from _codec(plan, scale, out, codec_arm, seed)
    for condition in conditions:
        count = scale["flow_steps"][condition]
        for times in (1, *([plan["patience"][arm]] if arm in plan["patience"] else [])):
            name = f"flow/{arm}{f'x{times}' if times > 1 else ''}-{condition}-{seed}"
            words = ["task=flow", *scale["flow"], *_formatted(about.get("flow", []), scale), f"text={condition}"]
            words += [f"codec_ckpt={codec}", f"seed={seed}", f"max_steps={times * count}"]
            flow = _training(name, words, out, (f"codec/{codec_arm}-{seed}",))
            yield flow
            kept = [times * count * point // scale["points"] for point in range(1, scale["points"])]
            yield _judged(scale, out, flow, codec, kept if arm in plan["curves"] else [])
            if arm in plan["silenced"]:
                yield _judged(scale, out, flow, codec, [], "silenced", "--silenced")


def _codec(plan: dict, scale: dict, out: Path, arm: str, seed: int) -> Iterator[Step]:
    """Training of an arm's codec, from that of its seed where a scale has one, and probes of its latents."""
    words, needs = codec_words(plan, scale, arm), ()
    if "begin" in scale:
        needs = (f"codec/begin-{seed}",)
        yield _training(needs[0], [*scale["begin"], f"seed={seed}"], out)
        words.append(f"init_from={out / needs[0] / LAST}")
    name = f"codec/{arm}-{seed}"
    yield _training(name, [*words, f"seed={seed}"], out, needs)
    command = [sys.executable, "-m", "codec", "judge", *_corpus(scale), "--latents", "pre"]
    command += ["--codec-ckpt", str(out / name / LAST)]
    latents = f"latents/{arm}-{seed}"
    yield _step(latents, [*command, "--out", str(out / latents)], out, (name,))


def codec_words(plan: dict, scale: dict, arm: str) -> list[str]:
    """Overrides of train.py for the codec of an arm."""
    return [*scale["codec"], *_formatted(plan["arms"][arm].get("codec", []), scale)]


def _training(name: str, words: list[str], out: Path, needs: tuple[str, ...] = ()) -> Step:
    command = [sys.executable, "train.py", *words, "ckpt_path=auto", f"hydra.run.dir={out / name}"]
    return _step(name, command, out, needs)


def _formatted(overrides: list[str], scale: dict) -> list[str]:
    words = {name: value for name, value in scale.items() if isinstance(value, str | int)}
    return [word for override in overrides for word in override.format(**words).split()]


def _judged(scale: dict, out: Path, flow: Step, codec: Path, kept: list[int], kind="judge", *how: str) -> Step:
    """Evaluation of a flow model at the end of training and at the earlier steps ``kept``."""
    models = [flow.done.parent / "checkpoints" / f"{step}.ckpt" for step in (*kept, "last")]
    name = flow.name.replace("flow/", f"{kind}/")
    command = [sys.executable, "-m", "codec", "judge", *_corpus(scale), "--codec-ckpt", str(codec), *how]
    command += [word for model in models for word in ("--ckpt", str(model))]
    return _step(name, [*command, "--out", str(out / name)], out, (flow.name,))


def _corpus(scale: dict) -> list[str]:
    return [*scale["judge"], "--clips", str(scale["clips"])]


def _step(name: str, command: list[str], out: Path, needs: tuple[str, ...] = ()) -> Step:
    return Step(name, command, out / name / "ended", needs, out / "logs" / f"{name.replace('/', '-')}.log")


def run_all(todo: list[Step], jobs: int) -> list[str]:
    """Run the commands, ``jobs`` at a time, each after its needs -> names of those that failed or need one that did."""
    left = [step for step in todo if not step.done.is_file()]
    ended, failed = {step.name for step in todo} - {step.name for step in left}, []
    running: dict[Future, Step] = {}
    with ThreadPoolExecutor(jobs) as pool:
        while True:
            ready = [step for step in left if ended.issuperset(step.needs)]
            for step in ready[: jobs - len(running)]:
                left.remove(step)
                print(f"{step.name}: begun ({len(left)} to go)", flush=True)
                running[pool.submit(_run, step)] = step
            if not running:
                return failed + [step.name for step in left]
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                step = running.pop(future)
                if future.result():
                    ended.add(step.name)
                else:
                    failed.append(step.name)
                    print(f"{step.name}: FAILED, see {step.log}", flush=True)


def _run(step: Step) -> bool:
    step.log.parent.mkdir(parents=True, exist_ok=True)
    with step.log.open("ab") as log:
        code = subprocess.run(step.command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT).returncode
    if code == 0:
        step.done.parent.mkdir(parents=True, exist_ok=True)
        step.done.touch()
    return code == 0


def main() -> None:
    plan = study()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scale", choices=list(plan["scales"]))
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "distillation", help="folder of runs and reports")
    parser.add_argument("--arms", nargs="+", choices=list(plan["arms"]), default=list(plan["arms"]))
    parser.add_argument("--conditions", nargs="+", help="text= options, some of those of the scale (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=plan["seeds"])
    parser.add_argument(
        "--judge", nargs="+", help="held-out corpus with phones and times: dataset=folder dataset.path=DIR"
    )
    parser.add_argument("--jobs", type=int, default=1, help="commands at a time")
    parser.add_argument("--dry", action="store_true", help="only print the commands")
    options = parser.parse_args()
    scale = plan["scales"][options.scale]
    scale["judge"] = options.judge or scale["judge"]
    if not scale["judge"]:
        parser.error(
            f"{options.scale} has no corpus for the evaluation: --judge dataset=folder dataset.path=DIR, with phones"
        )
    conditions = options.conditions or list(scale["flow_steps"])
    if unknown := [name for name in conditions if name not in scale["flow_steps"]]:
        parser.error(f"{options.scale} has no flow_steps for {', '.join(unknown)}: add them in study.yaml")
    todo = steps(plan, options.scale, options.out.resolve(), options.arms, conditions, options.seeds)
    if options.dry:
        print("\n".join(shlex.join(step.command) for step in todo))
    elif failed := run_all(todo, options.jobs):
        sys.exit(f"not done: {', '.join(failed)}")


if __name__ == "__main__":
    main()
