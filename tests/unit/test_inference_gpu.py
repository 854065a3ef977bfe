"""Layers go to the GPU as far as its memory reaches, and what does not is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir_desktop.inference import loop, machine, wire
from fabstir_desktop.inference.gpu import ALL_LAYERS, Device, Needs, layer_attempts, layers_that_fit, shortfall
from fabstir_desktop.inference.lanes import Lanes
from fabstir_desktop.inference.llama import LlamaError, OutOfMemory

GIB = 1024**3
NEEDS = Needs(8 * GIB, 1 * GIB, 32)
LARGE, SMALL = Device("large", 24 * GIB, 24 * GIB), Device("small", 5 * GIB, 8 * GIB)


def test_without_a_gpu_everything_runs_on_the_cpu() -> None:
    assert layer_attempts(None, [], NEEDS) == [0]
    assert layer_attempts(20, [], NEEDS) == [0]


def test_what_the_host_chose_is_tried_alone() -> None:
    assert layer_attempts(20, [SMALL], NEEDS, failures=3) == [20]
    assert layer_attempts(0, [LARGE], NEEDS) == [0]


def test_a_model_that_fits_goes_there_whole_and_falls_back_step_by_step() -> None:
    assert layer_attempts(None, [LARGE], NEEDS) == [ALL_LAYERS, 24, 16, 8, 0]


def test_a_model_that_does_not_fit_begins_with_what_does() -> None:
    first, *rest = layer_attempts(None, [SMALL], NEEDS)
    assert 8 < first < 32
    assert rest == [part for part in (24, 16, 8, 0) if part < first]


def test_two_devices_take_what_one_cannot() -> None:
    assert layer_attempts(None, [SMALL, SMALL], NEEDS)[0] == ALL_LAYERS


def test_each_death_in_loading_takes_an_attempt_away_until_the_cpu_is_left() -> None:
    attempts = [layer_attempts(None, [LARGE], NEEDS, failures)[0] for failures in range(8)]
    assert attempts == [ALL_LAYERS, 24, 16, 8, 0, 0, 0, 0]


@given(st.integers(0, 200 * GIB), st.integers(0, 100 * GIB), st.integers(1, 200), st.integers(0, 100 * GIB))
def test_what_is_planned_fits(weights: int, cache: int, layers: int, free: int) -> None:
    needs = Needs(weights, cache, layers)
    planned = layers_that_fit(needs, free)
    assert planned == ALL_LAYERS or 0 <= planned <= layers
    if planned == ALL_LAYERS:
        assert needs.all_bytes <= free
    else:
        assert planned * (needs.all_bytes // (layers + 1)) <= free


@pytest.mark.parametrize(
    ("wanted", "offloaded", "devices", "has_gpu", "words"),
    [
        (None, 33, [LARGE], True, ""),
        (None, 21, [SMALL], True, "needs 9.0 GiB, 5.0 GiB of GPU memory were free: 11 of 32 layers run on the CPU"),
        (None, 0, [SMALL], True, "32 of 32 layers run on the CPU"),
        (16, 16, [SMALL], True, ""),
        (16, 8, [SMALL], True, "8 of 16 layers run on the CPU"),
        (99, 33, [LARGE], True, ""),
        (0, 0, [LARGE], True, ""),
        (None, 0, [], True, "cannot use it: all layers run on the CPU"),
        (None, 0, [], False, ""),
        (20, 0, [], False, "20 layers are wanted on the GPU"),
    ],
)
def test_layers_that_are_not_where_they_should_be_are_said(
    wanted: int | None, offloaded: int, devices: list[Device], has_gpu: bool, words: str
) -> None:
    text = shortfall(wanted, offloaded, devices, NEEDS, machine_has_gpu=has_gpu)
    assert words in text
    assert bool(words) == bool(text)


class FakeModel:
    """A model of which so many layers fit, and the context beside so many."""

    tried: list[int]
    trained_window, layer_count = 4096, 32

    @staticmethod
    def longest_word() -> int:
        return 8

    def __init__(self, _path: str, *, gpu_layers: int, progress: Callable[[float], None]) -> None:
        type(self).tried.append(gpu_layers)
        self.layers = 32 if gpu_layers < 0 else gpu_layers
        self.is_closed = False
        if self.layers > 24:
            raise LlamaError("llama.cpp cannot load this file")

    def close(self) -> None:
        self.is_closed = True


class FakeCore:
    window = 2048

    def __init__(self, model: FakeModel, *_: object) -> None:
        if model.layers > 8:
            raise OutOfMemory("there is not enough memory for the context")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[..., loop.Loaded]:
    FakeModel.tried = []
    monkeypatch.setattr(loop, "LlamaModel", FakeModel)
    monkeypatch.setattr(loop, "EngineCore", FakeCore)
    monkeypatch.setattr(loop, "Preparer", lambda *_: SimpleNamespace(common_prefix=list))
    monkeypatch.setattr(loop, "LlamaLog", lambda: SimpleNamespace(offloaded_layers=0))
    monkeypatch.setattr(loop, "gpu_devices", lambda: [LARGE])

    def run(**changes: Any) -> loop.Loaded:
        fields = {"weights_bytes": 8 * GIB, "cache_bytes": GIB, "layer_count": 32, **changes}
        return loop.load_model(
            wire.Load("/m", 2048, 8, changes.pop("gpu_layers", None), 2, 0, **fields), lambda _: None
        )

    return run


def test_weights_or_a_context_that_do_not_fit_are_tried_with_fewer_layers_and_the_shortfall_is_told(
    load: Callable[..., loop.Loaded],
) -> None:
    ready = load().ready
    assert FakeModel.tried == [ALL_LAYERS, 24, 16, 8]
    assert "32 of 32 layers run on the CPU" in ready.warning  # the fake log saw none of them go
    assert ready.gpu_free_bytes == LARGE.free_bytes


def test_after_deaths_in_loading_the_next_worker_begins_with_fewer_layers(load: Callable[..., loop.Loaded]) -> None:
    load(failed_loads=3)
    assert FakeModel.tried == [8]


def test_a_number_that_the_host_chose_and_that_does_not_fit_is_an_error_of_memory(
    load: Callable[..., loop.Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[wire.Message] = []
    with pytest.raises(OutOfMemory):
        loop.load_model(wire.Load("/m", 2048, 8, 20, 2, 0, 8 * GIB, GIB, 32), said.append)
    loop.serve(
        wire.Load("/m", 2048, 8, 20, 2, 0, 8 * GIB, GIB, 32), Lanes(), SimpleQueue(), said.append, lambda body: body
    )
    assert said == [wire.LoadFailed("there is not enough memory for the context", is_memory=True)]


def test_threads_are_never_more_than_cores_affinity_and_quota_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.psutil, "cpu_count", lambda logical: 16)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(machine, "_CGROUP_QUOTA", tmp_path / "cpu.max")
    assert machine.usable_cores() == 6
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert machine.usable_cores() == 2
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert machine.usable_cores() == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.usable_cores() == 6


def test_a_gpu_is_known_by_its_traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.sys, "platform", "linux")
    trace = tmp_path / "kfd"
    monkeypatch.setattr(machine, "_TRACES_OF_A_GPU", (str(trace),))
    assert not machine.machine_has_gpu()
    trace.touch()
    assert machine.machine_has_gpu()
