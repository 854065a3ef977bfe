"""What is billed of an answer made elsewhere, in each server's dialect: what was made, never its end-of-generation token."""

from __future__ import annotations

import json
import random

import pytest
from played_server import EOS, Step, llama, sglang, vllm

from fabstir_desktop.inference.openai_dialects import Chunk, OpenAiError, read_chunk
from fabstir_desktop.inference.remote_tally import UNKNOWN_TOKEN_ID, Tally
from fabstir_desktop.jobs.generation import Piece


def bill(parts: list, max_tokens: int = 100, stop_after: int | None = None) -> tuple[list[int], str]:
    """Ids billed and text delivered; `stop_after`: the stream is cut (by a cancel, a crash) after so many parts."""
    tally = Tally(max_tokens, ())
    pieces: list[Piece | None] = [tally.take(read_chunk(json.dumps(part).encode())) for part in parts[:stop_after]]
    if stop_after is None:
        pieces.append(tally.settle())
    told = [piece for piece in pieces if piece is not None]
    return [token for piece in told for token in piece.token_ids], "".join(piece.text for piece in told)


ANSWER = [Step("Hel", (11,)), Step("lo 🌟", (12, 13, 14)), Step("", (15,)), Step("!", (16,))]
IDS = [11, 12, 13, 14, 15, 16]


def test_vllm_tells_all_ids_and_its_end_of_generation_token_is_not_billed() -> None:
    assert bill(vllm([*ANSWER, Step("", (EOS,))], "stop")) == (IDS, "Hello 🌟!")
    assert bill(vllm([*ANSWER, Step("?", (17, EOS))], "stop")) == ([*IDS, 17], "Hello 🌟!?")
    assert bill(vllm([*ANSWER, Step("", (7,))], "stop", stop_reason=7)) == (IDS, "Hello 🌟!")


def test_vllm_ended_by_a_stop_string_bills_the_tokens_that_made_it() -> None:
    assert bill(vllm([*ANSWER, Step("", (17,))], "stop", stop_reason="###")) == ([*IDS, 17], "Hello 🌟!")


def test_vllm_without_ids_and_sglang_bill_by_the_running_usage() -> None:
    for dialect in (sglang, lambda *arguments: vllm(*arguments, ids=False)):
        for ending, more in (
            ([Step("", (EOS,))], 0),
            ([Step("?", (17, EOS))], 1),
            ([Step("?", (17,)), Step("", (EOS,))], 1),
        ):
            ids, text = bill(dialect([*ANSWER, *ending], "stop", EOS))
            assert (len(ids), text) == (6 + more, "Hello 🌟!" + "?" * more)
            assert set(ids) == {UNKNOWN_TOKEN_ID}
        assert len(bill(dialect([*ANSWER, Step("", (17,))], "stop", "###"))[0]) == 7


def test_llama_server_bills_by_timings_and_the_last_account() -> None:
    ids, text = bill(llama([*ANSWER, Step("", (EOS,))], "stop"))
    assert text == "Hello 🌟!"
    assert ids == [11, UNKNOWN_TOKEN_ID, UNKNOWN_TOKEN_ID, 14, UNKNOWN_TOKEN_ID, 16]


@pytest.mark.parametrize("dialect", [vllm, sglang, llama])
def test_an_answer_cut_at_its_length_bills_the_tokens_without_text_too(dialect) -> None:
    steps = [*ANSWER, Step("", (17,)), Step("", (18,))]
    ids, text = bill(dialect(steps, "length"), max_tokens=8)
    assert (len(ids), text) == (8, "Hello 🌟!")


def test_text_that_comes_with_the_last_allowed_token_is_delivered() -> None:
    ids, text = bill(vllm([Step("a", (1,)), Step("b", (3,))], "length"), max_tokens=2)
    assert (ids, text) == ([1, 3], "ab")


def test_a_stop_that_may_be_a_stop_string_or_the_models_own_end_bills_only_what_is_certain() -> None:
    assert len(bill(llama([*ANSWER, Step("", (17,)), Step("", (18,))], "stop"))[0]) == 7


