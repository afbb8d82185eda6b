"""What an untrusted file cannot do: run code, take all memory, read or write elsewhere."""

import ast
import random
import zipfile
from pathlib import Path

import pytest
import soundfile
import torch
import yaml

from codec.checkpoints.load import load_checkpoint, load_codec
from codec.checkpoints.safe_instantiate import DATA, CheckpointError, build
from codec.checkpoints.save import damage
from codec.data.espeak import EspeakCorpus
from codec.data.folder import FolderCorpus
from codec.distillation.teachers.wavlm import WavLM
from codec.evaluation.html.base import SystemResult
from codec.evaluation.html.listening import write_listening_test
from codec.evaluation.html.report import write_page
from codec.evaluation.report import Report, ReportError
from codec.evaluation.runs.run_folder import Run, RunError
from codec.evaluation.systems import corpus_of, find_checkpoints
from codec.training.callbacks.preemption import SaveLastStep
from codec.utils.safe_io import UntrustedFileError, inside
from tests.helpers.checkpoints import CONFIG, saved
from tests.helpers.run_folders import report, write_run
from tests.helpers.signals import speechlike

ROOT = Path(__file__).parents[1]
SOURCES = [*sorted((ROOT / "codec").rglob("*.py")), ROOT / "train.py", ROOT / "eval.py"]
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle"}
FORBIDDEN = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load"}
FORBIDDEN |= {"pandas.read_pickle", "torch.hub.load", "torch.jit.load", "tempfile.mktemp"}
UNITS = {"_target_": "codec.layers.seanet.ResidualUnits", "kernel": 3, "compress": 2}


