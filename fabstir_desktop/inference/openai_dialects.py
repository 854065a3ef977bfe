"""OpenAI's chat completions as llama-server, vLLM and SGLang really speak them: what is asked, and how each answer is read.

Pure: bytes and objects in, plain data out. Nothing here keeps or repeats a prompt, an answer or a key.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from fabstir_desktop.errors import (
    ContextOverflow,
    EngineBusy,
    GenerationError,
    InvalidGenerationRequest,
    ModelUnavailable,
)
from fabstir_desktop.jobs.generation import GenerationRequest

MAX_DEPTH: Final = 32
MAX_COUNT: Final = 2**31 - 1
"""Above every token id and every count of tokens; what is greater is no number to bill by."""
MAX_PROMPT_TOKENS: Final = 1 << 24
_LARGEST_SEED: Final = 2**32 - 2  # llama-server takes 2**32 - 1 for "draw one"
_SMALLEST_TOP_P: Final = 1e-6  # vLLM refuses 0, which means the likeliest token alone
_MAX_MODEL_NAME: Final = 200

_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_TO_BRACKETS: Final = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_WINDOW: Final = re.compile(
    r"(?:context (?:length|size|window)|model len(?:gth)?|max_model_len|allowed (?:input )?length)\D{0,40}?(\d{2,9})",
    re.I,
)
_PROMPT: Final = re.compile(
    r"(?P<bound>at least )?(?:\b(?P<a>\d{1,9}) input tokens|\b(?P<b>\d{1,9}) in the messages"
    r"|input \((?P<c>\d{1,9}) tokens\)|\b(?P<d>\d{1,9}) tokens from the input|\(?length \(?(?P<e>\d{1,9})\)? (?:is|exceeds)"
    r"|resulted in (?P<f>\d{1,9}) tokens)",
    re.I,
)


class OpenAiError(Exception):
    """The server refused or said something unusable. The text holds nothing of a prompt.

    `window` is not 0 if the context was too small; `prompt_tokens` is then the prompt's length, 0 if the server does not tell,
    and `is_lower_bound` whether it may be longer than that.
    """

    def __init__(
        self, message: str, *, status: int = 0, prompt_tokens: int = 0, window: int = 0, is_lower_bound: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.prompt_tokens = prompt_tokens
        self.window = window
        self.is_lower_bound = is_lower_bound

    @property
    def is_only_the_answer_too_long(self) -> bool:
        """Whether the prompt fits the window, but not with so many tokens of answer."""
        return 0 < self.prompt_tokens < self.window

    def as_generation_error(self, place: str) -> GenerationError:
        """The error in the engine's words."""
        if self.window:
            return ContextOverflow(self.prompt_tokens, self.window)
        if self.status == 429:
            return EngineBusy(f"the server at {place} is busy", position=1, retry_after_s=2.0)
        if self.status in (400, 422):
            return InvalidGenerationRequest(f"the server at {place} refuses the request")
        return ModelUnavailable(f"the server at {place} failed: {self}")


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What the server says of itself. `context_window` in tokens, 0 if it does not say; `is_llama` for a llama-server."""

    model: str
    context_window: int
    is_llama: bool = False


@dataclass(frozen=True, slots=True)
class Chunk:
    """A streamed part.

    `made_tokens` is the server's count so far, None if the part has none. `is_usage` says that it is a `usage` count, which
    may hold the end-of-generation token before the end is told. `is_ids_complete`: `token_ids` are all tokens of this part.
    `prompt_tokens` is the prompt's length and `prompt_ids` its ids, None where not told. `has_stop_text`: a stop string
    ended the answer, not the model.
    """

    text: str = ""
    token_ids: tuple[int, ...] = ()
    is_ids_complete: bool = False
    made_tokens: int | None = None
    is_usage: bool = False
    finish_reason: str | None = None
    has_stop_text: bool = False
    prompt_tokens: int | None = None
    prompt_ids: tuple[int, ...] | None = None


def parse_json(body: bytes) -> Any:
    """The JSON value. Raises ValueError for what is none, and for nesting that could overflow the C stack and end the process."""
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        brackets = _STRING.sub(b"", body).translate(_TO_BRACKETS, _NOT_BRACKETS)
        for _ in range(MAX_DEPTH):
            brackets = brackets.replace(b"[]", b"")  # the innermost pairs, all of them and no others
        if brackets:
            raise ValueError("nested too deep")
    return json.loads(body)


def request_body(request: GenerationRequest, seed: int, facts: ServerFacts, max_tokens: int | None) -> dict[str, Any]:
    """The body of a chat completion. `max_tokens` None: as many as fit the window, by the server's own arithmetic."""
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": facts.model,
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        "stop": list(request.stop),
        "seed": wire_seed(seed),
        "temperature": sampling.temperature,
        "top_p": max(sampling.top_p, _SMALLEST_TOP_P),
        "top_k": sampling.top_k or -1,
        "min_p": sampling.min_p,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    if facts.is_llama:
        # It tells a token's id only beside its probability, and of the probabilities only where at least one is asked for.
        return body | {
            "repeat_penalty": sampling.repeat_penalty,
            "timings_per_token": True,
            "logprobs": True,
            "top_logprobs": 1,
        }
    return body | {"repetition_penalty": sampling.repeat_penalty, "return_token_ids": True, "timings_per_token": True}


def wire_seed(seed: int) -> int:
    """The seed as it is sent: every server takes it as it is, none draws another."""
    return min(seed, _LARGEST_SEED)


