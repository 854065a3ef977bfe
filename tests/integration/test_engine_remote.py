"""The engine elsewhere, against a real llama-server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from aiohttp import web
from engine_support import Answer, ask, collect, ready_engine, small_model_path, wait_until
from limits import scaled
from llama_server_support import llama_server

from fabstir_desktop.errors import ContextOverflow, ModelUnavailable
from fabstir_desktop.feed import Feed
from fabstir_desktop.inference.openai_api import ServerAddress
from fabstir_desktop.inference.remote import RemoteEngine
from fabstir_desktop.inference.remote_tally import UNKNOWN_TOKEN_ID
from fabstir_desktop.jobs.generation import EngineState, Piece

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with llama_server(small_model_path(), window=512, parallel=2) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(server: str) -> AsyncIterator[RemoteEngine]:
    engine = RemoteEngine(ServerAddress.of(server), Feed(), parallel=2)
    await engine.start()
    await wait_until(lambda: engine.status.state is EngineState.READY, 60, "the server")
    yield engine
    await engine.stop()


async def test_an_answer_streams_with_the_servers_own_count(engine: RemoteEngine) -> None:
    pieces = []
    async for event in engine.generate(ask("Tell me about the sea.", 20)):
        pieces += [event] if isinstance(event, Piece) else []
    assert sum(len(piece.token_ids) for piece in pieces) == 20
    assert len(pieces) > 5


async def test_tokens_of_split_characters_are_all_counted(engine: RemoteEngine) -> None:
    answer = await collect(engine, ask("Say hi 😀", 40))
    assert answer.finish_reason == "length"
    assert len(answer.token_ids) == 40  # also those of a character that the cut left unfinished
    assert "\ufffd" not in answer.text
    for count in (1, 2, 5):
        assert len((await collect(engine, ask("Say hi 😀", count))).token_ids) == count


async def test_the_prompt_ids_and_the_window_are_told(engine: RemoteEngine) -> None:
    answer = await collect(engine, ask("What is 2 plus 2? Answer in one word.", 30))
    assert answer.accepted is not None
    assert answer.accepted.prompt_ids[0] == 1
    assert answer.accepted.context_window == 512
    assert answer.finish_reason == "stop"


async def test_the_ids_are_those_that_the_local_engine_samples(engine: RemoteEngine) -> None:
    request = ask("What is 2 plus 2? Answer in one word.", 30)
    local = await ready_engine()
    try:
        expected = await collect(local, request)
    finally:
        await local.stop()
    answer = await collect(engine, request)
    assert (answer.text, answer.finish_reason) == (expected.text, expected.finish_reason) == (answer.text, "stop")
    assert answer.token_ids == expected.token_ids
    assert UNKNOWN_TOKEN_ID not in answer.token_ids
    assert answer.accepted is not None
    assert expected.accepted is not None
    assert answer.accepted.prompt_ids == expected.accepted.prompt_ids


async def test_requests_without_a_pause_between_them_all_succeed(engine: RemoteEngine) -> None:
    for _ in range(12):
        assert len((await collect(engine, ask("Say hello.", 2))).token_ids) == 2


async def test_an_answer_that_the_window_ends_has_exactly_what_was_left_of_it(engine: RemoteEngine) -> None:
    prompt = "The sea is blue and the sky is wide. " * 46 + "Write a very long story about it."
    answer = await collect(engine, ask(prompt, 4000))
    assert answer.accepted is not None
    assert answer.finish_reason == "length"
    assert answer.accepted.prompt_tokens + len(answer.token_ids) == 512


async def test_a_stop_string_is_never_billed_beyond_what_was_made(engine: RemoteEngine) -> None:
    whole = await collect(engine, ask("Count from one to twenty in words.", 40))
    answer = await collect(engine, ask("Count from one to twenty in words.", 40, stop=("3",)))
    assert answer.finish_reason == "stop"
    assert whole.text.startswith(answer.text)
    assert whole.token_ids[: len(answer.token_ids)] == answer.token_ids


async def test_the_same_seed_gives_the_same_answer_also_the_largest(engine: RemoteEngine) -> None:
    for seed in (7, 2**32 - 1):
        request = [ask("Tell me about the sea.", 12, temperature=1.5, seed=seed) for _ in range(2)]
        first, second = [await collect(engine, one) for one in request]
        assert first.token_ids == second.token_ids
        assert first.accepted is not None
        assert first.accepted.seed in (seed, 2**32 - 2)


async def test_a_cancelled_request_ends_and_the_next_one_works(engine: RemoteEngine) -> None:
    request = ask("Write a very long story.", 400)
    answer = Answer()
    task = asyncio.create_task(collect(engine, request, answer))
    await wait_until(lambda: len(answer.token_ids) > 3)
    engine.cancel(request.request_id)
    await asyncio.wait_for(task, scaled(60))
    assert answer.finish_reason == "cancelled"
    assert len((await collect(engine, ask("Say hello.", 3))).token_ids) == 3


async def test_requests_beyond_the_streams_wait(engine: RemoteEngine) -> None:
    answers = await asyncio.gather(*(collect(engine, ask(f"Say {n}.", 5)) for n in range(5)))
    assert all(answer.token_ids for answer in answers)
    assert engine.status.active_streams == 0
    assert engine.status.queued_requests == 0


async def test_a_prompt_beyond_the_window_is_refused(engine: RemoteEngine) -> None:
    with pytest.raises(ContextOverflow) as caught:
        await collect(engine, ask("word " * 1000, 5))
    assert caught.value.prompt_tokens > 1000
    assert caught.value.context_window == 512


async def test_a_server_that_is_gone_is_a_state_and_a_plain_error() -> None:
    engine = RemoteEngine(ServerAddress.of("http://127.0.0.1:9"), Feed())
    await engine.start()
    try:
        await wait_until(lambda: engine.status.state is EngineState.RESTARTING)
        assert "127.0.0.1:9" in engine.status.detail
        with pytest.raises(ModelUnavailable):
            await collect(engine, ask("hello", 1))
    finally:
        await engine.stop()


async def test_a_server_that_does_not_count_is_refused_before_a_token_is_billed() -> None:
    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "m", "max_model_len": 100}]})

    async def chat(_: web.Request) -> web.Response:
        return web.Response(text='data: {"choices":[{"delta":{"content":"hi"}}]}\n\ndata: [DONE]\n\n')

    app = web.Application()
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    engine = RemoteEngine(ServerAddress.of(f"http://127.0.0.1:{runner.addresses[0][1]}/v1"), Feed())
    await engine.start()
    answer = Answer()
    try:
        await wait_until(lambda: engine.status.state is EngineState.READY)
        with pytest.raises(ModelUnavailable, match="no token counts"):
            await collect(engine, ask("hello", 5), answer)
        assert answer.token_ids == []
    finally:
        await engine.stop()
        await runner.cleanup()
