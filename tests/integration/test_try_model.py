"""A model file is tried in a process of its own: what is served is not asked, and nothing of the trial stays."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from engine_support import small_model_path

from fabstir_desktop.errors import ModelFileError
from fabstir_desktop.inspection import try_model
from fabstir_desktop.settings import Settings


async def test_a_good_file_loads_answers_and_is_let_go(tmp_path: Path) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    told = await try_model(small_model_path(), Settings(data_dir=tmp_path, threads=1))
    assert "answers; it is not served" in told
    after = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert [child for child in after if "worker" in " ".join(child.cmdline())] == []
    assert list(tmp_path.glob("*.json")) == [], "neither sums nor blamed prompts are kept of a trial"


async def test_a_damaged_file_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(small_model_path().read_bytes()[:100_000])
    with pytest.raises(ModelFileError):
        await try_model(damaged, Settings(data_dir=tmp_path))


async def test_what_does_not_fit_beside_the_served_model_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = SimpleNamespace(needed_bytes=90 * 10**9, free_bytes=8 * 10**9)
    monkeypatch.setattr("fabstir_desktop.inspection.estimate_fit", lambda *_: fit)
    monkeypatch.setattr("fabstir_desktop.inspection.EngineClient", None)
    with pytest.raises(ModelFileError, match="needs about 90"):
        await try_model(small_model_path(), Settings(data_dir=tmp_path))
