"""A model file is understood without loading it, and a damaged or hostile one is refused in pure Python."""

from __future__ import annotations

import hashlib
import os
import random
import struct
import time
from pathlib import Path

import pytest
from engine_support import small_model_path
from gguf_support import DEFAULT_ENTRIES, gguf

from fabstir_desktop.errors import ModelFileError
from fabstir_desktop.inference.gguf import read_header
from fabstir_desktop.inference.model_files import (
    HashCache,
    ModelFile,
    automatic_window,
    estimate_fit,
    inspect_model,
    list_models,
)


def write(folder: Path, raw: bytes, name: str = "model.gguf") -> Path:
    path = folder / name
    path.write_bytes(raw)
    return path


def without(key: str) -> list[tuple[str, str, object]]:
    return [entry for entry in DEFAULT_ENTRIES if entry[0] != key]


def test_the_small_model_is_described_as_it_is() -> None:
    model = inspect_model(small_model_path())
    assert (model.architecture, model.quantisation, model.layer_count) == ("llama", "Q4_1", 30)
    assert (model.parameter_count, model.context_length) == (134_515_008, 8192)
    assert model.has_template
    assert model.size_bytes == small_model_path().stat().st_size
    assert model.kv_bytes_per_token == 30 * 3 * (64 + 64) * 2


def test_a_file_built_by_hand_is_read(tmp_path: Path) -> None:
    model = inspect_model(write(tmp_path, gguf()))
    assert (model.name, model.quantisation, model.parameter_count) == ("Tiny", "Q4_K_M", 384)
    assert model.kv_bytes_per_token == 2 * 2 * (16 + 16) * 2


def test_without_a_stated_type_the_most_common_one_is_told(tmp_path: Path) -> None:
    assert inspect_model(write(tmp_path, gguf(without("general.file_type")))).quantisation == "F32"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "cut off"),
        (b"GGUF", "cut off"),
        (gguf(magic=b"GGML"), "no GGUF"),
        (gguf(version=1), "version 1"),
        (gguf(version=99), "version 99"),
        (gguf(tensor_count=2**60), "counts"),
        (gguf(entry_count=2**63), "counts"),
        (gguf(tensor_count=0), "counts"),
        (gguf(without("general.architecture")), "architecture"),
        (gguf([*DEFAULT_ENTRIES, ("general.alignment", "u32", 3)]), "alignment"),
        (gguf([*DEFAULT_ENTRIES, ("general.alignment", "u32", 0)]), "alignment"),
        (gguf([*DEFAULT_ENTRIES, ("general.type", "str", "adapter")]), "addition"),
        (gguf([*DEFAULT_ENTRIES, DEFAULT_ENTRIES[0]]), "twice"),
        (gguf(tensors=[("a", (64,), 0), ("a", (64,), 0)]), "twice"),
        (gguf(tensors=[("a", (1,) * 5, 0)]), "dimensions"),
        (gguf(tensors=[("a", (0,), 0)]), "shape"),
        (gguf()[:-1], "cut off"),
        (gguf()[:-100], "cut off"),
    ],
    ids=range(18),
)
def test_a_damaged_file_is_refused_with_the_reason(tmp_path: Path, raw: bytes, words: str) -> None:
    with pytest.raises(ModelFileError, match=words):
        inspect_model(write(tmp_path, raw))


def test_an_enormous_length_is_refused_without_reading_it(tmp_path: Path) -> None:
    raw = bytearray(gguf())
    place = raw.index(b"general.name") - 8
    for length in (2**63, 2**40, 2**32, 100_000):
        raw[place : place + 8] = struct.pack("<Q", length)
        with pytest.raises(ModelFileError):
            inspect_model(write(tmp_path, bytes(raw)))


def test_overflowing_shapes_are_refused(tmp_path: Path) -> None:
    raw = bytearray(gguf(tensors=[("weight", (64, 3), 0)]))
    place = raw.index(b"weight") + len("weight") + 4
    raw[place : place + 16] = struct.pack("<QQ", 2**33, 2**33)
    with pytest.raises(ModelFileError, match="shape"):
        inspect_model(write(tmp_path, bytes(raw)))


def test_5000_mutated_headers_end_quickly_and_only_with_our_error(tmp_path: Path) -> None:
    random_source = random.Random(51)
    base = gguf()
    refused = 0
    started = time.perf_counter()
    for _ in range(5000):
        raw = bytearray(base)
        for _ in range(random_source.randint(1, 4)):
            place = random_source.randrange(len(base) - 600)
            raw[place] = random_source.choice([0, 1, 255, random_source.randrange(256)])
        if random_source.random() < 0.3:
            del raw[random_source.randrange(len(raw)) :]
        try:
            inspect_model(write(tmp_path, bytes(raw)))
        except ModelFileError:
            refused += 1
    assert refused > 2000
    assert time.perf_counter() - started < 60


