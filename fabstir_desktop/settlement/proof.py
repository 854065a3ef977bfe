"""The proof of a claim: a canonical record, its SHA-256, and the host's signature over it.

The record is a pure function of chain, contract, job, range, transcript and the proof before it: planned twice, a claim
has the same proof, so a contract that refuses a used proof hash refuses the second copy. It says what was generated from
what; it cannot prove to a stranger that a model really ran, only let someone with the same model run it again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabstir_desktop.jobs.ids import Venue
from fabstir_desktop.ledger.ledger import TranscriptSegment
from fabstir_desktop.wallet.signer import recover_proof_signer

VERSION = "1"
PROOF_BYTES = 97
FIELDS = frozenset({"version", "chain", "contract", "host", "job", "from", "to", "model", "transcript", "previous"})
SIMULATION_DOMAIN = b"fabstir-desktop simulated claim, never to be sent"


@dataclass(frozen=True, slots=True)
class ProofRecord:
    """The record's bytes (what is hashed), their hash, and what they say."""

    record: bytes
    proof_hash: bytes
    tokens: int


@dataclass(frozen=True, slots=True)
class Check:
    """One line of a verification."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a stored record's checks found. `fields` is the record as read, empty if it cannot be read."""

    checks: tuple[Check, ...]
    fields: dict[str, str]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces: the same bytes for the same content, anywhere."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def make_record(
    venue: Venue,
    *,
    host: str,
    job_id: int,
    start: int,
    end: int,
    segments: Sequence[TranscriptSegment],
    previous: bytes,
) -> ProofRecord:
    """The record of a claim `[start, end)`. Raises ValueError if the segments do not cover exactly that range."""
    if sum(len(segment.token_ids) for segment in segments) != end - start:
        raise ValueError(f"the transcript of job {job_id} does not cover tokens {start} to {end}")
    fields = {
        "version": VERSION,
        "chain": str(venue.chain_id),
        "contract": venue.contract.lower(),
        "host": host.lower(),
        "job": str(job_id),
        "from": str(start),
        "to": str(end),
        "model": ",".join(dict.fromkeys(segment.model_sha256 for segment in segments)),
        "transcript": transcript_root([_segment_fields(segment) for segment in segments]).hex(),
        "previous": previous.hex(),
    }
    record = canonical_json(fields)
    return ProofRecord(record, hashlib.sha256(record).digest(), end - start)


def transcript_root(segments: Sequence[dict[str, Any]]) -> bytes:
    """SHA-256 over the SHA-256 of each segment's canonical JSON, in order of the job's tokens."""
    root = hashlib.sha256()
    for segment in segments:
        root.update(hashlib.sha256(canonical_json(segment)).digest())
    return root.digest()


def transcript_file(segments: Sequence[TranscriptSegment], proof: bytes, earlier: Mapping[int, Sequence[int]]) -> bytes:
    """The companion of a record: signature and transcript, enough to check it and to run the model again.

    `earlier` has, by answer, the tokens that earlier claims took of it: a model is run from the answer's first token.
    """
    content = {
        "proof": proof.hex(),
        "segments": [_segment_fields(segment) for segment in segments],
        "earlier": {str(answer): list(tokens) for answer, tokens in earlier.items()},
    }
    return canonical_json(content)


def simulation_hash(host: str, job_id: int) -> bytes:
    """A proof hash for `eth_call` alone. It is the hash of no record, for a record is JSON and this input is not."""
    return hashlib.sha256(SIMULATION_DOMAIN + bytes.fromhex(host[2:]) + job_id.to_bytes(32, "big")).digest()


def join_proof(proof_hash: bytes, signature: bytes) -> bytes:
    """The 97 bytes: hash, r, s, v. Raises ValueError for wrong lengths."""
    if len(proof_hash) != 32 or len(signature) != 65:
        raise ValueError("a proof is a hash of 32 bytes and a signature of 65")
    return proof_hash + signature


