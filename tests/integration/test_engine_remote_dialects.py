"""The engine elsewhere against servers that speak vLLM's and SGLang's wire format over real HTTP, and against broken ones."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from engine_support import Answer, ask, collect, wait_until
from played_server import EOS, PlayedServer, Step, played, refusal, sglang, vllm
from pydantic import SecretStr

from fabstir_desktop.errors import ContextOverflow, EngineBusy, InvalidGenerationRequest, ModelUnavailable
from fabstir_desktop.feed import Feed
from fabstir_desktop.inference.openai_api import ServerAddress
from fabstir_desktop.inference.options import EngineLimits
from fabstir_desktop.inference.remote import RemoteEngine
from fabstir_desktop.inference.remote_tally import UNKNOWN_TOKEN_ID
from fabstir_desktop.jobs.generation import EngineState

HELLO = [Step("Hel", (11,)), Step("lo", (12, 13)), Step("", (EOS,))]


@asynccontextmanager
async def engine_at(
    url: str, *, key: str | None = None, is_ready: bool = True, **more: Any
) -> AsyncIterator[RemoteEngine]:
    address = ServerAddress.of(url, SecretStr(key) if key else None)
    engine = RemoteEngine(address, Feed(), limits=EngineLimits(tick_s=0.01), **more)
    await engine.start()
    try:
        if is_ready:
            await wait_until(lambda: engine.status.state is EngineState.READY)
        yield engine
    finally:
        await engine.stop()


async def test_vllms_ids_are_the_transcript_and_its_end_of_generation_token_is_not_billed() -> None:
    async with played(PlayedServer(lambda _: vllm(HELLO, "stop"))) as server, engine_at(server.url) as engine:
        answer = await collect(engine, ask("hello", 50))
        assert (answer.token_ids, answer.text, answer.finish_reason) == ([11, 12, 13], "Hello", "stop")
        assert answer.accepted is not None
        assert answer.accepted.prompt_ids == tuple(range(10, 17))
        assert answer.accepted.context_window == 100
        assert server.asked[0]["return_token_ids"] is True
        assert server.asked[0]["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


async def test_sglangs_usage_is_billed_without_its_end_of_generation_token() -> None:
    steps = [Step("Hel", (11,)), Step("lo", (12, EOS))]
    async with played(PlayedServer(lambda _: sglang(steps, "stop", EOS))) as server, engine_at(server.url) as engine:
        answer = await collect(engine, ask("hello", 50))
        assert (answer.token_ids, answer.text) == ([UNKNOWN_TOKEN_ID] * 2, "Hello")
        assert answer.accepted is not None
        assert answer.accepted.prompt_tokens == 7


async def test_max_tokens_is_clipped_to_what_the_window_leaves() -> None:
    server = PlayedServer(lambda _: vllm(HELLO, "stop"), tokenize=lambda _: {"tokens": list(range(60)), "count": 60})
    async with played(server), engine_at(server.url) as engine:
        await collect(engine, ask("hello", 4000))
        assert server.asked[0]["max_tokens"] == 40


async def test_a_prompt_that_fills_the_window_is_refused_before_it_is_sent() -> None:
    server = PlayedServer(lambda _: vllm(HELLO, "stop"), tokenize=lambda _: {"tokens": list(range(100)), "count": 100})
    async with played(server), engine_at(server.url) as engine:
        with pytest.raises(ContextOverflow) as caught:
            await collect(engine, ask("hello", 5))
        assert (caught.value.prompt_tokens, caught.value.context_window) == (100, 100)
        assert server.asked == []


@pytest.mark.parametrize(
    "text",
    [
        "'max_tokens' is too large: 4000. This model's maximum context length is 100 tokens, your request has 61 input tokens.",
        "This model's maximum context length is 100 tokens. However, you requested 4061 tokens (61 in the messages, 4000 ...).",
        "Requested token count exceeds the model's maximum context length of 100 tokens: 61 tokens from the input messages ...",
        "You passed 61 input tokens and requested 4000 output tokens. However, the model's context length is only 100 tokens.",
    ],
)
async def test_where_the_prompt_is_first_counted_by_a_refusal_it_is_asked_again_with_what_fits(text: str) -> None:
    def chat(body: dict[str, Any]) -> Any:
        return refusal(text) if body["max_tokens"] > 39 else vllm(HELLO, "stop")

    async with played(PlayedServer(chat)) as server, engine_at(server.url) as engine:
        assert (await collect(engine, ask("hello", 4000))).text == "Hello"
        assert [body["max_tokens"] for body in server.asked] == [4000, 39]


async def test_a_refusal_that_knows_only_a_bound_leaves_the_arithmetic_to_the_server() -> None:
    text = (
        "This model's maximum context length is 100 tokens. However, you requested 60 output tokens and your prompt contains at "
        "least 41 input tokens, for a total of at least 101 tokens."
    )
    chat = lambda body: refusal(text) if "max_tokens" in body else vllm(HELLO, "stop")  # noqa: E731
    async with played(PlayedServer(chat)) as server, engine_at(server.url) as engine:
        assert (await collect(engine, ask("hello", 60))).text == "Hello"
        assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("text", "prompt_tokens"),
    [
        ("The input (516 tokens) is longer than the model's context length (100 tokens).", 516),
        ("This model's maximum context length is 100 tokens. However, your request has 516 input tokens.", 516),
        ("The decoder prompt (length 516) is longer than the maximum model length of 100.", 516),
        ("Input length (516) exceeds model's maximum context length (100).", 516),
        ("This model's maximum context length is 100 tokens. However, your messages resulted in 516 tokens.", 516),
        ("This model's maximum context length is 100 tokens. Please reduce the length of the prompt.", 0),
    ],
)
async def test_too_long_a_prompt_is_an_overflow_with_both_sizes(text: str, prompt_tokens: int) -> None:
    async with played(PlayedServer(lambda _: refusal(text))) as server, engine_at(server.url) as engine:
        with pytest.raises(ContextOverflow) as caught:
            await collect(engine, ask("hello", 5))
        assert (caught.value.prompt_tokens, caught.value.context_window) == (prompt_tokens, 100)
        assert caught.value.code == "TOKEN_LIMIT_EXCEEDED"


async def test_other_refusals_keep_their_kinds() -> None:
    answers = iter([refusal("top_k must be -1"), refusal("slow down", 429), refusal("out of memory", 500), b"<html>"])
    async with played(PlayedServer(lambda _: next(answers))) as server, engine_at(server.url) as engine:
        for kind in (InvalidGenerationRequest, EngineBusy, ModelUnavailable, ModelUnavailable):
            with pytest.raises(kind):
                await collect(engine, ask("hello", 5))


async def test_a_server_that_tells_no_window_teaches_it_by_its_refusal_and_history_is_kept_meanwhile() -> None:
    text = "This model's maximum context length is 300 tokens. However, your request has 301 input tokens."
    server = PlayedServer(lambda _: refusal(text), models={"data": [{"id": "org/played"}]})
    async with played(server), engine_at(server.url) as engine:
        assert engine.status.model is not None
        assert engine.status.model.context_window == 4096
        with pytest.raises(ContextOverflow):
            await collect(engine, ask("hello", 5))
        assert engine.status.model.context_window == 300
    async with played(server), engine_at(server.url, context_window=2048) as engine:
        assert engine.status.model is not None
        assert engine.status.model.context_window == 2048


async def test_the_key_goes_with_every_request_and_the_model_that_was_named_is_used() -> None:
    models = {"data": [{"id": "a", "max_model_len": 10}, {"id": "b", "max_model_len": 100}]}
    server = PlayedServer(lambda _: vllm(HELLO, "stop"), models=models)
    async with played(server), engine_at(server.url, key="sk-secret", model="b") as engine:
        await collect(engine, ask("hello", 5))
        assert server.asked[0]["model"] == "b"
        assert {path for path, _ in server.headers} == {"/v1/models", "/tokenize", "/v1/chat/completions"}
        assert {header for _, header in server.headers} == {"Bearer sk-secret"}
        assert engine.status.model is not None
        assert (engine.status.model.name, engine.status.model.context_window) == ("b", 100)


async def test_a_model_that_the_server_does_not_have_is_said(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        played(PlayedServer(lambda _: [])) as server,
        engine_at(server.url, model="other", is_ready=False) as engine,
    ):
        await wait_until(lambda: "ENGINE_MODEL" in engine.status.detail)
        assert "it serves org/played" in engine.status.detail


async def test_user_and_password_and_key_stand_in_no_state_log_or_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    chat = iter([vllm(HELLO, "stop"), refusal("no"), [b"data: {\n\n"], [b""]])
    async with played(PlayedServer(lambda _: next(chat))) as server:
        url = server.url.replace("http://", "http://host:pass%20word@") + "?key=in-query"
        for key in (None, "sk-secret"):
            async with engine_at(url, key=key) as engine:
                told = [repr(engine.status)]
                if key is None:
                    await collect(engine, ask("hello", 5))
                for _ in range(3 if key else 0):
                    with pytest.raises((ModelUnavailable, InvalidGenerationRequest)) as caught:
                        await collect(engine, ask("hello", 5))
                    told += [str(caught.value), repr(caught.value.__cause__), repr(vars(engine))]
                told += [repr(engine.status), repr(engine._address), repr(engine._address._header)]
                assert server.url.removeprefix("http://").removesuffix("/v1") in told[0]
                for secret in ("pass", "host:", "sk-secret", "aG9zd", "in-query"):
                    assert secret not in "".join(told) + caplog.text
        assert server.headers[0][1].startswith("Basic ")
        assert server.headers[-1][1] == "Bearer sk-secret"


@pytest.mark.parametrize(
    "models",
    [
        "[]", "7", "null", "{", "[" * 100_000, '{"data": 7}', '{"data": []}', '{"data": [7, null]}', '{"data": [{"id": 7}]}',
        web.Response(status=401), web.Response(status=302, headers={"Location": "/elsewhere"}), web.Response(status=500),
    ],
)  # fmt: skip
async def test_a_server_that_answers_oddly_is_asked_again_until_it_can_be_used(models: Any, caplog: Any) -> None:
    server = PlayedServer(lambda _: vllm(HELLO, "stop"), models=models)
    async with played(server), engine_at(server.url, is_ready=False) as engine:
        await wait_until(lambda: engine.status.state is EngineState.RESTARTING)
        assert "cannot be used" in engine.status.detail
        server.models = {"data": [{"id": "org/played", "max_model_len": "many"}]}
        await wait_until(lambda: engine.status.state is EngineState.READY)
        assert (await collect(engine, ask("hello", 5))).text == "Hello"


@pytest.mark.parametrize("window", [[], {"n_ctx": "many"}, {"n_ctx": True}, 7])
async def test_odd_settings_of_a_llama_server_are_no_window(window: Any) -> None:
    server = PlayedServer(lambda _: [], models={"data": [{"id": "m"}]})

    async def props(_: web.Request) -> web.Response:
        return web.json_response({"default_generation_settings": window})

    app = web.Application()
    app.router.add_get("/v1/models", server._models)
    app.router.add_get("/props", props)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with engine_at(f"http://127.0.0.1:{runner.addresses[0][1]}") as engine:
        assert engine.status.model is not None
        assert engine.status.model.context_window == 4096
    await runner.cleanup()


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (b"data: [1]\n\n", "unreadable"),
        (b"data: " + b"x" * (5 << 20) + b"\n\n", "beyond all reason"),
        (b'data: {"error": {"message": "CUDA"}}\n\n', "with an error"),
        (b"", "broke off"),
    ],
)
async def test_what_was_counted_before_an_answer_broke_is_billed_and_no_more(broken: bytes, told: str) -> None:
    parts = [*vllm([*HELLO[:2], Step("!", (14,))], "length")[:3], broken]
    async with played(PlayedServer(lambda _: parts)) as server, engine_at(server.url) as engine:
        answer = Answer()
        with pytest.raises(ModelUnavailable, match=told):
            await collect(engine, ask("hello", 50), answer)
        assert (answer.token_ids, answer.text) == ([11, 12, 13], "Hello")


async def test_counts_that_contradict_each_other_end_the_answer() -> None:
    parts = vllm([*HELLO[:2], Step("!", (14,))], "length")
    parts[-1] = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
    async with played(PlayedServer(lambda _: parts)) as server, engine_at(server.url) as engine:
        answer = Answer()
        with pytest.raises(ModelUnavailable, match="contradict"):
            await collect(engine, ask("hello", 50), answer)
        assert answer.token_ids == [11, 12, 13]


async def test_a_request_cancelled_before_the_server_answers_ends_at_once() -> None:
    never = asyncio.Event()
    server = PlayedServer(lambda _: vllm(HELLO, "stop"), before_each=never.wait)
    async with played(server), engine_at(server.url) as engine:
        request = ask("hello", 50)
        task = asyncio.create_task(collect(engine, request))
        await wait_until(lambda: len(server.asked) == 1)
        engine.cancel(request.request_id)
        answer = await asyncio.wait_for(task, 20)
        assert (answer.finish_reason, answer.token_ids, engine.status.active_streams) == ("cancelled", [], 0)
        never.set()


async def test_the_answers_events_are_json_free_of_the_prompt(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    text = "This model's maximum context length is 100 tokens; the prompt was: Tell me of the kestrel and the sea."
    async with played(PlayedServer(lambda _: refusal(text))) as server, engine_at(server.url) as engine:
        with pytest.raises(ContextOverflow) as caught:
            await collect(engine, ask("Tell me of the kestrel and the sea.", 5))
        assert "kestrel" not in str(caught.value) + caplog.text
        assert "kestrel" in json.dumps(server.asked)
