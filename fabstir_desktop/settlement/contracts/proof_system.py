"""The brief's ProofSystem: `submitCheckpoint(jobId, tokensGenerated, proof)`, paid 90/10 as it is claimed.

Works against a contract that has nothing else: then the job cannot be read (only simulated) and earnings are unknown,
because they are never computed here.
"""

from __future__ import annotations

from collections.abc import Sequence

from fabstir_desktop.errors import ContractNotSupported
from fabstir_desktop.jobs.claims import Payment
from fabstir_desktop.settlement.abi import ContractCall, ContractEvent
from fabstir_desktop.settlement.chain_client import ChainClient, EventLog
from fabstir_desktop.settlement.contracts.base import (
    ClaimRules,
    ClaimSeen,
    DecodedClaim,
    JobFacts,
    Refusal,
    RefusalKind,
    address_topic,
    job_topic,
)
from fabstir_desktop.settlement.contracts.code_probe import answers_claims, has_call, has_event, readable_code

SUBMIT = ContractCall("submitCheckpoint", ("uint256", "uint256", "bytes"))
JOBS = ContractCall("jobs", ("uint256",), ("address", "address", "uint256", "uint256", "uint256", "bool"))
PROOF_USED = ContractCall("proofUsed", ("address", "bytes32"), ("bool",))
CHECKPOINT_SUBMITTED = ContractEvent("CheckpointSubmitted", ("uint256", "address"), ("uint256", "bytes32"))
PAYMENT_DISTRIBUTED = ContractEvent("PaymentDistributed", ("uint256", "address"), ("uint256", "address", "uint256"))

REFUSALS: tuple[tuple[str, RefusalKind, str], ...] = (
    ("no such job", RefusalKind.UNKNOWN_JOB, "the contract does not know this job"),
    ("not the job's host", RefusalKind.NOT_OURS, "the job belongs to another host than your key's address"),
    ("only host", RefusalKind.NOT_OURS, "the job belongs to another host than your key's address"),
    ("not host", RefusalKind.NOT_OURS, "the job belongs to another host than your key's address"),
    ("job not open", RefusalKind.CLOSED, "the job was already ended"),
    ("not active", RefusalKind.CLOSED, "the job has already ended or timed out"),
    ("zero tokens", RefusalKind.TOO_FEW, "there is nothing to claim"),
    ("deposit", RefusalKind.DEPOSIT, "this is more than the customer deposited for the job"),
    ("proof already used", RefusalKind.REPLAYED, "a claim with this proof has landed before"),
    ("already submitted", RefusalKind.REPLAYED, "a claim with this proof has landed before"),
    ("proof", RefusalKind.BAD_PROOF, "the contract does not accept the proof; the app may be too old for it"),
    ("0xd93c0665", RefusalKind.PAUSED, "the contract is paused by its operators; claims wait"),
    ("enforcedpause", RefusalKind.PAUSED, "the contract is paused by its operators; claims wait"),
    ("paused", RefusalKind.PAUSED, "the contract is paused by its operators; claims wait"),
)
"""Fragments of reasons, lower case, first hit wins."""