def store_proof(folder: Path, record: ProofRecord, companion: bytes) -> Path:
    """Write record and companion as files; the same content again is no change. Blocks on disk: call it off the loop."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record.proof_hash.hex()}.json"
    for target, content in ((companion_path(path), companion), (path, record.record)):
        if target.exists() and target.read_bytes() == content:
            continue
        temporary = target.with_suffix(".tmp")
        temporary.write_bytes(content)
        temporary.replace(target)
    return path


def companion_path(record_path: Path) -> Path:
    """Where the transcript of a record file lies."""
    return record_path.with_name(record_path.stem + ".transcript.json")


def verify_record(path: Path) -> VerifyReport:
    """Check a stored record: form, name, transcript, signature. Blocks on disk. Never raises for what a file holds."""
    try:
        record = path.read_bytes()
        fields = _read_fields(record)
    except (OSError, ValueError) as error:
        return VerifyReport((Check("record", False, f"it cannot be read: {error}"),), {})
    digest = hashlib.sha256(record).digest()
    named = path.stem == digest.hex()
    checks = [
        Check("record", True, f"job {fields['job']}, tokens {fields['from']} to {fields['to']}"),
        Check("hash", named, "the file's name is its hash" if named else f"its hash is {digest.hex()}, not its name"),
        *_check_companion(companion_path(path), fields, digest),
    ]
    return VerifyReport(tuple(checks), fields)


@dataclass(frozen=True, slots=True)
class AnswerToReplay:
    """An answer as far as a claim reaches: run the model on `prompt`, and it must give `tokens`.

    The first `earlier` of them belong to earlier claims; they are there because a model begins at the beginning.
    """

    model_sha256: str
    parameters: str
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    earlier: int


def answers_to_replay(record_path: Path) -> list[AnswerToReplay]:
    """The answers of a record whose files `verify_record` has passed. Raises OSError, ValueError, KeyError for others."""
    content = json.loads(companion_path(record_path).read_bytes())
    answers: dict[str, AnswerToReplay] = {}
    for segment in content["segments"]:
        name = segment["answer"]
        earlier = content["earlier"].get(name, [])
        known = answers.get(name)
        before = known.tokens if known is not None else tuple(earlier)
        answers[name] = AnswerToReplay(
            segment["model"],
            segment["parameters"],
            tuple(segment["prompt"]),
            (*before, *segment["tokens"]),
            len(earlier),
        )
    return list(answers.values())


def _read_fields(record: bytes) -> dict[str, str]:
    fields = json.loads(record)
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise ValueError("it is no record of named texts")
    if set(fields) != FIELDS or fields["version"] != VERSION:
        raise ValueError("it is no record of this version")
    if canonical_json(fields) != record:
        raise ValueError("it is not in canonical form")
    if not 0 <= int(fields["from"]) < int(fields["to"]) < 1 << 63:
        raise ValueError("its range is empty, or none")
    return fields


def _check_companion(path: Path, fields: dict[str, str], digest: bytes) -> list[Check]:
    try:
        content = json.loads(path.read_bytes())
        proof, segments = bytes.fromhex(content["proof"]), list(content["segments"])
        count = sum(len(segment["tokens"]) for segment in segments)
        root = transcript_root(segments).hex()
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [Check("transcript", False, f"{path.name} cannot be read: {error}")]
    tokens = int(fields["to"]) - int(fields["from"])
    intact = root == fields["transcript"] and count == tokens
    told = f"{count} tokens, root {root[:16]}..." if intact else "it is not the transcript of this record"
    return [Check("transcript", intact, told), _check_signature(proof, digest, fields["host"], tokens)]


def _check_signature(proof: bytes, digest: bytes, host: str, tokens: int) -> Check:
    if len(proof) != PROOF_BYTES or proof[:32] != digest:
        return Check("signature", False, "the stored proof is not of this record")
    try:
        signer = recover_proof_signer(digest, host, tokens, proof[32:])
    except ValueError as error:
        return Check("signature", False, str(error))
    passed = signer.lower() == host.lower()
    return Check("signature", passed, f"signed by {signer}" if passed else f"signed by {signer}, not by {host}")


def _segment_fields(segment: TranscriptSegment) -> dict[str, Any]:
    return {
        "start": str(segment.start),
        "answer": str(segment.ticket_id),
        "model": segment.model_sha256,
        "parameters": segment.parameters,
        "prompt": list(segment.prompt_ids),
        "tokens": list(segment.token_ids),
    }
