"""doctor's line about the GPU: said where layers were asked for, never a reason to fail."""

from __future__ import annotations

from typing import Any

import pytest

from fabstir_desktop.cli import doctor
from fabstir_desktop.settings import Settings


def running(gpu_layers: int) -> dict[str, Any]:
    return {"engine": {"model": {"gpu_layers": gpu_layers, "layer_count": 30}}}


def lines(wanted: int | None, status: dict[str, Any] | None, **more: Any) -> list[str]:
    found = doctor._check_gpu(Settings(gpu_layers=wanted, **more), status)
    assert all(line.passed for line in found)
    return [str(line) for line in found]


def test_layers_that_are_wanted_and_not_there_are_a_note_with_what_to_do() -> None:
    (line,) = lines(99, running(12))
    assert line.startswith("note    GPU: 99 layers are wanted, 12 of 30 layers are on it -> ")


def test_layers_that_are_there_are_said() -> None:
    assert lines(99, running(30)) == lines(None, running(30)) == ["ok      GPU: 30 of 30 layers are on it"]


@pytest.mark.parametrize(("has_gpu", "said"), [(False, "note    GPU: 4 layers are wanted, but no GPU"), (True, "ok ")])
def test_before_a_start_the_machine_is_looked_at(monkeypatch: pytest.MonkeyPatch, has_gpu: bool, said: str) -> None:
    monkeypatch.setattr(doctor, "machine_has_gpu", lambda: has_gpu)
    (line,) = lines(4, None)
    assert line.startswith(said)


def test_who_asked_for_none_is_told_nothing() -> None:
    assert lines(0, running(0)) == lines(None, running(0)) == lines(None, None) == []
    assert lines(4, None, engine_url="http://127.0.0.1:9") == []
