"""Where customers of the JobMarketplace find hosts: whether this host is listed, active, at its present address, with its model.

It is only read. A marketplace that names no register, or one that answers in another form, tells nothing: then nothing is
said, for a wrong alarm about registration would cost the host more than silence. What it says never holds up a claim.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fabstir_desktop.errors import ChainError
from fabstir_desktop.jobs.problems import Problem
from fabstir_desktop.jobs.states import problem
from fabstir_desktop.settlement.abi import ContractCall
from fabstir_desktop.settlement.board import ProblemBoard
from fabstir_desktop.settlement.chain_client import ChainClient

log = logging.getLogger(__name__)

NODE_REGISTRY = ContractCall("nodeRegistry", (), ("address",))
MODEL_REGISTRY = ContractCall("modelRegistry", (), ("address",))
MODEL_HASH = ContractCall("getModelHash", ("bytes32",), ("bytes32",))
MINIMUM_STAKE = ContractCall("MIN_STAKE", (), ("uint256",))
FULL_INFO = ContractCall(
    "getNodeFullInfo",
    ("address",),
    ("address", "uint256", "bool", "string", "string", "bytes32[]", "uint256", "uint256"),
)
CODES = ("H01", "H02", "H03", "M04")
_NOBODY = "0x" + "00" * 20
_FAB = 10**18


@dataclass(frozen=True, slots=True)
class Entry:
    """A host as the register has it. `stake` and `minimum_stake` in the token's smallest unit; None: it cannot tell.

    `model_hashes` are the SHA-256 of its models' files, hex; None where the register of models could not be read.
    """

    is_registered: bool
    is_active: bool
    stake: int
    minimum_stake: int | None
    url: str
    model_hashes: frozenset[str] | None


class NodeRegister:
    """Reads one host's entry and says what stands in the way of customers."""

    def __init__(
        self,
        client: ChainClient,
        marketplace: str,
        board: ProblemBoard,
        *,
        public_url: str | None,
        model_sha256: Callable[[], str],
    ) -> None:
        self._client = client
        self._marketplace = marketplace
        self._board = board
        self._public_url = public_url
        self._model_sha256 = model_sha256

    async def look(self, host: str) -> None:
        """Read the entry and say what follows. Never raises: where the register cannot be read, nothing is known."""
        try:
            entry = await self.read(host)
        except (ChainError, ValueError) as error:
            log.debug("the register of hosts tells nothing: %s", error)
            self._board.clear(*CODES)
            return
        found = judge(entry, host, self._public_url, self._model_sha256())
        codes = {one.code for one in found}
        self._board.clear(*(code for code in CODES if code not in codes))
        for one in found:
            self._board.raise_(one)

    async def read(self, host: str) -> Entry:
        """The host's entry. Raises ChainError, and ValueError for an answer of another form."""
        (register,) = await self._ask(self._marketplace, NODE_REGISTRY)
        if register == _NOBODY or not await self._client.code(register):
            raise ValueError("the marketplace names no register")
        operator, stake, is_active, _metadata, url, models, _, _ = await self._ask(register, FULL_INFO, host)
        return Entry(
            is_registered=operator != _NOBODY,
            is_active=bool(is_active),
            stake=int(stake),
            minimum_stake=await self._minimum_stake(register),
            url=str(url),
            model_hashes=await self._hashes(register, models),
        )

    async def _ask(self, address: str, call: ContractCall, *values: Any) -> tuple[Any, ...]:
        return call.decode(await self._client.call(address, call.encode(*values)))

    async def _minimum_stake(self, register: str) -> int | None:
        try:
            (minimum,) = await self._ask(register, MINIMUM_STAKE)
        except (ChainError, ValueError):
            return None
        return int(minimum)

    async def _hashes(self, register: str, models: Sequence[bytes]) -> frozenset[str] | None:
        try:
            (models_at,) = await self._ask(register, MODEL_REGISTRY)
            found = [(await self._ask(str(models_at), MODEL_HASH, model))[0] for model in models]
        except (ChainError, ValueError):
            return None
        return frozenset(one.hex() for one in found if isinstance(one, bytes))


def judge(entry: Entry, host: str, public_url: str | None, model_sha256: str) -> list[Problem]:
    """What of the entry keeps customers away."""
    if not entry.is_registered:
        advice = "Register it with Fabstir's host tools; this version only reads the register."
        return [
            problem("H01", f"The address {host} is not a registered host; customers cannot book it.", advice=advice)
        ]
    found = []
    is_short = entry.minimum_stake is not None and entry.stake < entry.minimum_stake
    if is_short or not entry.is_active:
        stake = f"stake {entry.stake // _FAB}"
        stake += f" of {entry.minimum_stake // _FAB} FAB" if entry.minimum_stake is not None else " FAB"
        found.append(problem("H02", f"The host is registered, but not active: {stake}."))
    if public_url and entry.url and _place(entry.url) != _place(public_url):
        found.append(problem("H03", f"Customers are sent to {entry.url}, you serve on {public_url}."))
    if model_sha256 and entry.model_hashes and model_sha256 not in entry.model_hashes:
        message = "The loaded model is not on this host's list in the register; jobs for it would be refused."
        found.append(problem("M04", message))
    return found


def _place(url: str) -> tuple[str, int | None]:
    """Host and port, whatever the scheme and path: clients add those."""
    parts = urlsplit(url if "//" in url else f"//{url}")
    usual = {"https": 443, "wss": 443, "http": 80, "ws": 80}.get(parts.scheme)
    return (parts.hostname or "").lower(), parts.port or usual
