"""Lyra's three .tflite files with random weights, written as FlatBuffers; inner weights are int8."""

from pathlib import Path

import flatbuffers
import numpy as np
import torch
from torch import nn

from codec.checkpoints.convert.lyra import FILES
from codec.checkpoints.convert.tflite import CONV, DEPTHWISE_CONV, GATHER, TRANSPOSE_CONV
from codec.decoders.lyra import LyraDecoder
from codec.encoders.lyra import LyraEncoder
from codec.model import Codec
from codec.quantizers.rvq import RVQ

SLICE = 45
PREVIOUS = object()  # as an input: the output of the operator before
TYPES = {"float32": 0, "int32": 2, "int8": 9}


def random_lyra(folder: Path) -> Codec:
    """Write the files and return the codec of their weights."""
    torch.manual_seed(0)
    codec = Codec(LyraEncoder(), RVQ(64, 50, 46, 16), LyraDecoder(), 16000, 50).eval()
    encoder, quantizer, decoder = FILES
    (folder / encoder).write_bytes(tflite({"main": _operators(codec.encoder)}))
    (folder / decoder).write_bytes(tflite({"main": _operators(codec.decoder)}))
    (folder / quantizer).write_bytes(tflite({"decode": _lookups(codec.quantizer), "encode": []}))
    return codec


def _operators(part: nn.Module) -> list[tuple]:
    found = []
    for conv in (one for one in part.modules() if isinstance(one, nn.Conv1d | nn.ConvTranspose1d)):
        with torch.no_grad():
            inner = conv.in_channels == 256 or conv.out_channels == 256
            axis = 1 if isinstance(conv, nn.ConvTranspose1d) else 0
            scale = conv.weight.abs().amax([i for i in range(3) if i != axis]) / 127
            if inner:  # such that int8 holds them exactly
                shape = [-1 if i == axis else 1 for i in range(3)]
                conv.weight.copy_((conv.weight / scale.view(shape)).round() * scale.view(shape))
        weight, bias = conv.weight.detach().numpy(), conv.bias.detach().numpy()
        scales = scale.numpy() if inner else None
        if isinstance(conv, nn.ConvTranspose1d):
            size = conv.out_channels // conv.groups
            for n, one in enumerate(np.split(weight, conv.groups)):
                constants = [np.zeros(4, np.int32), one.transpose(1, 2, 0)[:, :, None], None, bias[n * size :][:size]]
                found.append((TRANSPOSE_CONV, constants, scales))
        elif conv.groups == conv.in_channels:
            found.append((DEPTHWISE_CONV, [None, weight.transpose(1, 2, 0)[:, :, None], bias], scales))
        else:
            found.append((CONV, [None, weight.transpose(0, 2, 1)[:, :, None], bias], scales))
    return found


def _lookups(quantizer: RVQ) -> list[tuple]:
    """Codebooks in the order of their names, as in the release: 0, 10, 11, ... 1, 20, ..."""
    found = []
    for level in sorted(range(quantizer.n_q), key=str):
        found.append((SLICE, [None, np.array([level, 0, 0], np.int32)], None))
        found.append((GATHER, [quantizer.codebooks[level].numpy(), PREVIOUS], None))
    return found


def tflite(graphs: dict[str, list[tuple]]) -> bytes:
    """Operators (code, inputs, scales of input 1), where an input is an array, None (computed) or PREVIOUS."""
    build = flatbuffers.Builder(2**20)
    buffers, codes = [_table(build, {})], sorted({kind for operators in graphs.values() for kind, _, _ in operators})
    subgraphs = []
    for name, operators in graphs.items():
        tensors, made, last = [], [], 0

        def tensor(value=None, scales=None, tensors=tensors):
            tensors.append(_tensor(build, value, scales, buffers))
            return len(tensors) - 1

        for kind, inputs, scales in operators:
            indices = []
            for i, value in enumerate(inputs):
                known = isinstance(value, np.ndarray)
                is_weight = known and i == 1 and scales is not None
                if value is PREVIOUS:
                    indices.append(last)
                else:
                    indices.append(tensor(value if known else None, scales if is_weight else None))
            last = tensor()
            fields = {0: ("<I", codes.index(kind)), 1: _numbers(build, indices), 2: _numbers(build, [last])}
            made.append(_table(build, fields))
        fields = {0: _vector(build, tensors), 3: _vector(build, made), 4: build.CreateString(name)}
        subgraphs.append(_table(build, fields))
    kinds = [_table(build, {0: ("<b", min(code, 127)), 3: ("<i", code)}) for code in codes]
    fields = {0: ("<I", 3), 1: _vector(build, kinds), 2: _vector(build, subgraphs), 4: _vector(build, buffers)}
    build.Finish(_table(build, fields), b"TFL3")
    return bytes(build.Output())


def _tensor(build, value, scales, buffers) -> int:
    fields = {}
    if value is not None:
        if scales is not None:
            axis = int(np.flatnonzero([n == len(scales) for n in value.shape])[0])
            shape = [-1 if i == axis else 1 for i in range(value.ndim)]
            value = np.round(value / scales.reshape(shape)).astype(np.int8)
            quantization = {
                2: build.CreateNumpyVector(scales),
                3: build.CreateNumpyVector(np.zeros(len(scales), "<i8")),
            }
            fields[4] = _table(build, quantization | {6: ("<i", axis)})
        buffers.append(_table(build, {0: build.CreateByteVector(np.ascontiguousarray(value).tobytes())}))
        fields[0] = _numbers(build, value.shape)
        fields[1], fields[2] = ("<b", TYPES[value.dtype.name]), ("<I", len(buffers) - 1)
    return _table(build, fields)


def _table(build, fields: dict) -> int:
    build.StartObject(8)
    add = {"<b": build.PrependInt8Slot, "<i": build.PrependInt32Slot, "<I": build.PrependUint32Slot}
    for slot, value in fields.items():
        if isinstance(value, tuple):
            add[value[0]](slot, value[1], 0)
        else:
            build.PrependUOffsetTRelativeSlot(slot, value, 0)
    return build.EndObject()


def _numbers(build, values) -> int:
    return build.CreateNumpyVector(np.array(values, "<i4"))


def _vector(build, offsets: list[int]) -> int:
    build.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        build.PrependUOffsetTRelative(offset)
    return build.EndVector()