# What the sources say


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    """(dotted name, node) of every call."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return [(ast.unparse(node.func), node) for node in nodes if isinstance(node, ast.Call)]


def option(call: ast.Call, name: str):
    return next((ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg == name), None)


def test_nothing_that_is_read_is_run():
    for name, call in (found for path in SOURCES for found in calls(path)):
        if name in ("torch.load", "torch.hub.load_state_dict_from_url"):
            assert option(call, "weights_only") == "True", ast.unparse(call)
        if name.startswith(("numpy.load", "np.load")):
            assert option(call, "allow_pickle") in (None, "False"), ast.unparse(call)
        if name == "yaml.load":
            assert option(call, "Loader") == "_PlainLoader", ast.unparse(call)
        assert name not in FORBIDDEN, ast.unparse(call)
        assert option(call, "shell") in (None, "False"), ast.unparse(call)
        assert option(call, "trust_remote_code") in (None, "False"), ast.unparse(call)
        assert option(call, "weights_only") in (None, "True"), ast.unparse(call)
        assert not name.startswith(tuple(f"{module}." for module in UNPICKLERS)), ast.unparse(call)


def beyond_torchaudio_functional(path: Path) -> list[str]:
    """Imports and uses of torchaudio other than of ``torchaudio.functional``; other parts of it open files."""
    nodes, found = list(ast.walk(ast.parse(path.read_text()))), []
    functional = [n.value for n in nodes if isinstance(n, ast.Attribute) and n.attr == "functional"]
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [a for a in node.names if a.name.split(".")[0] == "torchaudio"]
            found += [a.name for a in names if a.asname or a.name not in ("torchaudio", "torchaudio.functional")]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torchaudio":
            names = [f"{node.module}.{a.name}" for a in node.names]
            found += [name for name in names if not f"{name}.".startswith("torchaudio.functional.")]
        elif isinstance(node, ast.Name) and node.id == "torchaudio" and node not in functional:
            found.append(f"line {node.lineno}")
    return found


PACKAGES = ["encoders", "decoders", "quantizers", "layers"]
MODULES = ["model", "data/vocabulary", "flow/model", "flow/dit", "flow/conditioning", "flow/text_conditioning"]
MODULES += ["flow/speaker_prompt", "flow/objective", "flow/sampler"]
PURE = {"math", "typing", "collections", "functools", "itertools", "dataclasses", "abc", "contextlib", "torch"}
PURE |= {"einops", "numpy", "codec", "copy", "operator", "enum", "types", "warnings", "unicodedata"}
PURE |= {"torchaudio"}  # for mel filters: of it only torchaudio.functional, functions on tensors


def test_what_anybodys_checkpoint_may_build_touches_no_file_network_or_process():
    packages = [path for name in PACKAGES for path in (ROOT / "codec" / name).rglob("*.py")]
    for path in packages + [ROOT / "codec" / f"{name}.py" for name in MODULES]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in names:
                assert name.split(".")[0] in PURE, f"{path} imports {name}"
        assert not beyond_torchaudio_functional(path)
        assert not {"open", "torch.load", "torch.save", "torch.hub.load"} & {name for name, _ in calls(path)}


# Checkpoints


@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:HOME}",
        "${oc.create:{_target_:pathlib.Path,_args_:[owned]}}",
        "${oc.decode:'{_target_: os.system}'}",
        "${.kernel}",
        {"_target_": "os.system", "_args_": ["touch owned"]},
        [[{"a": [{"_target_": "os.system"}]}]],
        {"_target_": "hydra.utils.get_method", "path": "os.system"},
        {"_target_": "hydra.utils.instantiate", "_args_": [{"_target_": "os.system"}]},
        {**UNITS, "dilations": [1], "_partial_": True},
        {**UNITS, "_args_": [[1]]},
        {**UNITS, "_recursive_": False},
        {"_target_": "codec.data.espeak.EspeakCorpus", "sample_rate": 16000, "cache": "owned"},
        {"_target_": "codec.evaluation.baselines.pretrained.Pretrained", "source": "stranger/model"},
        {"_target_": "codec.quantizers.rvq.nn.Module"},
        {"_target_": "codec.layers.seanet.ResidualUnits.__class__"},
        {"_target_": "codec.layers.spectrogram.MelSpectrogram", "sample_rate": 16000, "window": 2**18, "bands": 2**18},
        *({"_target_": name} for name in ("codec..", "codec.nowhere.X", "codec", "builtins.exec", 3)),
        {"_target_": "codec.data.hf.fsspec.open", "_args_": ["owned", "w"]},
        10**40,
        "x" * 30_000,
        b"bytes",
        torch.zeros(1),
        {3: 4},
    ],
    ids=str,
)
def test_a_model_is_built_of_own_layers_and_plain_values_only(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"\A.*\Z"):  # one line
        build({**UNITS, "dilations": value})
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("found", [SaveLastStep, EspeakCorpus, FolderCorpus, WavLM])
def test_other_classes_of_the_package_are_refused(found):
    with pytest.raises(CheckpointError, match="not a class of this package that it may"):
        build({**UNITS, "dilations": {"_target_": f"{found.__module__}.{found.__name__}"}})


def test_a_configuration_that_nests_without_end_is_refused():
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    loop: list = []
    loop.append(loop)
    for value in (deep, loop):
        with pytest.raises(CheckpointError, match="larger"):
            build({**UNITS, "dilations": value})


def test_a_checkpoint_that_names_a_command_runs_nothing(tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    command = {"_target_": "shutil.rmtree", "_args_": [str(victim)]}
    saved(tmp_path / "a.ckpt", config={"codec": CONFIG["codec"] | {"encoder": command}, "dataset": command})
    for load in (load_codec, lambda path: corpus_of(find_checkpoints(str(path)), 16_000)):
        with pytest.raises(CheckpointError, match="not a class of this package"):
            load(tmp_path / "a.ckpt")
    assert victim.exists()


def test_the_dataset_of_a_checkpoint_writes_nowhere_but_in_the_users_cache(tmp_path):
    espeak = {"_target_": "codec.data.espeak.EspeakCorpus", "sample_rate": 16_000}
    with pytest.raises(CheckpointError, match="would write to"):
        build({**espeak, "cache": str(tmp_path / "owned")}, DATA)
    with pytest.raises(Exception, match="utterances"):
        build({**espeak, "voices": 10**9}, DATA)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"path": "simplecache::http://127.0.0.1:9/x"},
        {"path": "memory://x", "storage_options": {"skip_instance_cache": True}},
        {"path": "simplecache::memory://x", "storage_options": {"simplecache": {"cache_storage": "owned"}}},
        {"path": "reference://", "storage_options": {"fo": {"version": 1, "refs": {"a": ["x"]}}}},
    ],
    ids=str,
)
def test_the_dataset_of_a_checkpoint_opens_no_other_file_system_than_it_says(tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fsspec.core.url_to_fs", lambda *_, **__: pytest.fail("opened"))
    shards = {"_target_": "codec.data.shard_corpus.ShardCorpus", "sample_rate": 16_000, **options}
    for config in (shards, {"_target_": "codec.data.mix.MixCorpus", "corpora": {"a": shards}, "weights": {"a": 1}}):
        with pytest.raises(CheckpointError, match=r"\A.*name a dataset= of yours.*\Z"):
            build(config, DATA)
    with pytest.raises(CheckpointError, match="name a dataset= of yours"):
        build({"_target_": "codec.data.hf.open_hub", "name": "zip::http://x", "column": "a", "sample_rate": 1}, DATA)


@pytest.mark.parametrize("change", [{"n_q": 10**6, "codebook_size": 10**6}, {"dim": 10**6, "codebook_dim": 10**6}])
def test_a_model_far_larger_than_its_weights_is_not_built(tmp_path, change):
    quantizer = CONFIG["codec"]["quantizer"] | change
    saved(tmp_path / "a.ckpt", config={"codec": CONFIG["codec"] | {"quantizer": quantizer}})
    with pytest.raises(CheckpointError, match=r"larger model|cannot be built"):
        load_codec(tmp_path / "a.ckpt")


def rewritten(path: Path, change, compression: int = zipfile.ZIP_STORED) -> None:
    """A checkpoint whose records ``(name, bytes)`` are changed."""
    saved(path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, change(name, content))


def test_weights_that_are_larger_than_the_file_are_refused(tmp_path):
    saved(tmp_path / "a.ckpt", state_dict={"codec.encoder.x": torch.zeros(1).expand(10**6, 10**6)})
    with pytest.raises(CheckpointError, match="no plain tensors"):
        load_codec(tmp_path / "a.ckpt")
    rewritten(tmp_path / "b.ckpt", lambda _, content: content + bytes(10**5), zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="compressed"):
        load_codec(tmp_path / "b.ckpt")


MILLIARD = b"(J\x00\xca\x9a;t"  # the arguments (10**9,)
EMPTY = b"}q\x00"  # a dictionary that is kept


@pytest.mark.parametrize(
    "record",
    [
        b"cbuiltins\nbytearray\n" + MILLIARD + b"R",
        b"ctorch.storage\nUntypedStorage\n" + MILLIARD + b"R",
        b"ctorch\nFloatStorage\nq\x01h\x01" + MILLIARD + b"R",
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x04\x00\x00\x00utf8tR",
        EMPTY + b"ccollections\nOrderedDict\nh\x00\x85R",
        EMPTY + b"ccollections\nOrderedDict\n)Rh\x00b",
        b"ctorch\nTensor\n" + MILLIARD + b"\x81",
        b"(" + b"K\x01" * 1000 + b"t",
        b"}" * 2**22,
        b"ccollections\nOrderedDict\nq\x00" + b"h\x00)R" * (2**16 + 1),
        b"R",
        b"h\x07",
    ],
    ids=lambda record: repr(record[:40]),
)
def test_a_few_bytes_of_a_checkpoint_cannot_take_the_memory(tmp_path, monkeypatch, record):
    pickled = b"\x80\x02" + record + b"."
    rewritten(tmp_path / "a.ckpt", lambda name, content: pickled if name.endswith("data.pkl") else content)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch has been asked to load it"))
    with pytest.raises(CheckpointError, match=r"\A.*cannot be read as a checkpoint.*\Z"):
        load_codec(tmp_path / "a.ckpt")
    assert damage(tmp_path / "a.ckpt").startswith("it cannot be read")


def test_torch_is_given_no_file_of_another_form(tmp_path):
    saved(tmp_path / "a.ckpt")
    (tmp_path / "b.ckpt").write_bytes(b"before" + (tmp_path / "a.ckpt").read_bytes())
    with pytest.raises(CheckpointError, match="does not begin as a checkpoint does"):
        load_codec(tmp_path / "b.ckpt")
    assert "does not begin" in damage(tmp_path / "b.ckpt")


def test_what_training_keeps_passes(tmp_path):
    state = torch.nn.Linear(2, 2).state_dict()  # an OrderedDict with facts of its own
    kinds = [torch.zeros(2, dtype=kind) for kind in (torch.bfloat16, torch.int64, torch.bool, torch.complex64)]
    kept = {"kinds": kinds, "type": torch.float32, "random": random.getstate(), "big": 2**70}
    kept |= {"p": torch.nn.Parameter(kinds[0])}
    saved(tmp_path / "a.ckpt", ema=dict(state), more=state, **kept)
    assert not damage(tmp_path / "a.ckpt")
    assert load_checkpoint(tmp_path / "a.ckpt")["random"] == kept["random"]


# Reports and run folders


@pytest.mark.parametrize("file", ["../../secret.flac", "SECRET", "audio/b.flac", "up/secret.flac"])
def test_a_page_carries_no_sound_from_outside_of_the_reports_folder(tmp_path, file):
    """By a path, by a link, or by a link to a folder."""
    secret, folder = tmp_path / "secret.flac", tmp_path / "deep" / "stranger"
    (folder / "audio").mkdir(parents=True)
    for path in (secret, folder / "audio" / "a.flac"):
        soundfile.write(path, speechlike(0.5, 16_000, 1), 16_000)
    (folder / "audio" / "b.flac").symlink_to(secret)
    (folder / "up").symlink_to(tmp_path)
    found = report({"stoi": 0.5}, sample_rate=16_000)
    found.audio = {"a": {"reference": "audio/a.flac", "decoded": file.replace("SECRET", str(secret))}}
    path = found.write(folder)
    if file in ("../../secret.flac", "SECRET"):
        with pytest.raises(ReportError, match="outside of its folder"):
            Report.read(path)
    for write in (write_page, write_listening_test):
        with pytest.raises(ReportError, match="not a file inside"):
            write(tmp_path / "page.html", [SystemResult("x", found, folder)], "title")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("name", ["", "..", ".", "a/../../b", "/etc/passwd", "x\0y", None, 3, ["a"]])
def test_a_name_cannot_leave_its_folder(tmp_path, name):
    with pytest.raises(UntrustedFileError):
        inside(tmp_path, name)
    assert inside(tmp_path, "a/b") == tmp_path.resolve() / "a" / "b"


def test_a_few_lines_of_yaml_cannot_stand_for_more_than_memory_holds(tmp_path):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefghi", "bcdefghij", strict=True)]
    run = write_run(tmp_path / "run")
    (run / "config.yaml").write_text("\n".join(lines))
    with pytest.raises(RunError, match="reference"):
        _ = Run(run).settings
    (run / "config.yaml").write_text("a: !!python/object/apply:os.system ['touch owned']")
    with pytest.raises(RunError, match="cannot be read"):
        _ = Run(run).config


def test_a_run_folder_cannot_name_a_log_elsewhere(tmp_path):
    (tmp_path / "secret.log").write_text("[2026-01-02 03:04:05,678][train][ERROR] - error: a secret")
    run = write_run(tmp_path / "run")
    hydra = yaml.safe_load((run / ".hydra" / "hydra.yaml").read_text())
    hydra["hydra"]["job"]["name"] = "../secret"
    (run / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(hydra))
    assert "secret" not in Run(run).status.reason