def test_5000_generated_answers_are_billed_exactly_and_a_cut_one_never_more_than_was_made() -> None:
    numbers = random.Random(20)
    for _ in range(5_000):
        steps, is_stop = random_steps(numbers)
        body = [token for step in steps for token in step.token_ids]
        ended = [*steps, last_step(numbers)] if is_stop else steps
        made = len(body) + (len(ended[-1].token_ids) - 1 if is_stop else 0)
        text = "".join(step.text for step in ended)
        dialect = numbers.choice([vllm, sglang, llama])
        parts = dialect(ended, "stop" if is_stop else "length")
        ids, delivered = bill(parts, max_tokens=made + 1 if is_stop else made)
        assert (len(ids), delivered) == (made, text)
        if dialect is vllm:
            assert ids == [token for step in ended for token in step.token_ids][:made]
        cut_ids, cut_text = bill(parts, made + 1, stop_after=numbers.randrange(len(parts) + 1))
        assert len(cut_ids) <= made
        assert text.startswith(cut_text)


def random_steps(numbers: random.Random) -> tuple[list[Step], bool]:
    steps = []
    for _ in range(numbers.randint(1, 6)):
        count = numbers.choice([1, 1, 1, 2, 4])
        text = numbers.choice(["", "a", " word", "🌟"]) if steps else "first"
        steps.append(Step(text, tuple(numbers.randrange(10, 1000) for _ in range(count))))
    return steps, numbers.random() < 0.5


def last_step(numbers: random.Random) -> Step:
    """The step that ended it. Where text came with it, the server is one that puts several tokens into a step."""
    count = numbers.choice([0, 0, 1, 3])
    return Step("end" if count else "", (*(numbers.randrange(10, 1000) for _ in range(count)), EOS))


@pytest.mark.parametrize(
    ("parts", "billed"),
    [
        (
            [Chunk("a", made_tokens=2, is_usage=True), Chunk("b", made_tokens=1, is_usage=True)],
            1,
        ),  # it counts backwards
        ([Chunk("a", (5,), True, 1), Chunk("b", (6,), True, 3)], 1),  # ids and count differ
        ([Chunk("a", (5,), True), Chunk("bcd", (6, 7, 8, 9), True)], 1),  # more than it was asked for
        ([Chunk("a", made_tokens=1), Chunk("", finish_reason="length"), Chunk(made_tokens=9)], 1),  # the last account
        ([Chunk("a")], 0),  # no counts at all
    ],
)
def test_counts_that_cannot_be_trusted_end_the_answer_and_bill_only_what_came_before(
    parts: list[Chunk], billed: int
) -> None:
    tally, ids = Tally(4, ()), []

    def take_all() -> None:
        for part in parts:
            piece = tally.take(part)
            ids.extend(piece.token_ids if piece is not None else ())

    with pytest.raises(OpenAiError, match="counts"):
        take_all()
    assert len(ids) == billed


@pytest.mark.parametrize(
    "part",
    [
        b"", b"[]", b"7", b"null", b"{", b"[" * 100_000, b'{"a":' * 50 + b"1" + b"}" * 50,
        b'{"choices":7}', b'{"choices":[7]}', b'{"choices":[{},{}]}',
        b'{"choices":[{"delta":{"content":["a"]}}]}', b'{"choices":[{"token_ids":[true]}]}',
        b'{"choices":[{"token_ids":[-1]}]}', b'{"choices":[{"token_ids":[2147483648]}]}', b'{"usage":{"completion_tokens":-1}}',
        b'{"usage":{"completion_tokens":1.5}}', b'{"usage":{"completion_tokens":99999999999}}',
        b'{"usage":{"prompt_tokens":2000000000}}', b'{"usage":"many"}', b'{"timings":{"predicted_n":"3"}}',
        b'{"error":{"message":"out of memory"}}', b'{"object":"error","message":"x"}',
    ],
)  # fmt: skip
def test_a_part_that_cannot_be_read_is_a_plain_error(part: bytes) -> None:
    with pytest.raises(OpenAiError):
        read_chunk(part)


def test_the_prompts_ids_are_those_of_the_answer_itself_and_a_length_that_differs_makes_them_unknown() -> None:
    tally = Tally(10, (1, 2, 3))
    assert tally.prompt_ids == (1, 2, 3)
    tally.take(Chunk(prompt_tokens=3))
    assert tally.prompt_ids == (1, 2, 3)
    tally = Tally(10, (1, 2, 3))
    tally.take(Chunk(prompt_tokens=4))
    assert tally.prompt_ids == (UNKNOWN_TOKEN_ID,) * 4
    tally = Tally(10, ())
    tally.take(Chunk(prompt_ids=(8, 9), prompt_tokens=2))
    assert tally.prompt_ids == (8, 9)
