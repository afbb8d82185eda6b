"""A checkpoint file looked at before torch reads it, so that it costs no more memory than it has bytes.

With ``weights_only=True`` torch runs nothing of a file, but it calls what the file names among 150 types, and
``bytearray(10**12)`` or ``torch.Tensor(10**12)`` fit in a few bytes. So this follows the file's values from instruction
to instruction, as torch will, and lets pass what `torch.save` writes of tensors and plain values: nothing is called but
what makes a tensor, a parameter or an empty ``OrderedDict``, and nothing is copied again and again.
"""

import re
import zipfile
from pathlib import Path
from pickletools import genops

import torch

MAGIC = b"PK\x03\x04"  # without it, torch takes a file for one of its older forms
MOST_BYTES = 2**22  # of the values without the tensors: 0.25 MB is usual; an instruction of a byte can make 70
MOST_CALLS = 2**16  # two for a tensor
LONGEST = 640  # of a tuple, which may become the shape of many tensors; Python's random state has 625 numbers

DICT, NO_ARGUMENTS, AGAIN, VALUE = "collections OrderedDict", "()", "again", ""
CALLED = {DICT, "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"}
NAMED = re.compile(  # never called: what is in a storage, and types of numbers
    r"torch (?:(?:Float|Double|Half|BFloat16|Long|Int|Short|Char|Byte|Bool|ComplexFloat|ComplexDouble)Storage"
    r"|b?float(?:16|32|64)|u?int(?:8|16|32|64)|bool|complex(?:64|128))"
)
PLAIN = {"NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
PLAIN |= {"EMPTY_DICT", "EMPTY_LIST"}
TAKEN = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "BINPERSID": 1, "APPEND": 1, "SETITEM": 2}  # from the stack
FILLED = ("APPEND", "SETITEM", "APPENDS", "SETITEMS")  # what is below it on the stack


def check_archive(path: str | Path) -> None:
    """Raises ValueError, or zipfile's error, for what is no archive of torch.save's, or would grow in memory."""
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
    """Raises ValueError for values that name or do anything but what the module allows."""
    if len(record) > MOST_BYTES:
        raise ValueError(f"its values without the tensors have {len(record):,} bytes, more than {MOST_BYTES:,}")
    try:
        _follow(record)
    except (IndexError, KeyError):  # it takes from an empty stack, or what was never kept
        raise ValueError("its values are damaged") from None


def _follow(record: bytes) -> None:
    stack: list[str] = []  # of each value what has to be known of it: a name, one of the constants above
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
        elif kind in TAKEN or kind in ("TUPLE", "APPENDS", "SETITEMS"):
            count = TAKEN[kind] if kind in TAKEN else len(stack) - marks.pop()
            if kind == "TUPLE" and count > LONGEST:
                raise ValueError(f"it has a tuple of {count:,} values")
            if count > len(stack):
                raise IndexError
            del stack[len(stack) - count :]
            if kind not in FILLED:
                stack.append(VALUE)
        elif kind == "REDUCE":
            arguments, called = stack.pop(), stack.pop()
            calls += 1
            if called not in CALLED or (called == DICT and arguments != NO_ARGUMENTS) or calls > MOST_CALLS:
                raise ValueError("it makes other values than tensors and plain ones, or too many")
            stack.append(VALUE)
        elif kind == "BUILD":  # of a state_dict's OrderedDict; torch copies what it is given
            if stack.pop() == AGAIN:
                raise ValueError("it copies a value again")
        elif kind not in ("PROTO", "STOP"):
            raise ValueError(f"it says {kind}, as no checkpoint does")
