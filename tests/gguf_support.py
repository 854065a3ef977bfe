"""Small GGUF files built by hand, so that each of their bytes can be made wrong."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

_KINDS = {"u32": 4, "f32": 6, "bool": 7, "str": 8, "arr_str": -8, "arr_u32": -4, "u64": 10}


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def entry(key: str, kind: str, value: Any) -> bytes:
    code = _KINDS[kind]
    head = text(key) + struct.pack("<I", 9 if code < 0 else code)
    if kind == "arr_str":
        return head + struct.pack("<IQ", 8, len(value)) + b"".join(map(text, value))
    if kind == "arr_u32":
        return head + struct.pack("<IQ", 4, len(value)) + struct.pack(f"<{len(value)}I", *value)
    body = {"u32": "<I", "f32": "<f", "bool": "<?", "u64": "<Q"}.get(kind)
    return head + (text(value) if body is None else struct.pack(body, value))


DEFAULT_ENTRIES: tuple[tuple[str, str, Any], ...] = (
    ("general.architecture", "str", "llama"),
    ("general.name", "str", "Tiny"),
    ("general.file_type", "u32", 15),
    ("llama.context_length", "u32", 2048),
    ("llama.block_count", "u32", 2),
    ("llama.embedding_length", "u32", 64),
    ("llama.attention.head_count", "u32", 4),
    ("llama.attention.head_count_kv", "arr_u32", [2, 2]),
    ("tokenizer.chat_template", "str", "{{ messages }}"),
    ("tokenizer.ggml.tokens", "arr_str", ["<s>", "a", "b"]),
)


def gguf(
    entries: Sequence[tuple[str, str, Any]] = DEFAULT_ENTRIES,
    tensors: Sequence[tuple[str, Sequence[int], int]] = (("token_embd.weight", (64, 3), 0), ("out.weight", (64, 3), 1)),
    *,
    version: int = 3,
    magic: bytes = b"GGUF",
    tensor_count: int | None = None,
    entry_count: int | None = None,
) -> bytes:
    """A file; tensors are (name, shape, type 0 = F32 or 1 = F16), their data zeros."""
    head = magic + struct.pack(
        "<IQQ",
        version,
        len(tensors) if tensor_count is None else tensor_count,
        len(entries) if entry_count is None else entry_count,
    )
    head += b"".join(entry(*one) for one in entries)
    offset, data = 0, b""
    for name, shape, kind in tensors:
        head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        head += struct.pack("<IQ", kind, offset)
        size = 4 if kind == 0 else 2
        for length in shape:
            size *= length
        data += bytes(size + -size % 32)
        offset = len(data)
    return head + bytes(-len(head) % 32) + data
