"""Fabstir's JobMarketplace as deployed: proofs of at least 100 tokens, paid when the session is completed.

`submitProofOfWork(jobId, tokensClaimed, proofHash, proofCID, deltaCID)` carries the increment and the hash of our proof
record; nothing is paid with it. `completeSessionJob` settles what was proven, by the host only after a dispute window.
Decisions rest on the session's state and on simulation; the texts of reverts only explain.
"""

from __future__ import annotations

from collections.abc import Sequence

from fabstir_desktop.errors import CallReverted, ContractNotSupported
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
from fabstir_desktop.settlement.contracts.code_probe import has_call, has_event, readable_code
from fabstir_desktop.settlement.contracts.proof_system import REFUSALS as COMMON_REFUSALS
from fabstir_desktop.settlement.contracts.proof_system import explain_with

SUBMIT = ContractCall("submitProofOfWork", ("uint256", "uint256", "bytes32", "string", "string"))
COMPLETE = ContractCall("completeSessionJob", ("uint256", "string"))
TIME_OUT = ContractCall("triggerSessionTimeout", ("uint256",))
_TEXTS = ("string", "bytes32", "string")
SESSION = ContractCall(
    "sessionJobs",
    ("uint256",),
    ("uint256", "address", "address", "address", *("uint256",) * 8, "uint8", "uint256", "uint256", *_TEXTS),
)
MINIMUM = ContractCall("MIN_PROVEN_TOKENS", (), ("uint256",))
PRECISION = ContractCall("PRICE_PRECISION", (), ("uint256",))
DISPUTE_WINDOW = ContractCall("disputeWindow", (), ("uint256",))
PROOF_SYSTEM = ContractCall("proofSystem", (), ("address",))
HOST_EARNINGS = ContractCall("hostEarnings", (), ("address",))
BALANCE = ContractCall("getBalance", ("address", "address"), ("uint256",))
MARKETPLACE = ContractCall("marketplace", (), ("address",))
VERIFIED = ContractCall("verifiedProofs", ("bytes32",), ("bool",))
PROOF_SUBMITTED = ContractEvent("ProofSubmitted", ("uint256", "address"), ("uint256", "bytes32", "string", "string"))
SESSION_COMPLETED = ContractEvent("SessionCompleted", ("uint256",), ("uint256", "uint256", "uint256"))
SESSION_TIMED_OUT = ContractEvent("SessionTimedOut", ("uint256",), ("uint256", "uint256"))
ACTIVE = 0
NATIVE = "0x" + "00" * 20
COMPLETION_MARGIN_S = 5

REFUSALS: tuple[tuple[str, RefusalKind, str], ...] = (
    ("session not active", RefusalKind.CLOSED, "the session has already ended or timed out"),
    ("proof timeout", RefusalKind.CLOSED, "the session went too long without a proof and can be closed by anyone"),
    ("only host can submit proof", RefusalKind.NOT_OURS, "the job belongs to another host than your key's address"),
    ("low first", RefusalKind.TOO_FEW, "the first claim of this session must be larger"),
    ("must claim minimum tokens", RefusalKind.TOO_FEW, "fewer tokens than the contract takes in one claim"),
    ("excessive tokens claimed", RefusalKind.TOO_FAST, "more tokens per second than the contract allows; it waits"),
    ("too many", RefusalKind.TOO_FAST, "more tokens per second than the contract allows; it waits"),
    ("exceeds deposit", RefusalKind.DEPOSIT, "this is more than the customer deposited for the job"),
    ("dispute", RefusalKind.TOO_FAST, "the dispute window is still open; it waits"),
    ("invalid proof signature", RefusalKind.REPLAYED, "a claim with this proof has landed before"),
    *COMMON_REFUSALS,
)


