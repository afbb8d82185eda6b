"""Reader of the constant tensors in a TensorFlow Lite file, a FlatBuffer; nothing in the file is executed.

Field numbers are those of TensorFlow's ``schema.fbs`` (version 3), which only ever grows.
"""

import struct
from typing import NamedTuple

import numpy as np

from codec.checkpoints.safe_instantiate import CheckpointError

CONV, DEPTHWISE_CONV, GATHER, TRANSPOSE_CONV = 3, 4, 36, 67  # codes of operators with constants
DTYPES = {0: "<f4", 2: "<i4", 9: "<i1"}
MOST_TABLES, MOST_GRAPHS, MOST_ENDS = 4096, 4, 256  # in a vector, in a file, and inputs or outputs of an operator


class Operator(NamedTuple):
    """An operator with the indices of its input and output tensors, and the values of its constant inputs."""

    kind: int
    inputs: list[int]
    outputs: list[int]
    constants: dict[int, np.ndarray]  # position among the inputs -> float32 or int32 array, dequantized


class Table:
    """A FlatBuffer table at ``position`` in ``data``."""

    def __init__(self, data: bytes, position: int):
        self.data, self.position = data, position
        self.fields = position - self._read("<i", position)

    def _read(self, kind: str, position: int) -> int:
        if position < 0:
            raise ValueError("an offset lies before the file")
        return struct.unpack_from(kind, self.data, position)[0]

    def _at(self, field: int) -> int | None:
        entry = 4 + 2 * field
        offset = self._read("<H", self.fields + entry) if entry < self._read("<H", self.fields) else 0
        return self.position + offset if offset else None

    def number(self, field: int, kind: str = "<i") -> int:
        """A scalar; 0 if absent."""
        return 0 if (at := self._at(field)) is None else self._read(kind, at)

    def array(self, field: int, dtype: str) -> np.ndarray:
        """A vector of scalars; empty if absent."""
        if (at := self._at(field)) is None:
            return np.empty(0, dtype)
        at += self._read("<I", at)
        return np.frombuffer(self.data, dtype, self._read("<I", at), at + 4)

    def table(self, field: int) -> "Table | None":
        at = self._at(field)
        return None if at is None else Table(self.data, at + self._read("<I", at))

    def tables(self, field: int) -> list["Table"]:
        at = self._at(field)
        if at is None:
            return []
        start = at + self._read("<I", at) + 4
        offsets = self.array(field, "<u4").tolist()
        if len(offsets) > MOST_TABLES:  # which may all be the same one
            raise ValueError(f"it has {len(offsets):,} entries in one list")
        return [Table(self.data, start + 4 * i + offset) for i, offset in enumerate(offsets)]


def read_tflite(data: bytes, name: str) -> dict[str, list[Operator]]:
    """The operators of each subgraph in order of execution, with constants as arrays; int8 weights are dequantized.

    Raises CheckpointError, with the file's ``name``, for damaged and other files.
    """
    if data[4:8] != b"TFL3":
        raise CheckpointError(f"{name} is no TensorFlow Lite file: it does not begin as one")
    try:
        model = Table(data, struct.unpack_from("<I", data)[0])
        kinds = [max(code.number(0, "<b"), code.number(3)) for code in model.tables(1)]
        buffers, graphs = model.tables(4), model.tables(2)[:MOST_GRAPHS]
        return {graph.array(4, "<u1").tobytes().decode(): _operators(graph, kinds, buffers) for graph in graphs}
    except (struct.error, ValueError, LookupError, UnicodeDecodeError, RecursionError, MemoryError) as error:
        raise CheckpointError(f"{name} is a damaged TensorFlow Lite file ({str(error)[:100]}): copy it again") from None


def _operators(graph: Table, kinds: list[int], buffers: list[Table]) -> list[Operator]:
    values = _constants(graph.tables(0), buffers)
    found = []
    for operator in graph.tables(3):
        inputs, outputs = (operator.array(field, "<i4")[:MOST_ENDS].tolist() for field in (1, 2))
        constants = {i: values[index] for i, index in enumerate(inputs) if index in values}
        found.append(Operator(kinds[operator.number(0, "<I")], inputs, outputs, constants))
    return found


def _constants(tensors: list[Table], buffers: list[Table]) -> dict[int, np.ndarray]:
    """Number of a tensor -> its value; all of them have little more elements than the file bytes, as buffers are
    shared by small tensors only."""
    values, count = {}, 0
    for number, tensor in enumerate(tensors):
        if (value := _constant(tensor, buffers)) is not None:
            values[number] = value
            count += value.size
            if count > 2 * len(tensor.data):
                raise ValueError("its tensors share more bytes than it has")
    return values


def _constant(tensor: Table, buffers: list[Table]) -> np.ndarray | None:
    """The value of a tensor, dequantized; None if it is computed, or of a type that no weight has."""
    raw, dtype = buffers[tensor.number(2, "<I")].array(0, "<u1"), DTYPES.get(tensor.number(1, "<b"))
    if not len(raw) or dtype is None:
        return None
    shape = tensor.array(0, "<i4").tolist()
    values = raw.view(dtype).reshape(shape)
    quantization = tensor.table(4)
    scale = quantization.array(2, "<f4") if quantization else ()
    if not len(scale):
        return values
    axes, axis = [1] * len(shape), quantization.number(6)
    zero = quantization.array(3, "<i8")
    if len(zero) != len(scale) or len(scale) not in (1, shape[axis]):
        raise ValueError("its scales do not fit its weights")
    axes[axis] = -1
    zero = zero.reshape(axes)
    return (values - zero).astype(np.float32) * scale.reshape(axes)
