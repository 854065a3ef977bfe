"""Several RPC endpoints as one: the chain id pinned, reads from whoever is up to date, every endpoint for sends.

A fact that something is there may come from one endpoint (it is checked by hash); a fact that something is *not* there
needs all that answer to agree, see `ask_all`. An endpoint on another chain is never used for anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fabstir_desktop.errors import ChainError, RpcRefused, RpcUnreachable, WrongChain
from fabstir_desktop.settlement.agreement import agreed, is_agreeing
from fabstir_desktop.settlement.classifier import Answer, SendAnswer, classify

log = logging.getLogger(__name__)

REVERIFY_S = 600.0
ASK_ANOTHER = frozenset({Answer.RETRY, Answer.NO_HISTORY})
"""Refusals that say something of the endpoint, not of the question."""
LONGEST_REST_S = 60.0
LIMIT_REMEMBERED_S = 120.0
_LIMIT_CODE = -32005
_LIMIT_WORDS = re.compile(r"\b429\b|too many requests|rate.?limit|request rate", re.IGNORECASE)
LONGEST_RETRY_AFTER_S = 600.0
LAG_BLOCKS = 10
"""An endpoint that is so many blocks behind another one is asked last."""
HEAD_GOOD_FOR_S = 60.0
"""So long a head that an endpoint told is compared with the others'."""