class JobMarketplace:
    """The JobMarketplace at one address."""

    def __init__(self, client: ChainClient, address: str) -> None:
        self._client = client
        self.address = address
        self.rules = ClaimRules(minimum_tokens=100, settles_later=True, has_deadlines=True, events_name_host=False)
        self.has_jobs = True
        self.has_events = True
        self.has_claim_events = True
        self._precision = 1000
        self._dispute_window_s = 30
        self._proof_system = NATIVE
        self._has_time_out = False
        self._host_earnings = NATIVE

    async def probe(self) -> None:
        """Check code, selectors, constants and linked contracts. Raises ContractNotSupported, or another ChainError."""
        code = await readable_code(self._client, self.address)
        missing = [call.name for call in (SUBMIT, COMPLETE, SESSION) if not has_call(code, call)]
        if missing:
            raise self._not_supported(f"it has no {', '.join(missing)} in the form this version knows")
        minimum = await self._constant(MINIMUM)
        self._precision = await self._constant(PRECISION)
        self._dispute_window_s = await self._constant(DISPUTE_WINDOW)
        self._proof_system = await self._linked(PROOF_SYSTEM)
        self._host_earnings = await self._linked(HOST_EARNINGS)
        if self._precision <= 0:
            raise self._not_supported("its price precision is zero")
        self.rules = ClaimRules(minimum_tokens=minimum, settles_later=True, has_deadlines=True, events_name_host=False)
        self.has_events = has_event(code, SESSION_COMPLETED)
        self._has_time_out = has_call(code, TIME_OUT)
        self.has_claim_events = has_event(code, PROOF_SUBMITTED)

    def encode_claim(self, job_id: int, tokens: int, proof: bytes) -> bytes:
        """The calldata of a claim: of the 97 bytes of the proof only the hash goes to the chain."""
        return SUBMIT.encode(job_id, tokens, proof[:32], "", "")

    def decode_claim(self, calldata: bytes) -> DecodedClaim | None:
        """What a claim's calldata claims; None if it is no claim."""
        try:
            job_id, tokens, proof_hash, _cid, _delta = SUBMIT.decode_inputs(calldata)
        except ValueError:
            return None
        return DecodedClaim(job_id, tokens, proof_hash)

    def encode_completion(self, job_id: int) -> bytes:
        """The calldata that settles a session."""
        return COMPLETE.encode(job_id, "")

    def encode_time_out(self, job_id: int) -> bytes:
        """The calldata that closes a session after its time-out; empty where the contract has none."""
        return TIME_OUT.encode(job_id) if self._has_time_out else b""

    async def simulate(self, host: str, calldata: bytes) -> None:
        """`eth_call` from the host. Raises CallReverted."""
        await self._client.call(self.address, calldata, sender=host)

    async def read_job(self, job_id: int, which: int | str = "latest") -> JobFacts | None:
        """The session. One that does not exist reads as active, with host zero."""
        answer = await self._client.call(self.address, SESSION.encode(job_id), which=which)
        try:
            fields = SESSION.decode(answer)
        except ValueError as error:
            raise self._not_supported(
                f"it answers sessionJobs({job_id}) differently than this version knows"
            ) from error
        host, token, deposit, price, used, longest_s, started, proven_at, interval, window_s, status = fields[2:13]
        return JobFacts(
            job_id=job_id,
            host=str(host),
            price_per_token_wei=price // self._precision,
            covered_tokens=deposit * self._precision // price if price else 0,
            paid_tokens=used,
            is_open=status == ACTIVE,
            first_claim_minimum=interval if used == 0 else 0,
            token="ETH" if str(token) == NATIVE else str(token),
            completable_at=max(started, proven_at) + self._dispute_window_s + COMPLETION_MARGIN_S,
            deadline=min(started + longest_s, proven_at + window_s),
            proof_deadline=proven_at + window_s,
            deadline_window_s=min(started + longest_s, proven_at + window_s) - max(started, proven_at),
        )

    async def is_proof_used(self, host: str, proof_hash: bytes, which: int | str = "latest") -> bool | None:  # noqa: ARG002
        """Whether a claim with this proof has landed, from any host; None where the registry cannot be asked."""
        if self._proof_system == NATIVE:
            return None
        try:
            answer = await self._client.call(self._proof_system, VERIFIED.encode(proof_hash), which=which)
            return bool(VERIFIED.decode(answer)[0])
        except (CallReverted, ValueError):
            return None

    async def earnings_balance(self, host: str, token: str) -> int | None:
        """What HostEarnings keeps for the host; None where it cannot be asked."""
        if self._host_earnings == NATIVE:
            return None
        call = BALANCE.encode(host, NATIVE if token == "ETH" else token)  # noqa: S105 - money, no secret
        try:
            return int(BALANCE.decode(await self._client.call(self._host_earnings, call))[0])
        except (CallReverted, ValueError):
            return None

    async def payments(self, logs: Sequence[EventLog]) -> list[Payment]:
        """What sessions were settled with. The event does not say what the treasury got: it is left at zero."""
        found = []
        for entry in logs:
            if self.paid_job(entry) is None:
                continue
            if entry.topics[0] == SESSION_COMPLETED.topic:
                job_id, _used, amount, _refund = SESSION_COMPLETED.decode(entry.topics, entry.data)
            else:
                job_id, amount, _refund = SESSION_TIMED_OUT.decode(entry.topics, entry.data)
            facts = await self.read_job(job_id)
            token = facts.token if facts is not None else "ETH"
            found.append(Payment(job_id, entry.tx_hash, entry.log_index, entry.block_number, token, amount, 0))
        return found

    def paid_job(self, entry: EventLog) -> int | None:
        """The session that was settled; None if the event says something else."""
        if entry.address.lower() != self.address.lower() or len(entry.topics) < 2:
            return None
        is_settlement = entry.topics[0] in (SESSION_COMPLETED.topic, SESSION_TIMED_OUT.topic)
        return int.from_bytes(entry.topics[1], "big") if is_settlement else None

    def payment_topics(self, host: str) -> list[list[bytes] | None]:  # noqa: ARG002 - the events do not name the host
        """The topics of settlements; they do not name the host."""
        return [[SESSION_COMPLETED.topic, SESSION_TIMED_OUT.topic]]

    async def claims_seen(self, job_id: int | None, host: str, first_block: int, last_block: int) -> list[ClaimSeen]:
        """Claims of a host (for one job, or any) that events report."""
        topics = [[PROOF_SUBMITTED.topic], job_topic(job_id), [address_topic(host)]]
        return self.claims_in(await self._client.logs(self.address, topics, first_block, last_block))

    def claims_in(self, logs: Sequence[EventLog]) -> list[ClaimSeen]:
        """Claims that the logs report; a log that is none of this contract's is passed over."""
        seen = []
        for entry in logs:
            if entry.address.lower() == self.address.lower() and entry.topics[:1] == (PROOF_SUBMITTED.topic,):
                job_id, host, tokens, proof_hash, _cid, _delta = PROOF_SUBMITTED.decode(entry.topics, entry.data)
                place = (entry.tx_hash, entry.block_number, entry.block_hash)
                seen.append(ClaimSeen(job_id, str(host), tokens, proof_hash, *place))
        return seen

    def explain(self, reason: str) -> Refusal:
        """The contract's own reason in words for the host."""
        return explain_with(REFUSALS, reason)

    async def _constant(self, call: ContractCall) -> int:
        try:
            return int(call.decode(await self._client.call(self.address, call.encode()))[0])
        except (CallReverted, ValueError) as error:
            raise self._not_supported(f"it does not answer {call.name}()") from error

    async def _linked(self, call: ContractCall) -> str:
        """The address of a linked contract, which must have code and, where it names its marketplace, name this one."""
        try:
            address = str(call.decode(await self._client.call(self.address, call.encode()))[0])
        except (CallReverted, ValueError) as error:
            raise self._not_supported(f"it does not answer {call.name}()") from error
        if not await self._client.code(address):
            raise self._not_supported(f"its {call.name} at {address} has no code")
        try:
            other = str(MARKETPLACE.decode(await self._client.call(address, MARKETPLACE.encode()))[0])
        except (CallReverted, ValueError):
            return address  # it does not say whose it is
        if other.lower() != self.address.lower():
            raise self._not_supported(f"its {call.name} at {address} belongs to another marketplace, {other}")
        return address

    def _not_supported(self, why: str) -> ContractNotSupported:
        return ContractNotSupported(
            f"The contract at {self.address} does not speak as a JobMarketplace: {why}. Nothing will be sent to it; check "
            "the contract address"
        )
