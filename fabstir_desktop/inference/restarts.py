"""After a death of the worker: when to start it again, whether to give up, and which prompts not to try again. Pure."""

from __future__ import annotations

import hashlib
import re
import signal
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

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

    @property
    def from_outside(self) -> bool:
        """Whether something else ended it (the system out of memory, a person): no prompt does that by itself."""
        return not self.hung and self.exit_code in (-9, -15, -2)


class RestartPolicy:
    """Counts deaths. `now_s` is any steady clock."""

    def __init__(self, limits: EngineLimits) -> None:
        self._limits = limits
        self._deaths: deque[float] = deque()

    def delay_after_death(self, now_s: float) -> float | None:
        """Seconds to wait before the next start; None: give up."""
        self._deaths.append(now_s)
        while self._deaths and now_s - self._deaths[0] > self._limits.deaths_window_s:
            self._deaths.popleft()
        if len(self._deaths) >= self._limits.deaths_until_failed:
            return None
        delays = self._limits.restart_delays_s
        return delays[min(len(self._deaths), len(delays)) - 1]

    def reset(self) -> None:
        """Another model, or the host's own wish to try again: the past does not count."""
        self._deaths.clear()


class Quarantine:
    """Prompts that were running when the worker died; in memory only, as hashes.

    A fault inside the worker quarantines at once the prompts that were still being read (all running ones if there are
    none). When the worker was ended from outside, a prompt is quarantined only the second time.
    """

    def __init__(self) -> None:
        self._strikes: dict[bytes, int] = {}

    def blame(self, prompts: Iterable[bytes], death: Death) -> None:
        """Note the prompts (their hashes) under suspicion."""
        for prompt in prompts:
            self._strikes[prompt] = self._strikes.get(prompt, 0) + (1 if death.from_outside else 2)
        while len(self._strikes) > _MAX_REMEMBERED:
            self._strikes.pop(next(iter(self._strikes)))

    def holds(self, prompt: bytes) -> bool:
        """Whether the prompt is not to be tried again."""
        return self._strikes.get(prompt, 0) >= 2

    def clear(self) -> None:
        """Forget all: another model reads differently."""
        self._strikes.clear()


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