def test_a_folder_lists_usable_models_and_says_what_is_wrong_with_others(tmp_path: Path) -> None:
    write(tmp_path, gguf(), "b.gguf")
    write(tmp_path, b"junk", "a.gguf")
    write(tmp_path, b"text", "readme.txt")
    first, second = list_models(tmp_path)
    assert isinstance(first, ModelFileError)
    assert isinstance(second, ModelFile)
    assert second.path.name == "b.gguf"


def test_a_split_model_is_one_model_and_a_missing_part_is_named(tmp_path: Path) -> None:
    part = gguf([*DEFAULT_ENTRIES, ("split.count", "u32", 2)])
    first = write(tmp_path, part, "big-00001-of-00002.gguf")
    with pytest.raises(ModelFileError, match="big-00002-of-00002"):
        inspect_model(first)
    second = write(tmp_path, gguf([("split.count", "u32", 2)]), "big-00002-of-00002.gguf")
    model = inspect_model(first)
    assert model.parameter_count == 768
    assert model.size_bytes == first.stat().st_size + second.stat().st_size
    assert len(list_models(tmp_path)) == 1
    with pytest.raises(ModelFileError, match="choose the first"):
        inspect_model(write(tmp_path, part, "big-00002-of-00002.gguf"))


def test_the_first_part_of_a_split_model_may_hold_the_header_alone(tmp_path: Path) -> None:
    first = write(tmp_path, gguf([*DEFAULT_ENTRIES, ("split.count", "u32", 2)], ()), "big-00001-of-00002.gguf")
    second = write(tmp_path, gguf([("split.count", "u32", 2)]), "big-00002-of-00002.gguf")
    model = inspect_model(first)
    assert model.parts == (first, second)
    assert model.parameter_count == 2 * 64 * 3
    assert model.size_bytes == first.stat().st_size + second.stat().st_size


def test_a_missing_file_and_a_folder_are_said(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="does not exist"):
        inspect_model(tmp_path / "gone.gguf")
    with pytest.raises(ModelFileError, match=r"is a folder without a \.gguf file"):
        inspect_model(tmp_path)


def test_the_only_model_of_a_folder_is_taken_and_several_are_named(tmp_path: Path) -> None:
    only = write(tmp_path, gguf(), "b.gguf")
    (tmp_path / "damaged.gguf").write_bytes(b"GGUF")
    assert inspect_model(tmp_path).path == only
    write(tmp_path, gguf(), "a.gguf")
    with pytest.raises(ModelFileError, match=r"2 models: choose one of a\.gguf, b\.gguf$"):
        inspect_model(tmp_path)


def test_a_folder_with_nothing_but_damaged_files_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "damaged.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelFileError, match=r"without a \.gguf file that can be used \(damaged\.gguf"):
        inspect_model(tmp_path)


def test_the_hash_is_of_the_file_and_computed_once_until_it_changes(tmp_path: Path) -> None:
    path = write(tmp_path, gguf())
    cache = HashCache(tmp_path / "cache" / "hashes.json")
    model = inspect_model(path)
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert cache.sha256(model) == expected
    # Known: not read again, so even a cancelled reading answers.
    assert HashCache(tmp_path / "cache" / "hashes.json").sha256(model, lambda: True) == expected
    changed = gguf([*DEFAULT_ENTRIES, ("general.author", "str", "x")])
    path.write_bytes(changed)
    os.utime(path, ns=(1, 1))
    assert cache.sha256(inspect_model(path)) == hashlib.sha256(changed).hexdigest()


def test_a_damaged_hash_store_costs_one_more_reading_only(tmp_path: Path) -> None:
    store = tmp_path / "hashes.json"
    store.write_text("[not json")
    path = write(tmp_path, gguf())
    assert HashCache(store).sha256(inspect_model(path)) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert str(path) in store.read_text()


def test_reading_can_be_given_up(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="given up"):
        HashCache(None).sha256(inspect_model(write(tmp_path, gguf())), lambda: True)


def test_the_automatic_window_shrinks_where_memory_is_short() -> None:
    model = inspect_model(small_model_path())
    assert automatic_window(model, 8, 64 * 2**30) == 4096
    assert automatic_window(model, 8, 600 * 2**20) < 4096
    assert automatic_window(model, 8, 1) == 512


def test_the_estimate_counts_weights_cells_and_computation() -> None:
    model = inspect_model(small_model_path())
    fit = estimate_fit(model, 1000, 8, free_bytes=10**9)
    assert fit.cache_bytes == 23_040 * 8000
    assert fit.weights_bytes == model.size_bytes
    assert fit.fits
    assert not estimate_fit(model, 1000, 8, free_bytes=10**8).fits


def test_the_header_of_a_file_that_is_no_regular_text_keeps_no_vocabulary_in_memory(tmp_path: Path) -> None:
    header = read_header(write(tmp_path, gguf()))
    assert header.values["tokenizer.ggml.tokens"] == 3
