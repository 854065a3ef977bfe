"""Layers go to the GPU as far as its memory reaches, and what does not is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir_desktop.inference import machine
from fabstir_desktop.inference.gpu import ALL_LAYERS, Device, Needs, layer_attempts, layers_that_fit, shortfall

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
