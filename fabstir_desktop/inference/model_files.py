"""Model files: what is in one, what is in a folder, will it fit, and its SHA-256. Nothing is loaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from fabstir_desktop.errors import ModelFileError
from fabstir_desktop.inference.gguf import Header, read_header

DEFAULT_WINDOW_TOKENS = 4096
SMALLEST_WINDOW_TOKENS = 512
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip
_READ_BYTES = 4 * 1024 * 1024
_MEMORY_SHARE = 0.8
_NAMED = 5
"""Models of a folder that are named in a sentence."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A GGUF model as its header describes it. `size_bytes` is over all parts; `kv_bytes_per_token` at 16 bit."""

    path: Path
    name: str
    architecture: str
    parameter_count: int
    quantisation: str
    context_length: int
    layer_count: int
    has_template: bool
    size_bytes: int
    kv_bytes_per_token: int
    parts: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class FitEstimate:
    """Will it fit: bytes for weights, KV cache and computation, against the memory that is free now."""

    weights_bytes: int
    cache_bytes: int
    computation_bytes: int
    free_bytes: int

    @property
    def needed_bytes(self) -> int:
        """All together."""
        return self.weights_bytes + self.cache_bytes + self.computation_bytes

    @property
    def fits(self) -> bool:
        """Whether it fits into what is free now."""
        return self.needed_bytes <= self.free_bytes


def inspect_model(path: Path | str) -> ModelFile:
    """Read what a model file says of itself, and check its header; of a folder, that of the only model in it.

    Raises ModelFileError; blocks on disk.
    """
    path = Path(path).expanduser().absolute()
    if path.is_dir():
        return _only_model(path)
    if not path.is_file():
        raise ModelFileError(f"{path.name} does not exist")
    header = read_header(path)
    parts, headers = _parts(path, header)
    architecture = header.text("general.architecture")
    if not architecture:
        raise ModelFileError(f"{path.name} cannot be used: it does not name its architecture")
    if header.text("general.type", "model") != "model":
        raise ModelFileError(f"{path.name} is no model of its own, but an addition to one")
    return ModelFile(
        path=path,
        name=header.text("general.name") or path.stem,
        architecture=architecture,
        parameter_count=sum(tensor.elements for part in headers for tensor in part.tensors),
        quantisation=_quantisation(headers),
        context_length=header.number(f"{architecture}.context_length") or 0,
        layer_count=header.number(f"{architecture}.block_count") or 0,
        has_template=bool(header.text("tokenizer.chat_template")),
        size_bytes=sum(part.file_size for part in headers),
        kv_bytes_per_token=_kv_bytes_per_token(header, architecture),
        parts=parts,
    )


