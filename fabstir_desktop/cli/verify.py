"""`verify FILE`: the stored proof record's hashes and signature, and with --replay its tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fabstir_desktop.errors import UserError
from fabstir_desktop.inference.model_files import file_sha256
from fabstir_desktop.inference.replay import ReplayReport, replay_check
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
    digest = file_sha256(settings.model_path)
    passed = True
    for segment in json.loads(companion_path(path).read_bytes())["segments"]:
        passed = _replay_segment(segment, settings.model_path, digest) and passed
    return passed


def _replay_segment(segment: dict[str, Any], model_path: Path, digest: str) -> bool:
    where = f"replay of tokens from {segment['start']}"
    if segment["model"] != digest:
        print(f"FAILED  {where}: they were made by another model file (SHA-256 {segment['model'][:16]}...)")
        return False
    report: ReplayReport = replay_check(
        model_path, segment["prompt"], segment["tokens"], parameters=json.loads(segment["parameters"])
    )
    print(f"{'ok    ' if report.passed else 'FAILED'}  {where}: {report.detail}")
    return report.passed
