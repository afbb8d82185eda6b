"""One frame through a codec, encoder and decoder, on one thread: ours beside the release's own streaming.

    pip install moshi  # for the other side (MIT; it pins other versions: into an environment of its own, or --target)
    python bench/stream.py --frames 100  # full-size Mimi, 80 ms
    pip install ai-edge-litert  # Apache-2.0
    CODEC_LYRA=DIR python bench/stream.py --model lyra  # Lyra V2 at 3.2 kbit/s, 20 ms: eager, ONNX Runtime, interpreter

All have the same weights (Mimi's are random) and input; their frames alternate in one process. Caches are filled before
the first measurement. Prints JSON: median, p99 and real-time factor of each side, the median ratio of neighbouring
frames, and the fraction of equal codes for each codebook.
"""

import copy
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.common import full_mimi, machine, noise, parser, show
from codec.checkpoints.convert import lyra
from codec.checkpoints.convert.mimi import export_mimi
from codec.checkpoints.convert.onnx import export_onnx
from codec.model import Codec

WARM = 130  # frames; of Mimi 10.4 s: beyond the 250 steps of context
LYRA_LEVELS = 16  # 3.2 kbit/s


class Ours:
    def __init__(self, codec: Codec, encoder=torch.float32, decoder=torch.float32, n_q: int | None = None):
        self.stream = copy.deepcopy(codec).for_inference(encoder, decoder).streaming(n_q)

    def __call__(self, wav: torch.Tensor) -> torch.Tensor:
        codes = self.stream.encode(wav)
        self.stream.decode(codes)
        return codes


class Moshi:
    def __init__(self, codec: Codec):
        from moshi.models import loaders

        with tempfile.TemporaryDirectory() as folder:
            weights, config = export_mimi(codec, folder, "moshi")
            options = json.loads(config.read_text())
            self.model = loaders.get_mimi(weights, options, num_codebooks=codec.quantizer.n_q).eval()
        self.model.streaming_forever(1)

    def __call__(self, wav: torch.Tensor) -> torch.Tensor:
        codes = self.model.encode(wav)
        self.model.decode(codes)
        return codes


class OnnxSteps:
    """The graphs of ``python -m codec export --to onnx`` in ONNX Runtime."""

    def __init__(self, codec: Codec, n_q: int):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        with tempfile.TemporaryDirectory() as folder:
            graphs = export_onnx(codec, folder, n_q)[:2]
            self.sessions = [onnxruntime.InferenceSession(graph, options) for graph in graphs]
        inputs = [session.get_inputs() for session in self.sessions]
        self.names = [given[0].name for given in inputs]
        self.states = [{one.name: np.zeros(one.shape, np.float32) for one in given[1:]} for given in inputs]

    def __call__(self, wav: torch.Tensor) -> torch.Tensor:
        codes = self.step(0, wav.numpy())
        self.step(1, codes)
        return torch.from_numpy(codes)

    def step(self, side: int, x: np.ndarray) -> np.ndarray:
        y, *after = self.sessions[side].run(None, {self.names[side]: x, **self.states[side]})
        self.states[side] = dict(zip(self.states[side], after, strict=True))
        return y


class Interpreter:
    """Lyra's own files, with int8 weights and activations in the inner layers."""

    def __init__(self, folder: str, n_q: int):
        from ai_edge_litert.interpreter import Interpreter

        self.files = [Interpreter(str(Path(folder, name)), num_threads=1) for name in lyra.FILES]
        encoder, quantizer, decoder = self.files
        self.encoder, self.decoder, self.n_q = encoder.get_signature_runner(), decoder.get_signature_runner(), n_q
        self.search, self.look_up = quantizer.get_signature_runner("encode"), quantizer.get_signature_runner("decode")

    def __call__(self, wav: torch.Tensor) -> torch.Tensor:
        z = self.encoder(input_audio=wav[0].numpy())["output_0"]
        codes = self.search(input_frames=z, num_quantizers=np.int32(self.n_q))["output_0"]
        self.decoder(input_audio=self.look_up(encoding_indices=codes)["output_0"])
        return torch.from_numpy(codes[: self.n_q].reshape(1, -1, 1).astype(np.int64))


def mimi_sides() -> tuple[Codec, dict]:
    codec, low = full_mimi(), torch.bfloat16
    sides = {"ours": Ours(codec), "ours_bf16_decoder": Ours(codec, decoder=low), "ours_bf16": Ours(codec, low, low)}
    try:
        sides["moshi"] = Moshi(codec)
    except ImportError:
        print("moshi is not installed: there is no other side", file=sys.stderr)
    return codec, sides


def lyra_sides() -> tuple[Codec, dict]:
    folder = os.environ.get("CODEC_LYRA")
    if not folder:
        sys.exit("name the folder of Lyra's three .tflite files in CODEC_LYRA")
    codec, _ = lyra.import_lyra(folder)
    sides = {"ours": Ours(codec, n_q=LYRA_LEVELS), "ours_onnx": OnnxSteps(codec, LYRA_LEVELS)}
    try:
        sides["interpreter"] = Interpreter(folder, LYRA_LEVELS)
    except ImportError:
        print("ai-edge-litert is not installed: there is no other side", file=sys.stderr)
    return codec, sides


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--frames", type=int, default=100)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--model", choices=["mimi", "lyra"], default="mimi")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    codec, sides = mimi_sides() if options.model == "mimi" else lyra_sides()
    hop, frame_rate = codec.hop_length, codec.frame_rate
    del codec
    seconds, codes = {name: [] for name in sides}, {name: [] for name in sides}
    with torch.inference_mode():
        for frame in noise((WARM + options.frames) * hop).split(hop, dim=-1):
            for name, side in sides.items():
                start = time.perf_counter()
                codes[name].append(side(frame))
                seconds[name].append(time.perf_counter() - start)
    result = machine() | {"threads": options.threads, "n": options.frames, "sides": {}}
    first, reference = seconds["ours"][WARM:], torch.cat(codes["ours"], -1)
    for name in sides:
        values = seconds[name][WARM:]
        equal = (torch.cat(codes[name], -1) == reference).float().mean((0, 2))
        ratios = [b / a for a, b in zip(first, values, strict=True)]
        result["sides"][name] = {
            "median_ms": round(1e3 * statistics.median(values), 2),
            "p99_ms": round(1e3 * sorted(values)[int(0.99 * (options.frames - 1))], 2),
            "real_time_factor": round(statistics.median(values) * frame_rate, 3),
            "times_as_long_as_ours": round(statistics.median(ratios), 2),
            "codes_equal_to_ours": [round(float(fraction), 3) for fraction in equal],
        }
    show(result)


if __name__ == "__main__":
    main()
