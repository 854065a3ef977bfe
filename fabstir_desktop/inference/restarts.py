"""After a death of the worker: when to start it again, whether to give up, and which prompts not to try again. Pure."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import signal
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fabstir_desktop.inference.options import EngineLimits
from fabstir_desktop.jobs.generation import Message

_MAX_REMEMBERED = 1000
_TELLING = re.compile(r"error|assert|fatal|fail|memory|abort|CUDA|worker", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker ended. `stderr` holds its last lines; `hung` if a watchdog ended it."""

    exit_code: int
    stderr: tuple[str, ...] = ()
    hung: str = ""

    @property
    def cause(self) -> str:
        """The signal or exit code in words, with what the last lines point to."""
        if self.hung:
            return self.hung
        text = " ".join(self.stderr).lower()
        if self.exit_code < 0:
            name = _signal_name(-self.exit_code)
        elif self.exit_code >= 0xC0000000:
            name = f"Windows status 0x{self.exit_code:08X}"
        else:
            name = f"exit code {self.exit_code}"
        hints = {
            "out of memory": "out of memory",
            "ggml_assert": "a failed check in llama.cpp",
            "cuda error": "GPU driver",
        }
        hint = next((plain for word, plain in hints.items() if word in text), "")
        return f"{name} ({hint})" if hint else name

    @property
    def last_words(self) -> str:
        """The lines that say most, at most two."""
        telling = [line for line in self.stderr if _TELLING.search(line)]
        return " | ".join((telling or [line for line in self.stderr if line])[-2:])


@dataclass(frozen=True, slots=True)
class Restart:
    """The next start after a death. `has_failed`: until it succeeds the engine counts as failed, and refuses prompts."""

    delay_s: float
    has_failed: bool
    deaths: int
    """Within the time that counts, the last one too."""


class RestartPolicy:
    """Counts deaths. `now_s` is any steady clock."""

    def __init__(self, limits: EngineLimits) -> None:
        self._limits = limits
        self._deaths: deque[float] = deque()

    def after_death(self, now_s: float) -> Restart:
        """When to start again, and whether too many died to say anything but that."""
        self._deaths.append(now_s)
        while self._deaths and now_s - self._deaths[0] > self._limits.deaths_window_s:
            self._deaths.popleft()
        delays = self._limits.restart_delays_s
        deaths = len(self._deaths)
        if deaths >= self._limits.deaths_until_failed:
            return Restart(delays[-1], has_failed=True, deaths=deaths)
        return Restart(delays[min(deaths, len(delays)) - 1], has_failed=False, deaths=deaths)

    def reset(self) -> None:
        """Another model, or the host's own wish to try again: the past does not count."""
        self._deaths.clear()


class Quarantine:
    """Prompts that were running when the worker died, as hashes; kept in `store` for the model they were asked of.

    Whatever ended the worker: what the system killed for want of memory may have been a prompt's doing as well.
    """

    def __init__(self, store: Path | None = None, model: str = "") -> None:
        self._store = store
        self._model = model
        self._prompts: dict[bytes, None] = dict.fromkeys(self._read())

    def blame(self, prompts: Iterable[bytes]) -> None:
        """Note the prompts (their hashes) under suspicion; the oldest are forgotten beyond a thousand."""
        self._prompts.update(dict.fromkeys(prompts))
        while len(self._prompts) > _MAX_REMEMBERED:
            self._prompts.pop(next(iter(self._prompts)))

    def holds(self, prompt: bytes) -> bool:
        """Whether the prompt is not to be tried again."""
        return prompt in self._prompts

    def forget(self, model: str) -> None:
        """Forget all: another model reads differently."""
        self._model = model
        self._prompts.clear()

    def save(self) -> None:
        """Write the hashes down, for the next start. Blocks on disk: call it in a thread. What cannot be written is lost."""
        if self._store is None:
            return
        temporary = self._store.with_suffix(".tmp")
        with contextlib.suppress(OSError):
            self._store.parent.mkdir(parents=True, exist_ok=True)
            hashes = [prompt.hex() for prompt in list(self._prompts)]
            temporary.write_text(json.dumps({"model": self._model, "prompts": hashes}), "utf-8")
            temporary.replace(self._store)

    def _read(self) -> list[bytes]:
        """What an earlier run wrote for the same model; nothing if that cannot be read."""
        try:
            stored = json.loads(self._store.read_text("utf-8")) if self._store is not None else {}
            return [bytes.fromhex(text) for text in stored["prompts"]] if stored.get("model") == self._model else []
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return []


def prompt_hash(messages: Iterable[Message]) -> bytes:
    """What a prompt is recognised by."""
    digest = hashlib.sha256()
    for message in messages:
        for part in (message.role, message.content):
            raw = part.encode("utf-8", errors="replace")
            digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.digest()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