def read_chunk(body: bytes) -> Chunk:
    """Read a streamed part in any of the known dialects. Raises OpenAiError."""
    try:
        return _read_part(parse_json(body))
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise OpenAiError(f"the server sent something unreadable: {type(error).__name__}") from None


def _read_part(part: dict[str, Any]) -> Chunk:
    if part.get("error") is not None or part.get("object") == "error":
        raise OpenAiError("the server broke off with an error")
    choices = part.get("choices") or [{}]
    if len(choices) != 1:
        raise OpenAiError("the server sent several answers where one was asked for")
    choice, usage, timings = choices[0], part.get("usage") or {}, part.get("timings") or {}
    told = choice.get("token_ids")
    ids = told if told is not None else [entry["id"] for entry in _logprobs(choice) if "id" in entry]
    stop_reason = choice.get("stop_reason", choice.get("matched_stop"))
    made = usage.get("completion_tokens")
    prompt_ids = part.get("prompt_token_ids")
    return Chunk(
        text=_text(choice.get("delta") or {}),
        token_ids=tuple(map(_count, ids)),
        is_ids_complete=told is not None,
        made_tokens=_count_or_none(timings.get("predicted_n") if made is None else made),
        is_usage=made is not None,
        finish_reason=choice.get("finish_reason"),
        has_stop_text=isinstance(stop_reason, str),
        prompt_tokens=_prompt_tokens(usage, timings),
        prompt_ids=None if prompt_ids is None else tuple(map(_count, prompt_ids)),
    )


def _text(delta: dict[str, Any]) -> str:
    """All text of the part; what a server sets apart as reasoning was made and is paid like the rest."""
    parts = (delta.get("reasoning_content") or delta.get("reasoning") or "", delta.get("content") or "")
    if not all(isinstance(part, str) for part in parts):
        raise TypeError
    return "".join(parts)


def _prompt_tokens(usage: dict[str, Any], timings: dict[str, Any]) -> int | None:
    if usage.get("prompt_tokens") is not None:
        told = _count(usage["prompt_tokens"])
    elif "prompt_n" in timings and "cache_n" in timings:
        told = _count(timings["prompt_n"]) + _count(timings["cache_n"])
    else:
        return None
    if told > MAX_PROMPT_TOKENS:
        raise ValueError
    return told


def _count(value: object) -> int:
    """A token id or a number of tokens. Raises ValueError for what is neither."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < MAX_COUNT:
        raise ValueError
    return value


def _count_or_none(value: object) -> int | None:
    return None if value is None else _count(value)


def _logprobs(choice: dict[str, Any]) -> list[dict[str, Any]]:
    return (choice.get("logprobs") or {}).get("content") or []


def read_models(listed: dict[str, Any], wanted: str | None) -> dict[str, Any]:
    """The entry of `/v1/models` that is to be used: the one named, else the first. Raises OpenAiError."""
    data = listed.get("data")
    models = [entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []
    models = [entry for entry in models if isinstance(entry.get("id"), str) and entry["id"]]
    if not models:
        raise OpenAiError("it lists no model")
    if wanted is None:
        return models[0]
    for entry in models:
        aliases = entry.get("aliases")
        if wanted == entry["id"] or (isinstance(aliases, list) and wanted in aliases):
            return entry
    served = ", ".join(shown_name(entry["id"]) for entry in models[:8])
    raise OpenAiError(f"it does not serve the model that ENGINE_MODEL names; it serves {served}")


def shown_name(model: str) -> str:
    """The model's name for windows, logs and clients: of a path its last part, printable and of bounded length."""
    name = model.rstrip("/").rsplit("/", 1)[-1] if model.startswith(("/", "./")) else model
    return "".join(character for character in name if character.isprintable())[:_MAX_MODEL_NAME]


def read_window(entry: dict[str, Any]) -> int:
    """The context window in an entry of `/v1/models`, in tokens; 0 if it is not told."""
    window = entry.get("max_model_len")
    return window if isinstance(window, int) and not isinstance(window, bool) and 0 < window < MAX_COUNT else 0


def refused(status: int) -> OpenAiError:
    """A status that is no success, with nothing more known of it."""
    if status in (401, 403):
        return OpenAiError(f"it wants another key (HTTP status {status}): set ENGINE_API_KEY", status=status)
    return OpenAiError(f"HTTP status {status}", status=status)


def read_refusal(status: int, body: bytes) -> OpenAiError:
    """What a refused chat completion says: too long a prompt (with the sizes, as far as they are told), or something else."""
    try:
        said = parse_json(body)
        error = said.get("error") if isinstance(said.get("error"), dict) else said
        window, prompt_tokens = error.get("n_ctx"), error.get("n_prompt_tokens")
        if isinstance(window, int) and isinstance(prompt_tokens, int):
            return OpenAiError(f"HTTP status {status}", status=status, prompt_tokens=prompt_tokens, window=window)
        text = str(error.get("message") or error.get("detail") or "")
    except (ValueError, AttributeError):
        text = ""
    found = _WINDOW.search(text) if status in (400, 413, 422) else None
    if found is None:
        return refused(status)
    prompt = _PROMPT.search(text)
    numbers = (
        [int(number) for name, number in prompt.groupdict().items() if name != "bound" and number] if prompt else []
    )
    return OpenAiError(
        f"HTTP status {status}",
        status=status,
        prompt_tokens=numbers[0] if numbers else 0,
        window=int(found[1]),
        is_lower_bound=prompt is not None and prompt["bound"] is not None,
    )
