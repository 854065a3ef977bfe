"""A recorded answer is checked by running the model again, and a forged one is found out."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from engine_support import ask, collect, ready_engine, small_model_path

from fabstir_desktop.errors import ModelFileError
from fabstir_desktop.inference.replay import ReplayedToken, impossible_positions, replay_check
from fabstir_desktop.jobs.generation import SamplingParameters


@pytest.mark.parametrize("temperature", [0.0, 0.8])
async def test_an_honest_answer_is_plausible_and_a_forged_token_is_named(temperature: float) -> None:
    engine = await ready_engine(parallel=2, context_window=512)
    try:
        request = ask("Tell me about the sea.", 24, temperature=temperature, seed=3)
        answer = await collect(engine, request)
    finally:
        await engine.stop()
    assert answer.accepted is not None
    prompt, ids = answer.accepted.prompt_ids, answer.token_ids
    honest = await asyncio.to_thread(replay_check, small_model_path(), prompt, ids, request.sampling, threads=2)
    assert len(honest.tokens) == len(ids)
    assert [token.token_id for token in honest.tokens] == ids
    assert honest.is_plausible
    forged = [*ids[:10], 48_000, *ids[11:]]
    found = await asyncio.to_thread(replay_check, small_model_path(), prompt, forged, request.sampling, threads=2)
    assert 10 in found.impossible


def test_ids_that_the_model_does_not_have_are_an_error() -> None:
    with pytest.raises(ModelFileError, match="does not have"):
        replay_check(small_model_path(), [1, 2], [10**7], SamplingParameters(), threads=2)


def test_a_missing_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="does not exist"):
        replay_check(tmp_path / "gone.gguf", [1], [2], SamplingParameters())


def test_greedy_allows_the_best_token_and_near_ties_only() -> None:
    tokens = [
        ReplayedToken(1, 0, -0.1, 0.0, 0.0),
        ReplayedToken(2, 1, -1.0, 0.4, 0.5),
        ReplayedToken(3, 9, -9.0, 8.0, 0.9),
    ]
    assert impossible_positions(tokens, SamplingParameters(temperature=0.0)) == (2,)


def test_filters_make_far_tokens_impossible() -> None:
    far = ReplayedToken(1, 400, -7.0, 5.5, 0.97)
    assert impossible_positions([far], SamplingParameters(top_k=40, top_p=1.0, min_p=0.0)) == (0,)
    assert impossible_positions([far], SamplingParameters(top_k=0, top_p=0.9, min_p=0.0)) == (0,)
    assert impossible_positions([far], SamplingParameters(top_k=0, top_p=1.0, min_p=0.05)) == (0,)
    assert impossible_positions([far], SamplingParameters(top_k=0, top_p=1.0, min_p=0.0, temperature=1.0)) == ()
