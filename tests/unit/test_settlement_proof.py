"""The proof record: canonical, the same for the same claim, different for any other, and checked from its files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st
from settlement_support import make_signer

from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.ledger.ledger import TranscriptSegment
from fabstir_desktop.settlement.proof import (
    PROOF_BYTES,
    ProofRecord,
    answers_to_replay,
    canonical_json,
    companion_path,
    join_proof,
    make_record,
    simulation_hash,
    store_proof,
    transcript_file,
    verify_record,
)

KEY = "0x" + "11" * 32
HOST = Account.from_key(KEY).address
VENUE = Venue(84532, "0x2ACcc60893872A499700908889B38C5420CBcFD1", "proof_system")
SEGMENT = TranscriptSegment(3, 100, (5, 6, 7), (1, 2), '{"seed":7}', "ab" * 32)


def record_of(**changes: object) -> ProofRecord:
    fields: dict[str, object] = {
        "host": HOST,
        "job_id": 12345,
        "start": 100,
        "end": 103,
        "segments": [SEGMENT],
        "previous": bytes(32),
    }
    venue = changes.pop("venue", VENUE)
    return make_record(venue, **(fields | changes))  # type: ignore[arg-type]


def test_the_record_is_canonical_json_of_the_named_fields() -> None:
    record = record_of().record
    fields = json.loads(record)
    assert record == canonical_json(fields)
    assert fields == {
        "version": "1",
        "chain": "84532",
        "contract": VENUE.contract.lower(),
        "host": HOST.lower(),
        "job": "12345",
        "from": "100",
        "to": "103",
        "model": "ab" * 32,
        "transcript": fields["transcript"],
        "previous": "00" * 32,
    }
    assert record_of() == record_of()


@pytest.mark.parametrize(
    "change",
    [
        {"venue": replace(VENUE, chain_id=1)},
        {"venue": replace(VENUE, contract="0x" + "22" * 20)},
        {"host": "0x" + "33" * 20},
        {"job_id": 12346},
        {"previous": b"\x01" * 32},
        {"segments": [replace(SEGMENT, token_ids=(5, 6, 8))]},
        {"segments": [replace(SEGMENT, prompt_ids=(1, 3))]},
        {"segments": [replace(SEGMENT, parameters='{"seed":8}')]},
        {"segments": [replace(SEGMENT, model_sha256="cd" * 32)]},
        {"segments": [replace(SEGMENT, token_ids=(5,)), replace(SEGMENT, start=101, token_ids=(6, 7))]},
        {"start": 99, "end": 102},
    ],
)
def test_anything_else_gives_another_hash(change: dict[str, object]) -> None:
    assert record_of(**change).proof_hash != record_of().proof_hash


@given(st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=20), min_size=1, max_size=6))
def test_the_record_covers_exactly_its_range(pieces: list[list[int]]) -> None:
    segments, position = [], 0
    for number, piece in enumerate(pieces):
        segments.append(TranscriptSegment(number, position, tuple(piece), (), "", ""))
        position += len(piece)
    made = record_of(start=0, end=position, segments=segments)
    assert made.tokens == position
    with pytest.raises(ValueError, match="does not cover"):
        record_of(start=0, end=position + 1, segments=segments)


def test_a_simulated_claims_hash_is_no_records_hash() -> None:
    assert simulation_hash(HOST, 12345) != record_of().proof_hash
    assert simulation_hash(HOST, 1) != simulation_hash(HOST, 2)


async def test_the_proof_is_what_the_contract_recovers() -> None:
    made = record_of()
    signature = await make_signer(KEY, 84532, VENUE.contract).sign_proof(made.proof_hash, made.tokens)
    proof = join_proof(made.proof_hash, signature)
    assert len(proof) == PROOF_BYTES
    packed = made.proof_hash + bytes.fromhex(HOST[2:]) + made.tokens.to_bytes(32, "big")
    assert Account.recover_message(encode_defunct(keccak(packed)), signature=proof[32:]) == HOST


async def stored(folder: Path) -> Path:
    made = record_of()
    signature = await make_signer(KEY, 84532, VENUE.contract).sign_proof(made.proof_hash, made.tokens)
    companion = transcript_file([SEGMENT], join_proof(made.proof_hash, signature), {3: [4]})
    assert store_proof(folder, made, companion) == store_proof(folder, made, companion)
    return folder / f"{made.proof_hash.hex()}.json"


async def test_a_stored_record_verifies(tmp_path: Path) -> None:
    report = verify_record(await stored(tmp_path))
    assert report.passed
    assert [check.name for check in report.checks] == ["record", "hash", "transcript", "signature"]
    assert HOST in report.checks[-1].detail


@pytest.mark.parametrize(
    ("old", "new", "failing"),
    [
        (b'"job":"12345"', b'"job":"12346"', {"hash", "signature"}),
        (b'"to":"103"', b'"to":"104"', {"hash", "transcript", "signature"}),
        (b'"chain":"84532"', b'"chain": "84532"', {"record"}),
        (b'"version":"1"', b'"version":"2"', {"record"}),
        (b'"from":"100"', b'"from":"103"', {"record"}),
        (b"{", b"", {"record"}),
    ],
)
async def test_a_changed_record_does_not_verify(tmp_path: Path, old: bytes, new: bytes, failing: set[str]) -> None:
    path = await stored(tmp_path)
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    assert {check.name for check in verify_record(path).checks if not check.passed} == failing


@pytest.mark.parametrize(
    ("old", "new", "failing"),
    [
        (b"[5,6,7]", b"[5,6,8]", {"transcript"}),
        (b'"proof":"', b'"proof":"00', {"signature"}),
        (b"{", b"", {"transcript"}),
    ],
)
async def test_a_changed_transcript_does_not_verify(tmp_path: Path, old: bytes, new: bytes, failing: set[str]) -> None:
    path = await stored(tmp_path)
    companion = companion_path(path)
    companion.write_bytes(companion.read_bytes().replace(old, new, 1))
    assert {check.name for check in verify_record(path).checks if not check.passed} == failing


async def test_an_answer_is_replayed_from_its_first_token(tmp_path: Path) -> None:
    (answer,) = answers_to_replay(await stored(tmp_path))
    assert (answer.prompt, answer.tokens, answer.earlier) == ((1, 2), (4, 5, 6, 7), 1)
    assert (answer.model_sha256, answer.parameters) == (SEGMENT.model_sha256, SEGMENT.parameters)


async def test_a_missing_file_is_a_failed_check_and_no_crash(tmp_path: Path) -> None:
    assert not verify_record(tmp_path / "none.json").passed
    path = await stored(tmp_path)
    companion_path(path).unlink()
    assert not verify_record(path).passed
