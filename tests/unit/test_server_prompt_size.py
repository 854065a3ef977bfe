"""What is refused by its bytes alone: with certainty where the vocabulary allows it, and by a plain limit otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest
from engine_support import SCRIPTED_MODEL, ScriptedEngine, small_model_path
from hypothesis import given, settings
from hypothesis import strategies as st

from fabstir_desktop.errors import ContextOverflow, InvalidGenerationRequest
from fabstir_desktop.inference.llama import LlamaModel
from fabstir_desktop.jobs.generation import EngineStatus, Message
from fabstir_desktop.server.prompt_size import BYTES_BESIDE, BYTES_PER_TOKEN, check_prompt_size

WINDOW = 100
WORD = 16


def status(longest_word: int = WORD, *, is_remote: bool = False, window: int = WINDOW) -> EngineStatus:
    model = replace(SCRIPTED_MODEL, context_window=window, longest_word=longest_word)
    return replace(ScriptedEngine(model=model).status, is_remote=is_remote)


def user(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


def test_a_prompt_that_surely_has_too_many_tokens_is_told_how_many_at_least() -> None:
    check_prompt_size(user("x" * (WORD * (WINDOW - 1))), status())
    with pytest.raises(ContextOverflow, match="has at least 101 tokens; the model's window holds 100") as caught:
        check_prompt_size((*user("a b " * 800), Message("assistant", "y" * 5000), *user("x")), status())
    assert (caught.value.prompt_tokens, caught.value.context_window) == (101, WINDOW)


@pytest.mark.parametrize(
    "turns",
    [
        user(" \n" * 4000),
        user("\u4e2d" * 2000),
        (Message("assistant", "y" * 8000), *user("x")),
        (Message("system", "y" * 8000), *user("x")),
    ],
    ids=["blanks", "other scripts", "answers", "instructions"],
)
def test_what_a_template_or_vocabulary_could_leave_out_is_never_said_to_be_too_many(turns: tuple[Message, ...]) -> None:
    check_prompt_size(turns, status())


@pytest.mark.parametrize(("longest_word", "per_token"), [(0, BYTES_PER_TOKEN), (WORD, BYTES_PER_TOKEN), (100, 100)])
def test_beyond_all_reason_is_refused_with_the_limit(longest_word: int, per_token: int) -> None:
    most = WINDOW * per_token + BYTES_BESIDE
    check_prompt_size(user(" " * most), status(longest_word))
    with pytest.raises(InvalidGenerationRequest, match=f"has {most + 1} bytes; .* 100 tokens at most {most} are taken"):
        check_prompt_size(user(" " * (most + 1)), status(longest_word))


def test_another_servers_tokens_are_not_guessed_at() -> None:
    check_prompt_size(user("x" * 1_000_000), status(is_remote=True))
    check_prompt_size(user("x" * 1_000_000), replace(status(), model=None))


@pytest.fixture(scope="module")
def model() -> LlamaModel:
    return LlamaModel(str(small_model_path()), gpu_layers=0, progress=lambda _: None, vocabulary_only=True)


def test_the_longest_word_of_a_real_vocabulary_is_one_token(model: LlamaModel) -> None:
    longest = model.longest_word()
    assert 16 <= longest <= 256
    spelled = [model.piece(token) for token in range(model.vocabulary_size)]
    assert max(len([one for one in piece if 0x21 <= one < 0x7F]) for piece in spelled) == longest


@settings(max_examples=100, deadline=None)
@given(
    text=st.text(st.sampled_from("-=a/. \n\u00e9\u4e2d\x00"), max_size=1000)
    | st.builds(
        lambda one, count: one * count,
        st.sampled_from(["-", "=", "*", "/", "a", "A", "9", " ", "\u3000"]),
        st.integers(1, 3000),
    )
)
def test_no_prompt_that_fits_is_ever_said_not_to(model: LlamaModel, text: str) -> None:
    tokens = len(model.tokenise(text, parse_controls=False))
    with_room = status(model.longest_word(), window=tokens + 1)
    try:
        check_prompt_size(user(text), with_room)
    except InvalidGenerationRequest:
        assert len(text.encode()) > (tokens + 1) * BYTES_PER_TOKEN, "only the plain limit may speak"