class ProofSystem:
    """The ProofSystem at one address."""

    def __init__(self, client: ChainClient, address: str) -> None:
        self._client = client
        self.address = address
        self.rules = ClaimRules()
        self.has_jobs = False
        self.has_events = False
        self.has_claim_events = False
        self._has_proof_used = False

    async def probe(self) -> None:
        """Check that code is there and speaks this interface. Raises ContractNotSupported, or another ChainError."""
        code = await readable_code(self._client, self.address)
        if not await answers_claims(self._client, self.address, code, SUBMIT, SUBMIT.encode(0, 0, b"")):
            raise ContractNotSupported(
                f"The contract at {self.address} has no submitCheckpoint: it is no ProofSystem, or of another kind than "
                "this version knows. Nothing will be sent to it; check the contract address"
            )
        self.has_jobs = has_call(code, JOBS)
        self.has_events = has_event(code, PAYMENT_DISTRIBUTED)
        self.has_claim_events = has_event(code, CHECKPOINT_SUBMITTED)
        self._has_proof_used = has_call(code, PROOF_USED)

    def encode_claim(self, job_id: int, tokens: int, proof: bytes) -> bytes:
        """The calldata of a claim; `proof` are the 97 bytes."""
        return SUBMIT.encode(job_id, tokens, proof)

    def decode_claim(self, calldata: bytes) -> DecodedClaim | None:
        """What a claim's calldata claims; None if it is no claim."""
        try:
            job_id, tokens, proof = SUBMIT.decode_inputs(calldata)
        except ValueError:
            return None
        return DecodedClaim(job_id, tokens, bytes(proof[:32]))

    async def simulate(self, host: str, calldata: bytes) -> None:
        """`eth_call` of a claim from the host. Raises CallReverted."""
        await self._client.call(self.address, calldata, sender=host)

    async def read_job(self, job_id: int, which: int | str = "latest") -> JobFacts | None:
        """The job; None where the contract cannot be asked."""
        if not self.has_jobs:
            return None
        answer = await self._client.call(self.address, JOBS.encode(job_id), which=which)
        try:
            _client, host, price, deposit, paid, is_open = JOBS.decode(answer)
        except ValueError as error:
            raise ContractNotSupported(
                f"The contract at {self.address} answers jobs({job_id}) differently than this version knows"
            ) from error
        return JobFacts(
            job_id=job_id,
            host=str(host),
            price_per_token_wei=price,
            covered_tokens=deposit // price if price else 0,
            paid_tokens=paid,
            is_open=is_open,
        )

    async def is_proof_used(self, host: str, proof_hash: bytes, which: int | str = "latest") -> bool | None:
        """Whether a claim with this proof has landed; None where the contract cannot be asked."""
        if not self._has_proof_used:
            return None
        answer = await self._client.call(self.address, PROOF_USED.encode(host, proof_hash), which=which)
        return bool(PROOF_USED.decode(answer)[0])

    def encode_completion(self, job_id: int) -> bytes:  # noqa: ARG002 - claims are paid at once
        """Nothing: claims are paid at once."""
        return b""

    def encode_time_out(self, job_id: int) -> bytes:  # noqa: ARG002 - jobs have no time-out
        """Nothing: jobs have no time-out."""
        return b""

    async def earnings_balance(self, host: str, token: str) -> int | None:  # noqa: ARG002 - it keeps nothing
        """None: it pays in the transaction that proves."""
        return None

    async def payments(self, logs: Sequence[EventLog]) -> list[Payment]:
        """Payments that the logs report; a log that is none of this contract's is passed over."""
        found = []
        for entry in logs:
            if self.paid_job(entry) is None:
                continue
            job_id, _host, host_amount, _treasury, treasury_amount = PAYMENT_DISTRIBUTED.decode(
                entry.topics, entry.data
            )
            found.append(
                Payment(job_id, entry.tx_hash, entry.log_index, entry.block_number, "ETH", host_amount, treasury_amount)
            )
        return found

    def paid_job(self, entry: EventLog) -> int | None:
        """The job that a payment event is about; None if it is no payment of this contract."""
        is_ours = entry.address.lower() == self.address.lower() and entry.topics[:1] == (PAYMENT_DISTRIBUTED.topic,)
        return int.from_bytes(entry.topics[1], "big") if is_ours and len(entry.topics) > 1 else None

    def payment_topics(self, host: str) -> list[list[bytes] | None]:
        """The topics that find the payments of a host."""
        return [[PAYMENT_DISTRIBUTED.topic], None, [address_topic(host)]]

    async def claims_seen(self, job_id: int | None, host: str, first_block: int, last_block: int) -> list[ClaimSeen]:
        """Claims of a host (for one job, or any) that events report; empty where there are no events."""
        if not self.has_claim_events:
            return []
        topics = [[CHECKPOINT_SUBMITTED.topic], job_topic(job_id), [address_topic(host)]]
        return self.claims_in(await self._client.logs(self.address, topics, first_block, last_block))

    def claims_in(self, logs: Sequence[EventLog]) -> list[ClaimSeen]:
        """Claims that the logs report; a log that is none of this contract's is passed over."""
        seen = []
        for entry in logs:
            if entry.address.lower() == self.address.lower() and entry.topics[:1] == (CHECKPOINT_SUBMITTED.topic,):
                job_id, host, tokens, proof_hash = CHECKPOINT_SUBMITTED.decode(entry.topics, entry.data)
                place = (entry.tx_hash, entry.block_number, entry.block_hash)
                seen.append(ClaimSeen(job_id, str(host), tokens, proof_hash, *place))
        return seen

    def explain(self, reason: str) -> Refusal:
        """The contract's own reason in words for the host."""
        return explain_with(REFUSALS, reason)


def explain_with(table: Sequence[tuple[str, RefusalKind, str]], reason: str) -> Refusal:
    """Look a reason up by fragment; an unknown one is shown as it is."""
    lowered = reason.lower()
    for fragment, kind, plain in table:
        if fragment in lowered:
            return Refusal(kind, plain)
    return Refusal(RefusalKind.UNKNOWN, f"the contract refuses it: {reason or 'no reason given'}")
