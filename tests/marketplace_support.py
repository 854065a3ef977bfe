"""The stand-in marketplace on a real chain: the rules of Fabstir's deployed contract, with hands for tests.

Fixture `marketplace` needs `world` of chain_support; import both into a folder's conftest.py.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest_asyncio
from chain_support import World
from eth_utils.address import to_checksum_address

from fabstir_desktop.devnet.artifacts import Artifact, DecodedEvent, load_artifact

NATIVE = "0x" + "00" * 20
PRICE = 10**13
"""Thousandths of a wei for a token: ten gwei."""

SESSION_FIELDS = (
    *("id", "depositor", "host", "paymentToken", "deposit", "pricePerToken", "tokensUsed", "maxDuration"),
    *("startTime", "lastProofTime", "proofInterval", "proofTimeoutWindow", "status", "withdrawnByHost"),
    *("refundedToUser", "conversationCID", "lastProofHash", "lastProofCID"),
)


@dataclass(slots=True)
class Marketplace:
    """A deployed JobMarketplaceStandIn with its HostEarnings."""

    world: World
    artifact: Artifact
    address: str
    earnings_artifact: Artifact
    earnings_address: str

    async def create_session(
        self,
        *,
        tokens: int = 100_000,
        price: int = PRICE,
        proof_interval: int = 100,
        proof_timeout_s: int = 300,
        max_duration_s: int = 86_400,
        host: str | None = None,
    ) -> int:
        """Open a session whose deposit covers `tokens`; return its id."""
        data = self.artifact.encode_call(
            "createSessionJobForModel",
            host or self.world.host_address,
            b"\x11" * 32,
            price,
            max_duration_s,
            proof_interval,
            proof_timeout_s,
        )
        receipt = await self.world.payer.transact(self.address, data, value_wei=tokens * price // 1000)
        return int(self.artifact.decode_events(receipt["logs"], "SessionJobCreated")[0]["jobId"])

    def claim_data(self, job_id: int, tokens: int, proof_hash: bytes | None = None) -> str:
        digest = proof_hash or secrets.token_bytes(32)
        return self.artifact.encode_call("submitProofOfWork", job_id, tokens, digest, "", "")

    async def claim(self, job_id: int, tokens: int, proof_hash: bytes | None = None) -> dict[str, Any]:
        """Claim as the host, without any of the product's code."""
        return await self.world.host.transact(self.address, self.claim_data(job_id, tokens, proof_hash))

    async def complete(self, job_id: int, *, as_host: bool = True) -> dict[str, Any]:
        sender = self.world.host if as_host else self.world.payer
        return await sender.transact(self.address, self.artifact.encode_call("completeSessionJob", job_id, "cid"))

    async def session(self, job_id: int) -> dict[str, Any]:
        """The 18 fields of a session by name."""
        return dict(zip(SESSION_FIELDS, await self.read("sessionJobs", job_id), strict=True))

    async def read(self, function: str, *arguments: Any) -> tuple[Any, ...]:
        return await self.world.client.read(self.artifact, self.address, function, *arguments)

    async def earnings_wei(self) -> int:
        """What the host could withdraw."""
        client = self.world.client
        arguments = (self.world.host_address, NATIVE)
        return int((await client.read(self.earnings_artifact, self.earnings_address, "getBalance", *arguments))[0])

    def events(self, receipt: dict[str, Any], name: str | None = None) -> list[DecodedEvent]:
        return self.artifact.decode_events(receipt["logs"], name)


async def deploy_marketplace(
    world: World, *, dispute_window_s: int = 30, tokens_per_second: int = 2_000
) -> Marketplace:
    artifact, address = await world.deploy("JobMarketplaceStandIn", dispute_window_s, tokens_per_second)
    (earnings,) = await world.client.read(artifact, address, "hostEarnings")
    return Marketplace(world, artifact, address, load_artifact("HostEarningsStandIn"), to_checksum_address(earnings))


@pytest_asyncio.fixture
async def marketplace(world: World) -> AsyncIterator[Marketplace]:
    yield await deploy_marketplace(world)
