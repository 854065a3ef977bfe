"""A worker without a process or a model: the true wire, lanes, decode loop and core, over a vocabulary that is made up.

The next token is a function of all the tokens in a sequence's cells and of the seed. So an answer is known beforehand, and
one that was computed on the wrong cells is another.
"""

from __future__ import annotations

import asyncio
import queue
import random
import zlib
from collections.abc import Callable
from typing import Any

from fabstir_desktop.inference import wire
from fabstir_desktop.inference.core import EngineCore
from fabstir_desktop.inference.lanes import Lanes
from fabstir_desktop.inference.llama import Batch, ContextOptions, DecodeError
from fabstir_desktop.inference.loop import DecodeLoop
from fabstir_desktop.inference.preparation import Preparer
from fabstir_desktop.inference.restarts import Death

END = 2
"""The token that ends a generation."""
PIECES = [
    b"a",
    b"b",
    b" ",
    b"\xc3",
    b"\xa9",
    b"\xe2\x82",
    b"\xac",
    b"\xf0\x9f",
    b"\x98\x80",
    "é€".encode(),
    b"ST",
    b"OP",
    b"",
]
WINDOW = 96


def next_token(cells: bytes, seed: int) -> int:
    """The model: about one token in twenty ends the answer."""
    drawn = zlib.crc32(cells, seed) >> 7
    return END if drawn % 20 == 0 else 10 + drawn // 20 % len(PIECES)


def piece_of(token: int) -> bytes:
    return PIECES[token - 10]


class ScriptedContext:
    """Cells in lists. Some of what a real one may refuse is refused, by `chance`."""

    def __init__(self, model: ScriptedModel, options: ContextOptions) -> None:
        self.window = options.window
        self.handle = self
        self._model = model
        self._cells: list[bytearray] = [bytearray() for _ in range(options.sequences)]
        self._rows: list[bytes] = []

    def decode(self, batch: Batch) -> None:
        self._model.decodes += 1
        if self._model.fails(self._model.decode_failures):
            raise DecodeError("llama_decode failed with code -3")
        size = batch.size
        self._rows = []
        for token, position, sequence in zip(
            batch._tokens[:size].tolist(),
            batch._positions[:size].tolist(),
            batch._sequences[:size].tolist(),
            strict=True,
        ):
            cells = self._cells[sequence]
            assert position == len(cells) < self.window, "each token stands right behind the one before it"
            cells.append(token)
            self._rows.append(bytes(cells))
        self._model.tokens_read += size

    def after(self, index: int) -> bytes:
        """All the cells up to the batch's token `index`."""
        return self._rows[index]

    def cut(self, sequence: int, start: int) -> bool:
        if start > 0 and start < len(self._cells[sequence]) and self._model.fails(self._model.cache_failures):
            return False
        del self._cells[sequence][start:]
        return True

    def state_bytes(self, sequence: int) -> int:
        return len(self._cells[sequence])

    def save(self, sequence: int) -> bytes:
        return bytes(self._cells[sequence])

    def restore(self, sequence: int, state: bytes) -> bool:
        if self._model.fails(self._model.cache_failures):
            return False
        assert not self._cells[sequence]
        self._cells[sequence] += state
        return True

    def close(self) -> None:
        self._cells = []


class ScriptedSampler:
    def __init__(self, parameters: wire.Sampling) -> None:
        self._seed = parameters.seed
        self.is_closed = False

    def sample(self, context: Any, index: int) -> int:
        assert not self.is_closed
        return next_token(context.after(index), self._seed)

    def close(self) -> None:
        self.is_closed = True


class ScriptedModel:
    """The made-up vocabulary. `decode_failures` and `cache_failures` are chances in 0..1."""

    chat_template = None
    bos_id = None
    bos_text = eos_text = ""

    def __init__(self, dice: random.Random, *, decode_failures: float = 0.0, cache_failures: float = 0.0) -> None:
        self.dice = dice
        self.decode_failures = decode_failures
        self.cache_failures = cache_failures
        self.tokens_read = self.decodes = 0
        self.samplers: list[ScriptedSampler] = []

    def fails(self, chance: float) -> bool:
        return chance > 0 and self.dice.random() < chance

    def new_context(self, options: ContextOptions) -> ScriptedContext:
        return ScriptedContext(self, options)

    def new_sampler(self, parameters: wire.Sampling) -> ScriptedSampler:
        self.samplers.append(ScriptedSampler(parameters))
        return self.samplers[-1]

    def is_end(self, token: int) -> bool:
        return token == END

    def piece(self, token: int) -> bytes:
        return piece_of(token)

    def tokenise(self, text: str, *, parse_controls: bool) -> list[int]:
        return list(text.encode())

    def control_texts(self) -> list[str]:
        return []


def scripted_core(model: ScriptedModel, *, sequences: int = 4, cache_bytes: int = 10_000) -> EngineCore:
    options = ContextOptions(WINDOW, sequences, 1, batch_tokens=WINDOW * sequences, unit_tokens=64)
    return EngineCore(model, options, [], cache_bytes)


class ScriptedProcess:
    """Stands in for WorkerProcess. Nothing happens but in `advance`, and all that is said goes through the wire, cut anyhow."""

    pid = 4242

    def __init__(
        self, model: ScriptedModel, on_message: Callable[[wire.FromWorker], None], on_death: Callable[[Death], None]
    ) -> None:
        self.model = model
        self._on_message = on_message
        self._on_death = on_death
        self._heard = wire.FrameReader()
        self._said = wire.FrameReader()
        self._underway = bytearray()
        self._lanes = Lanes()
        self._work: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.core = scripted_core(model)
        self._loop = DecodeLoop(self.core, self._work, self._lanes, self._say)
        self._preparer = Preparer(model, WINDOW)  # type: ignore[arg-type]
        self.is_over = False
        self._is_closing = False

    # --- what the supervisor calls

    def send(self, message: wire.Message) -> None:
        for body in self._heard.feed(wire.encode(message)):
            heard = wire.to_worker_decoder.decode(body)
            if isinstance(heard, wire.Begin):
                self._lanes.add(heard)
            elif isinstance(heard, wire.Load):
                self._say(wire.Ready(wire.PROTOCOL_VERSION, WINDOW, 0, 1))
            else:
                self._work.put(heard)

    def close(self) -> None:
        asyncio.get_running_loop().call_soon(self.die, 0)

    def kill(self, hung: str = "") -> None:
        asyncio.get_running_loop().call_soon(self.die, -9)

    # --- what the test calls

    def die(self, exit_code: int) -> None:
        """It dies; of what it said last, a part never arrives."""
        if not self.is_over:
            self._deliver(self.model.dice.randint(0, len(self._underway)))
            self.is_over = True
            self._on_death(Death(exit_code))

    def advance(self) -> None:
        """A little of everything: prepare, decode, deliver."""
        dice = self.model.dice
        while not self._lanes._queues[False].empty() and dice.random() < 0.7:
            self._lanes.run_once(self._preparer.prepare, self._work.put, is_long=False)
        if self.core.busy or not self._work.empty():
            self._loop.turn()
        self._deliver(len(self._underway) if dice.random() < 0.5 else dice.randint(0, len(self._underway)))

    def _say(self, message: wire.Message) -> None:
        self._underway += wire.encode(message)

    def _deliver(self, size: int) -> None:
        data = bytes(self._underway[:size])
        del self._underway[:size]
        if not self.is_over:
            for body in self._said.feed(data):
                self._on_message(wire.from_worker_decoder.decode(body))
