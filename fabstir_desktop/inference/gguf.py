"""Read and check the header of a GGUF file in pure Python, before llama.cpp's parser sees it.

Every count, length and offset is held against the file's size, so that a damaged or hostile file is refused here instead of
in C++. Tensor data is not looked at.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fabstir_desktop.errors import ModelFileError

MAGIC = b"GGUF"
MAX_TENSORS = 100_000
MAX_ENTRIES = 100_000
MAX_KEY_BYTES = 65_535
MAX_NAME_BYTES = 1024
MAX_HEADER_BYTES = 256 * 1024 * 1024
MAX_DIMENSIONS = 4
MAX_ELEMENTS = 2**60
DEFAULT_ALIGNMENT = 32

_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRUCT_BY_TYPE = {kind: struct.Struct(layout) for kind, layout in _SCALARS.items()}

# ggml's types: name, elements a block, bytes a block.
TENSOR_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
}

Value = int | float | bool | str | list[int] | list[float] | None


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's description: `size_bytes` of its data, `elements` in it."""

    name: str
    type_name: str
    elements: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """What the header says. Arrays of strings are checked, but only their length is kept (as an int)."""

    version: int
    values: dict[str, Value]
    tensors: tuple[Tensor, ...]
    data_offset: int
    file_size: int

    def text(self, key: str, default: str = "") -> str:
        """A string entry, or the default."""
        value = self.values.get(key)
        return value if isinstance(value, str) else default

    def number(self, key: str) -> int | None:
        """A whole-number entry; of a list (one value a layer) the largest; None if there is none."""
        value = self.values.get(key)
        if isinstance(value, bool):
            return None
        if isinstance(value, list):
            whole = [part for part in value if isinstance(part, int)]
            return max(whole, default=None)
        return value if isinstance(value, int) else None


def read_header(path: Path) -> Header:
    """Read and check the header. Raises ModelFileError with what is wrong; blocks on disk."""
    try:
        size = path.stat().st_size
        with path.open("rb", buffering=1 << 20) as file:
            return _HeaderReader(file, size, path.name).read()
    except OSError as error:
        raise ModelFileError(f"{path.name} cannot be read: {error.strerror or type(error).__name__}") from error


class _HeaderReader:
    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        self._file = file
        self._size = size
        self._name = name
        self._at = 0

    def read(self) -> Header:
        if self._take(4) != MAGIC:
            raise self._bad("it is no GGUF file")
        version = self._u32()
        if version not in (2, 3):
            raise self._bad(f"its GGUF version {version & 0xFFFF} is not supported")
        tensor_count, entry_count = self._u64(), self._u64()
        if tensor_count > MAX_TENSORS or entry_count > MAX_ENTRIES:
            raise self._bad("its counts of tensors or entries are out of range")
        values: dict[str, Value] = {}
        for _ in range(entry_count):
            key = self._string(MAX_KEY_BYTES)
            if key in values:
                raise self._bad("an entry occurs twice")
            values[key] = self._value(self._u32())
        if tensor_count == 0 and not _is_split(values):
            raise self._bad("its counts of tensors or entries are out of range")
        alignment = values.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or not 8 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            raise self._bad("its alignment is no sensible power of two")
        described = [self._tensor() for _ in range(tensor_count)]
        data_offset = math.ceil(self._at / alignment) * alignment
        self._check_layout(described, data_offset, alignment)
        return Header(version, values, tuple(tensor for tensor, _ in described), data_offset, self._size)

    def _check_layout(self, described: list[tuple[Tensor, int]], data_offset: int, alignment: int) -> None:
        names = {tensor.name for tensor, _ in described}
        if len(names) != len(described):
            raise self._bad("a tensor occurs twice")
        end = 0
        for tensor, offset in sorted(described, key=lambda item: item[1]):
            if offset % alignment or offset < end:
                raise self._bad("its tensors overlap or are not aligned")
            end = offset + tensor.size_bytes
            if data_offset + end > self._size:
                raise self._bad("it is cut off: tensor data lies beyond the end of the file")

    def _tensor(self) -> tuple[Tensor, int]:
        name = self._string(MAX_NAME_BYTES)
        dimensions = self._u32()
        if not 0 < dimensions <= MAX_DIMENSIONS:
            raise self._bad("a tensor has an impossible number of dimensions")
        shape = [self._u64() for _ in range(dimensions)]
        elements = 1
        for length in shape:
            elements *= length
            if length == 0 or elements > MAX_ELEMENTS:
                raise self._bad("a tensor has an impossible shape")
        kind = self._u32()
        if kind not in TENSOR_TYPES:
            raise self._bad(f"a tensor has the unknown type {kind}")
        type_name, block_elements, block_bytes = TENSOR_TYPES[kind]
        if shape[0] % block_elements:
            raise self._bad("a tensor's rows do not fit its type")
        return Tensor(name, type_name, elements, elements // block_elements * block_bytes), self._u64()

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array()
        layout = _STRUCT_BY_TYPE.get(kind)
        if layout is None:
            raise self._bad(f"an entry has the unknown type {kind}")
        if kind == _BOOL:
            return self._take(1) != b"\0"
        value: int | float = layout.unpack(self._take(layout.size))[0]
        return value

    def _array(self) -> Value:
        kind, count = self._u32(), self._u64()
        if kind == _STRING:
            if count * 8 > self._size - self._at:
                raise self._bad("a list is longer than the file")
            for _ in range(count):
                self._take(self._length(MAX_HEADER_BYTES))
            return count
        layout = _STRUCT_BY_TYPE.get(kind)
        if layout is None:
            raise self._bad("a list has an unknown or nested type")
        if count * layout.size > self._size - self._at:
            raise self._bad("a list is longer than the file")
        raw = self._take(count * layout.size)
        if count > 4096:  # a vocabulary's scores and types: nobody here asks for them
            return count
        return [part[0] for part in layout.iter_unpack(raw)]

    def _string(self, limit: int = MAX_HEADER_BYTES) -> str:
        return self._take(self._length(limit)).decode("utf-8", errors="replace")

    def _length(self, limit: int) -> int:
        length = self._u64()
        if length > limit:
            raise self._bad("a text in its header is too long")
        return length

    def _u32(self) -> int:
        return int.from_bytes(self._take(4), "little")

    def _u64(self) -> int:
        return int.from_bytes(self._take(8), "little")

    def _take(self, count: int) -> bytes:
        if count > self._size - self._at:
            raise self._bad("it is cut off in its header")
        self._at += count
        if self._at > MAX_HEADER_BYTES:
            raise self._bad("its header is too large")
        raw = self._file.read(count)
        if len(raw) != count:
            raise self._bad("it became shorter while it was read")
        return raw

    def _bad(self, what: str) -> ModelFileError:
        return ModelFileError(f"{self._name} cannot be used: {what}")


def _is_split(values: dict[str, Value]) -> bool:
    """Whether the file is one part of several: the first may hold the header alone."""
    count = values.get("split.count")
    return isinstance(count, int) and count > 1
