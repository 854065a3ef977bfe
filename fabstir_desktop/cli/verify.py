"""`verify FILE`: the stored proof record's hashes and signature, and with --replay its tokens."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from fabstir_desktop.errors import UserError
from fabstir_desktop.inference.model_files import HashCache, inspect_model
from fabstir_desktop.inference.replay import replay_check
from fabstir_desktop.jobs.generation import SamplingParameters
from fabstir_desktop.settings import Settings
from fabstir_desktop.settlement.proof import AnswerToReplay, answers_to_replay, verify_record


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
    results = [
        _replay_answer(number, answer, settings.model_path, digest)
        for number, answer in enumerate(answers_to_replay(path), start=1)
    ]
    return all(results)


def _replay_answer(number: int, answer: AnswerToReplay, model_path: Path, digest: str) -> bool:
    context = (*answer.prompt, *answer.tokens[: answer.earlier])
    claimed = answer.tokens[answer.earlier :]
    where = f"replay of answer {number}, {len(claimed)} tokens"
    if answer.model_sha256 != digest:
        print(f"FAILED  {where}: they were made by another model file (SHA-256 {answer.model_sha256[:16]}...)")
        return False
    report = replay_check(model_path, context, claimed, _sampling(json.loads(answer.parameters or "{}")))
    if report.is_plausible:
        print(f"ok      {where}: the model could have chosen each of them")
        return True
    print(f"FAILED  {where}: the model could not have chosen the one at {report.impossible[0]}")
    return False


def _sampling(parameters: dict[str, Any]) -> SamplingParameters:
    known = {field.name for field in fields(SamplingParameters)}
    return SamplingParameters(**{name: value for name, value in parameters.items() if name in known})
