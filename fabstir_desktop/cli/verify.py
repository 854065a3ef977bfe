"""`verify FILE`: the stored proof record's hashes and signature, and with --replay its tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fabstir_desktop.errors import UserError
from fabstir_desktop.inference.model_files import HashCache, inspect_model
from fabstir_desktop.inference.replay import replay_check
from fabstir_desktop.jobs.generation import SamplingParameters
from fabstir_desktop.settings import Settings
from fabstir_desktop.settlement.proof import companion_path, verify_record


def verify_file(path: Path, settings: Settings, *, replay: bool) -> int:
    """Print a line per check; returns 0 if all passed, else 1. Raises UserError if it cannot be checked at all."""
    report = verify_record(path)
    for check in report.checks:
        print(f"{'ok    ' if check.passed else 'FAILED'}  {check.name}: {check.detail}")
    if not replay or not report.passed:
        return 0 if report.passed else 1
    return 0 if _replay(path, settings) else 1


def _replay(path: Path, settings: Settings) -> bool:
    if settings.model_path is None:
        raise UserError("MODEL_PATH is not set: --replay needs the model file that made the tokens")
    digest = HashCache(None).sha256(inspect_model(settings.model_path))
    transcript = json.loads(companion_path(path).read_bytes())
    results = [_replay_answer(answer, settings.model_path, digest) for answer in _answers(transcript)]
    return all(results)


@dataclass(frozen=True, slots=True)
class _Answer:
    """One answer's share of a claim: what the model was given before, and the tokens claimed."""

    number: str
    model: str
    parameters: dict[str, Any]
    context: list[int]
    tokens: list[int]


def _answers(transcript: dict[str, Any]) -> list[_Answer]:
    """Join the segments of each answer: answers of one job may be interleaved."""
    answers: dict[str, _Answer] = {}
    for segment in transcript["segments"]:
        number = segment["answer"]
        if number not in answers:
            context = [*segment["prompt"], *transcript.get("earlier", {}).get(number, [])]
            parameters = json.loads(segment["parameters"] or "{}")
            answers[number] = _Answer(number, segment["model"], parameters, context, [])
        answers[number].tokens.extend(segment["tokens"])
    return list(answers.values())


def _replay_answer(answer: _Answer, model_path: Path, digest: str) -> bool:
    where = f"replay of answer {answer.number}, {len(answer.tokens)} tokens"
    if answer.model != digest:
        print(f"FAILED  {where}: they were made by another model file (SHA-256 {answer.model[:16]}...)")
        return False
    report = replay_check(model_path, answer.context, answer.tokens, _sampling(answer.parameters))
    if report.is_plausible:
        print(f"ok      {where}: the model could have chosen each of them")
        return True
    print(f"FAILED  {where}: the model could not have chosen the one at {report.impossible[0]}")
    return False


def _sampling(parameters: dict[str, Any]) -> SamplingParameters:
    known = {field.name for field in fields(SamplingParameters)}
    return SamplingParameters(**{name: value for name, value in parameters.items() if name in known})