class Endpoint(Protocol):
    """What the pool needs of an endpoint."""

    @property
    def name(self) -> str:
        """Host and port."""
        ...

    async def request(self, method: str, *params: Any, timeout_s: float | None = None) -> Any:
        """Ask once."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...


@dataclass(slots=True)
class _Health:
    failures: int = 0
    rests_until: float = 0.0
    verified_at: float | None = None
    wrong_chain_id: int | None = None
    limited_at: float | None = None
    head: int = -1
    head_at: float = float("-inf")


class RpcPool:
    """Endpoints in order of preference."""

    def __init__(
        self, endpoints: Sequence[Endpoint], chain_id: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._endpoints = _with_names_of_their_own(endpoints)
        self._hosts = [endpoint.name for endpoint in endpoints]  # two URLs of one host are one witness
        self._health = {endpoint.name: _Health() for endpoint in self._endpoints}
        self._chain_id = chain_id
        self._clock = clock
        self._last_used = self._endpoints[0].name
        self.request_count = 0

    @property
    def size(self) -> int:
        """How many endpoints there are."""
        return len(self._endpoints)

    @property
    def is_verified(self) -> bool:
        """Whether there are two hosts to agree on what must not be believed of one."""
        return len(set(self._hosts)) > 1

    @property
    def active_name(self) -> str:
        """Host name of the endpoint that answered last."""
        return self._last_used

    @property
    def limited_names(self) -> list[str]:
        """Endpoints that have refused for asking too often in the last two minutes."""
        since = self._clock() - LIMIT_REMEMBERED_S
        return [name for name, one in self._health.items() if one.limited_at is not None and one.limited_at > since]

    async def request(self, method: str, *params: Any) -> Any:
        """Ask the best endpoint, then the others while there is no usable answer.

        Raises RpcUnreachable, WrongChain (all that answer are on another chain), or RpcRefused with the node's own error.
        """
        if is_agreeing():
            return agreed(await self.ask_all(method, *params), self._hosts)
        return await self._first_answer(lambda endpoint: self._ask(endpoint, method, params))

    async def request_below_head(self, last_block: int, method: str, *params: Any) -> Any:
        """Like `request`, but only from an endpoint that has the block: what a node that lags does not list is not absent."""

        async def ask(endpoint: Endpoint) -> Any:
            head = quantity(await self._ask(endpoint, "eth_blockNumber", ()), "eth_blockNumber")
            if head < last_block:
                raise RpcUnreachable(f"{endpoint.name} is at block {head} and does not know block {last_block} yet")
            return await self._ask(endpoint, method, params)

        return await self._first_answer(ask)

    async def _first_answer(self, ask: Callable[[Endpoint], Awaitable[Any]]) -> Any:
        last: ChainError | None = None
        for endpoint in self._in_order():
            try:
                answer = await ask(endpoint)
            except RpcRefused as error:
                if classify(error.detail, error.code) not in ASK_ANOTHER:
                    raise
                last = error
            except ChainError as error:
                last = error if not isinstance(last, RpcUnreachable) else last
            else:
                self._last_used = endpoint.name
                return answer
        if last is None:
            raise RpcUnreachable("no RPC is configured")
        raise last if not isinstance(last, RpcRefused) else RpcUnreachable(str(last))

    async def ask_all(self, method: str, *params: Any) -> list[Any | ChainError]:
        """Ask every endpoint; failures are in the list as errors."""
        return await self._fan_out(lambda endpoint: self._ask(endpoint, method, params))

    def names_of_silent(self, answers: Sequence[object]) -> list[str]:
        """Host names of the endpoints that gave no answer to `ask_all`."""
        pairs = zip(self._endpoints, answers, strict=True)
        return [endpoint.name for endpoint, answer in pairs if isinstance(answer, ChainError)]

    async def send_raw(self, raw: bytes, tx_hash: bytes) -> list[SendAnswer]:
        """Hand the same bytes to every endpoint. An answer with another hash than ours counts as unknown."""
        results = await self._fan_out(
            lambda endpoint: self._ask(endpoint, "eth_sendRawTransaction", ("0x" + raw.hex(),))
        )
        return [
            self._read_send(endpoint.name, result, tx_hash)
            for endpoint, result in zip(self._endpoints, results, strict=True)
        ]

    async def verify(self) -> None:
        """Ask every endpoint for its chain id again, now. Raises WrongChain or RpcUnreachable if none is right."""

        async def ask(endpoint: Endpoint) -> None:
            health = self._health[endpoint.name]
            health.verified_at = None
            try:
                await self._verify(endpoint, health)
            except (RpcUnreachable, RpcRefused):
                self._rest(health)
                raise

        answers = await self._fan_out(ask)
        if any(answer is None for answer in answers):
            return
        wrong = next((answer for answer in answers if isinstance(answer, WrongChain)), None)
        raise wrong or RpcUnreachable(str(answers[0]) if answers else "no RPC is configured")

    @property
    def lags_blocks(self) -> dict[str, int]:
        """How many blocks each endpoint with a known head is behind the foremost one."""
        heads = {name: health.head for name, health in self._health.items() if self._has_fresh_head(health)}
        foremost = max(heads.values(), default=0)
        return {name: foremost - head for name, head in heads.items()}

    async def compare_heads(self) -> None:
        """Ask every endpoint for its newest block, so that reads go to those that are up to date."""
        if len(self._endpoints) > 1:
            await self.ask_all("eth_blockNumber")

    def end_rests(self) -> None:
        """The network is another than before: what failed then may answer now, and what answers is verified again."""
        for health in self._health.values():
            health.failures, health.rests_until, health.verified_at = 0, 0.0, None

    def distrust(self, name: str) -> None:
        """The endpoint answered as one of another chain would: others first, and its chain id is asked anew."""
        health = self._health.get(name)
        if health is not None:
            self._rest(health)

    async def close(self) -> None:
        """Close every endpoint."""
        for endpoint in self._endpoints:
            await endpoint.close()

    def _in_order(self) -> list[Endpoint]:
        """The order of preference, but who lags comes late and who rests comes last."""
        now, lags = self._clock(), self.lags_blocks

        def lateness(endpoint: Endpoint) -> tuple[bool, bool]:
            return self._health[endpoint.name].rests_until > now, lags.get(endpoint.name, 0) > LAG_BLOCKS

        return sorted(self._endpoints, key=lateness)

    def _has_fresh_head(self, health: _Health) -> bool:
        return self._clock() - health.head_at <= HEAD_GOOD_FOR_S

    def _note_head(self, health: _Health, method: str, params: Sequence[Any], answer: Any) -> None:
        if method == "eth_blockNumber":
            told = answer
        elif method == "eth_getBlockByNumber" and params[0] == "latest" and isinstance(answer, dict):
            told = answer.get("number")
        else:
            return
        with contextlib.suppress(RpcUnreachable):
            health.head, health.head_at = quantity(told, method), self._clock()

    async def _ask(self, endpoint: Endpoint, method: str, params: Sequence[Any]) -> Any:
        health = self._health[endpoint.name]
        try:
            await self._verify(endpoint, health)
            self.request_count += 1
            answer = await endpoint.request(method, *params)
        except RpcUnreachable:
            self._rest(health)
            raise
        except RpcRefused as error:
            if classify(error.detail, error.code) is Answer.RETRY:
                self._rest(health, error.retry_after_s)
            if error.code == _LIMIT_CODE or _LIMIT_WORDS.search(error.detail):
                health.limited_at = self._clock()
            raise
        health.failures, health.rests_until = 0, 0.0
        self._note_head(health, method, params, answer)
        return answer

    async def _verify(self, endpoint: Endpoint, health: _Health) -> None:
        now = self._clock()
        if health.verified_at is not None and now - health.verified_at < REVERIFY_S:
            return
        self.request_count += 1
        found = quantity(await endpoint.request("eth_chainId"), "eth_chainId")
        if found != self._chain_id:
            if health.wrong_chain_id != found:
                log.error("RPC %s is on chain %d, not %d: it is not used", endpoint.name, found, self._chain_id)
            health.wrong_chain_id = found
            health.verified_at = None
            raise WrongChain(self._chain_id, found)
        health.wrong_chain_id = None
        health.verified_at = now

    def _rest(self, health: _Health, asked_s: float | None = None) -> None:
        """Prefer others for a while, longer each time; whatever answers next may be another node: its chain is asked anew.

        `asked_s`: the endpoint itself said for how long.
        """
        health.failures += 1
        pause_s = min(LONGEST_REST_S, 2.0 ** min(health.failures - 1, 6))
        pause_s = max(pause_s, min(asked_s or 0.0, LONGEST_RETRY_AFTER_S))
        health.rests_until = self._clock() + pause_s * random.uniform(0.8, 1.2)  # noqa: S311 - only spreads load
        health.verified_at = None

    async def _fan_out(self, ask: Callable[[Endpoint], Awaitable[Any]]) -> list[Any | ChainError]:
        async def guarded(endpoint: Endpoint) -> Any | ChainError:
            try:
                return await ask(endpoint)
            except ChainError as error:
                return error

        return list(await asyncio.gather(*(guarded(endpoint) for endpoint in self._endpoints)))

    @staticmethod
    def _read_send(name: str, result: Any | ChainError, tx_hash: bytes) -> SendAnswer:
        match result:
            case RpcRefused():
                return SendAnswer(name, classify(result.detail, result.code), result.detail)
            case WrongChain():
                return SendAnswer(name, Answer.BAD_SIGNATURE, str(result))
            case ChainError():
                return SendAnswer(name, Answer.RETRY, str(result))
            case str() if result.lower() == "0x" + tx_hash.hex():
                return SendAnswer(name, Answer.SENT)
            case _:
                return SendAnswer(name, Answer.UNKNOWN, "the node answered with another transaction's hash")


@dataclass(frozen=True, slots=True)
class _Renamed:
    """An endpoint under a name of its own: two URLs of one host have two healths and are two witnesses."""

    name: str
    endpoint: Endpoint

    async def request(self, method: str, *params: Any, timeout_s: float | None = None) -> Any:
        """Ask once."""
        return await self.endpoint.request(method, *params, timeout_s=timeout_s)

    async def close(self) -> None:
        """Close connections."""
        await self.endpoint.close()


def _with_names_of_their_own(endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    names = [endpoint.name for endpoint in endpoints]
    return tuple(
        endpoint if names.count(name) == 1 else _Renamed(f"{name} ({number})", endpoint)
        for number, (name, endpoint) in enumerate(zip(names, endpoints, strict=True), start=1)
    )


def quantity(value: object, what: str) -> int:
    """A hexadecimal quantity of JSON-RPC. Raises RpcUnreachable: such an answer is no answer."""
    if isinstance(value, str) and value.startswith("0x"):
        try:
            return int(value, 16)
        except ValueError:
            pass
    raise RpcUnreachable(f"the answer to {what} is not a number")