def list_models(folder: Path) -> list[ModelFile | ModelFileError]:
    """All GGUF models in a folder (further parts of a split one are not listed), by name; what cannot be used as its error."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".gguf")
    except OSError as error:
        raise ModelFileError(f"{folder.name} cannot be read: {error.strerror or type(error).__name__}") from error
    found: list[ModelFile | ModelFileError] = []
    for path in paths:
        shard = _SHARD.search(path.name)
        if shard and int(shard.group(1)) != 1:
            continue
        try:
            found.append(inspect_model(path))
        except ModelFileError as error:
            error.file_name = path.name
            found.append(error)
    return found


def _only_model(folder: Path) -> ModelFile:
    """The one usable model in a folder. Raises ModelFileError, which names the choice where there is more than one."""
    listed = list_models(folder)
    usable = [model for model in listed if isinstance(model, ModelFile)]
    if len(usable) == 1:
        return usable[0]
    if usable:
        names = ", ".join(model.path.name for model in usable[:_NAMED])
        more = f" and {len(usable) - _NAMED} more" if len(usable) > _NAMED else ""
        raise ModelFileError(f"{folder.name} is a folder with {len(usable)} models: choose one of {names}{more}")
    unusable = f" that can be used ({listed[0]})" if listed else ""
    raise ModelFileError(f"{folder.name} is a folder without a .gguf file{unusable}")


def estimate_fit(model: ModelFile, window_tokens: int, streams: int, free_bytes: int | None = None) -> FitEstimate:
    """How much memory `streams` conversations of `window_tokens` need. `free_bytes`: asked of the system if not given."""
    free = psutil.virtual_memory().available if free_bytes is None else free_bytes
    computation = 64 * 1024 * 1024 + model.size_bytes // 20
    return FitEstimate(model.size_bytes, model.kv_bytes_per_token * window_tokens * streams, computation, free)


def automatic_window(model: ModelFile, streams: int, free_bytes: int | None = None) -> int:
    """The context a stream gets when the host chose none: what the model knows, up to 4096, less where memory is short."""
    free = psutil.virtual_memory().available if free_bytes is None else free_bytes
    window = min(model.context_length or DEFAULT_WINDOW_TOKENS, DEFAULT_WINDOW_TOKENS)
    while window > SMALLEST_WINDOW_TOKENS:
        if estimate_fit(model, window, streams, free).needed_bytes <= free * _MEMORY_SHARE:
            break
        window = max(window // 2, SMALLEST_WINDOW_TOKENS)
    return window


class HashCache:
    """SHA-256 of model files, remembered in `store` by path, size, time and inode. Blocks on disk: call it in a thread."""

    def __init__(self, store: Path | None) -> None:
        self._store = store

    def sha256(self, model: ModelFile, is_cancelled: Callable[[], bool] = lambda: False) -> str:
        """Hex SHA-256 over the file (over all parts in order). Raises ModelFileError if it changes meanwhile or vanishes."""
        try:
            before = self._stamp(model)
            known = self._read().get(str(model.path))
            if isinstance(known, dict) and known.get("stamp") == before and isinstance(known.get("sha256"), str):
                return str(known["sha256"])
            digest = self._compute(model, is_cancelled)
            if self._stamp(model) != before:
                raise ModelFileError(f"{model.path.name} changed while it was read")
        except OSError as error:
            raise ModelFileError(f"{model.path.name} cannot be read: {error.strerror}") from error
        self._remember(str(model.path), before, digest)
        return digest

    @staticmethod
    def _compute(model: ModelFile, is_cancelled: Callable[[], bool]) -> str:
        digest = hashlib.sha256()
        for part in model.parts:
            with part.open("rb", buffering=0) as file:
                while block := file.read(_READ_BYTES):
                    digest.update(block)
                    if is_cancelled():
                        raise ModelFileError("the reading of the model was given up")
        return digest.hexdigest()

    @staticmethod
    def _stamp(model: ModelFile) -> list[list[int]]:
        stats = [part.stat() for part in model.parts]
        return [[stat.st_size, stat.st_mtime_ns, stat.st_ino] for stat in stats]

    def _read(self) -> dict[str, object]:
        try:
            stored = json.loads(self._store.read_text("utf-8")) if self._store is not None else {}
        except (OSError, ValueError):
            return {}  # a lost or damaged cache costs one more reading, nothing else
        return stored if isinstance(stored, dict) else {}

    def _remember(self, path: str, stamp: list[list[int]], digest: str) -> None:
        if self._store is None:
            return
        stored = self._read()
        stored[path] = {"stamp": stamp, "sha256": digest}
        temporary = self._store.with_suffix(".tmp")
        try:
            self._store.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(stored, indent=1), "utf-8")
            temporary.replace(self._store)
        except OSError:
            return  # as above


def _parts(path: Path, header: Header) -> tuple[tuple[Path, ...], list[Header]]:
    """All files of a split model; raises ModelFileError if one is missing."""
    count = header.number("split.count") or 1
    if count <= 1:
        return (path,), [header]
    shard = _SHARD.search(path.name)
    if shard is None or int(shard.group(2)) != count or count > 1000:
        raise ModelFileError(f"{path.name} cannot be used: it is one of {count} parts, but its name does not say which")
    if int(shard.group(1)) != 1:
        raise ModelFileError(f"{path.name} is part {int(shard.group(1))} of {count}: choose the first part")
    stem = path.name[: shard.start()]
    parts = tuple(path.with_name(f"{stem}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1))
    return parts, [header, *(read_header(part) for part in parts[1:])]


def _quantisation(headers: list[Header]) -> str:
    """As the file says; else the type that most of its bytes have."""
    stated = headers[0].number("general.file_type")
    if stated is not None and stated in _FILE_TYPES:
        return _FILE_TYPES[stated]
    sizes: Counter[str] = Counter()
    for header in headers:
        for tensor in header.tensors:
            sizes[tensor.type_name] += tensor.size_bytes
    return sizes.most_common(1)[0][0]


def _kv_bytes_per_token(header: Header, architecture: str) -> int:
    """Two 16 bit vectors a layer; models with fewer cells in some layers need less than this."""
    layers = header.number(f"{architecture}.block_count") or 0
    heads = header.number(f"{architecture}.attention.head_count") or 1
    kv_heads = header.number(f"{architecture}.attention.head_count_kv") or heads
    width = header.number(f"{architecture}.embedding_length") or 0
    key_length = header.number(f"{architecture}.attention.key_length") or width // heads
    value_length = header.number(f"{architecture}.attention.value_length") or width // heads
    return layers * kv_heads * (key_length + value_length) * 2
