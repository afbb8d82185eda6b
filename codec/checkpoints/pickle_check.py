"""A check, before torch.load, that a checkpoint file cannot allocate far more memory than its size.

``weights_only=True`` allows calls of 150 types, such as ``bytearray(10**12)``. This check follows the pickle by
instruction and allows only calls that make a tensor, a parameter or an empty ``OrderedDict``, and no repeated copies.
"""

import re
import zipfile
from pathlib import Path
from pickletools import genops

import torch

MAGIC = b"PK\x03\x04"  # without it, torch reads a file as one of its older formats
MAX_BYTES = 2**22  # of the values without the tensors, usually 0.25 MB; one byte of pickle can allocate 70 bytes
MAX_CALLS = 2**16  # two for a tensor
MAX_TUPLE = 640  # elements; a tuple may become the shape of many tensors. Python's random state has 625 numbers

DICT, NO_ARGUMENTS, AGAIN, VALUE = "collections OrderedDict", "()", "again", ""
CALLED = {DICT, "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"}
NAMED = re.compile(  # never called: storages and dtypes
    r"torch (?:(?:Float|Double|Half|BFloat16|Long|Int|Short|Char|Byte|Bool|ComplexFloat|ComplexDouble)Storage"
    r"|b?float(?:16|32|64)|u?int(?:8|16|32|64)|bool|complex(?:64|128))"
)
PLAIN = {"NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
PLAIN |= {"EMPTY_DICT", "EMPTY_LIST"}
POPPED = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "BINPERSID": 1, "APPEND": 1, "SETITEM": 2}  # from the stack
FILLED = ("APPEND", "SETITEM", "APPENDS", "SETITEMS")  # the value below on the stack is changed


def check_archive(path: str | Path) -> None:
    """Raises ValueError, or zipfile's error, for a file that torch.save cannot have written (compressed, say)."""
    with open(path, "rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError("it does not begin as a checkpoint does")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.file_size > entry.compress_size for entry in entries):
        raise ValueError("it is compressed, as no checkpoint is")
    if sum(entry.file_size for entry in entries) > Path(path).stat().st_size:
        raise ValueError("its parts overlap")
    check_values(torch._C.PyTorchFileReader(str(path)).get_record("data.pkl"))  # what torch.load will read


def check_values(record: bytes) -> None:
    """Raises ValueError for a pickle with instructions or names that tensors and plain values do not need."""
    if len(record) > MAX_BYTES:
        raise ValueError(f"its values without the tensors have {len(record):,} bytes, more than {MAX_BYTES:,}")
    try:
        _follow(record)
    except (IndexError, KeyError):  # an empty stack, or an empty place of the memo
        raise ValueError("its values are damaged") from None


def _follow(record: bytes) -> None:
    stack: list[str] = []  # of each value its name, or one of the constants above
    marks: list[int] = []
    memo: dict[int, str] = {}
    calls = 0
    for instruction, argument, _ in genops(record):
        kind = instruction.name
        if kind in PLAIN:
            stack.append(VALUE)
        elif kind == "EMPTY_TUPLE":
            stack.append(NO_ARGUMENTS)
        elif kind == "GLOBAL":
            if argument not in CALLED and not NAMED.fullmatch(argument):
                raise ValueError(f"it names {argument.replace(' ', '.')[:100]!r}, neither a tensor nor a plain value")
            stack.append(argument)
        elif kind in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif kind in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument] if memo[argument] in CALLED else AGAIN)
        elif kind == "MARK":
            marks.append(len(stack))
        elif kind in POPPED or kind in ("TUPLE", "APPENDS", "SETITEMS"):
            count = POPPED[kind] if kind in POPPED else len(stack) - marks.pop()
            if kind == "TUPLE" and count > MAX_TUPLE:
                raise ValueError(f"it has a tuple of {count:,} values")
            if count > len(stack):
                raise IndexError
            del stack[len(stack) - count :]
            if kind not in FILLED:
                stack.append(VALUE)
        elif kind == "REDUCE":
            arguments, called = stack.pop(), stack.pop()
            calls += 1
            if called not in CALLED or (called == DICT and arguments != NO_ARGUMENTS) or calls > MAX_CALLS:
                raise ValueError("it makes other values than tensors and plain ones, or too many")
            stack.append(VALUE)
        elif kind == "BUILD":  # the attributes of a state_dict's OrderedDict, which torch copies
            if stack.pop() == AGAIN:
                raise ValueError("it copies a value again")
        elif kind not in ("PROTO", "STOP"):
            raise ValueError(f"it has the instruction {kind}, as no checkpoint does")
