"""Looking closely: what a diagnostic bundle must not hold, and whether model files fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gguf_support import gguf
from pydantic import SecretStr
from secrets_support import KEY_MARK
from ui_support import make_status

from fabstir_desktop.errors import RpcUnreachable
from fabstir_desktop.inspection import collect_bundle, find_models, read_chain_job, redact
from fabstir_desktop.jobs.inspections import BundleText
from fabstir_desktop.jobs.problems import Problem, Severity
from fabstir_desktop.settings import Settings
from fabstir_desktop.settlement.contracts.base import JobFacts
from fabstir_desktop.settlement.diagnosis import ChainCheck

HOST = "0x" + "11" * 20


class PlayedSettlement:
    """Answers as told; `facts` may be an error to raise."""

    def __init__(self, facts: JobFacts | Exception | None = None) -> None:
        self.facts = facts

    async def read_job(self, job_id: int) -> JobFacts | None:
        if isinstance(self.facts, Exception):
            raise self.facts
        return self.facts

    async def diagnose(self) -> list[ChainCheck]:
        return [ChainCheck("RPC", True, "rpc.example.org"), ChainCheck("gas money", False, "none", "send some")]


def _facts(tokens: int, host: str = HOST) -> JobFacts:
    return JobFacts(7, host, 1000, 10_000, tokens, True)


@pytest.mark.parametrize(
    ("text", "expected", "count"),
    [
        (
            "asked https://user:pw@rpc.example.org/v2/API-SECRET?key=1, again",
            "asked https://rpc.example.org, again",
            1,
        ),
        ("wss://host.example.org:8080/v1/ws", "wss://host.example.org:8080", 1),
        ('["http://127.0.0.1:8545"]', '["http://127.0.0.1:8545"]', 0),
        ("client 203.0.113.9 on 127.0.0.1", "client [address] on 127.0.0.1", 1),
        ("read /home/ann/models/a.gguf", "read ~/models/a.gguf", 1),
        ("job 4711: tokens 0 to 100, 0x" + "ab" * 32, "job 4711: tokens 0 to 100, 0x" + "ab" * 32, 0),
        ("http://[::1/x", "http://[address]", 1),
    ],
)
def test_a_redacted_text_keeps_host_names_and_hashes_only(text: str, expected: str, count: int) -> None:
    assert redact(text, home="/home/ann") == (expected, count)


async def test_the_bundle_has_state_settings_checks_and_log_and_no_secret(tmp_path: Path) -> None:
    key = KEY_MARK + "4d" * 24
    settings = Settings(
        data_dir=tmp_path,
        host_private_key=SecretStr("0x" + key),
        rpc_url=("https://rpc.example.org/v2/API-SECRET",),
        model_path=tmp_path / "private-folder" / "a.gguf",
    )
    (tmp_path / "keystore.json").write_text("KEYSTORE-CONTENT")
    problem = Problem("G02", Severity.ERROR, "Not enough ETH.", "Send ETH")
    played: Any = PlayedSettlement()
    lines = ["12:00 INFO node: Listening", "12:01 WARNING rpc: https://rpc.example.org/v2/API-SECRET timed out"]
    texts = await collect_bundle(make_status(), [problem], settings, played, lines)
    assert [text.name for text in texts] == [
        "version.txt",
        "settings.json",
        "status.json",
        "problems.json",
        "checks.txt",
        "log.txt",
    ]
    whole = "".join(text.text for text in texts)
    for secret in (key, "API-SECRET", "private-folder", "KEYSTORE-CONTENT"):
        assert secret not in whole
    by_name: dict[str, BundleText] = {text.name: text for text in texts}
    stored = json.loads(by_name["settings.json"].text)
    assert stored["rpc_url"] == ["https://rpc.example.org"]
    assert stored["model_path"] == "a.gguf"
    assert "host_private_key" not in stored
    assert json.loads(by_name["status.json"].text)["engine"]["model"]["name"] == "tiny-vicuna-1b.Q4_K_M"
    assert json.loads(by_name["problems.json"].text)[0]["code"] == "G02"
    assert "FAILED  gas money: none" in by_name["checks.txt"].text
    assert "Listening" in by_name["log.txt"].text
    assert by_name["log.txt"].redactions == 1


@pytest.mark.parametrize(
    ("facts", "tokens", "why"),
    [
        (_facts(900), 900, ""),
        (_facts(0, "0x" + "00" * 20), None, "does not know this job"),
        (None, None, "does not tell"),
        (RpcUnreachable("no contact"), None, "no contact"),
    ],
)
async def test_a_job_on_chain_is_a_number_or_a_reason(
    facts: JobFacts | Exception | None, tokens: int | None, why: str
) -> None:
    played: Any = PlayedSettlement(facts)
    found = await read_chain_job(played, 7)
    assert (found.job_id, found.tokens) == (7, tokens)
    assert why in found.why


async def test_model_files_of_several_folders_are_listed_once_with_what_they_need(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(gguf())
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    settings = Settings(data_dir=tmp_path, max_parallel=2, context_window=512)
    found = await find_models([tmp_path, tmp_path / "missing", tmp_path / "." / ""], settings)
    good, broken = found
    assert (good.name, good.path, good.detail) == ("a.gguf", tmp_path / "a.gguf", "llama Q4_K_M")
    assert good.size_bytes == (tmp_path / "a.gguf").stat().st_size
    assert good.needed_bytes is not None
    assert good.needed_bytes > good.size_bytes + 2 * 512 * 2 * 2 * 32 * 2
    assert good.fits is True
    assert broken.path is None
    assert broken.fits is None
    assert broken.name == "broken.gguf"
    assert broken.detail.startswith("broken.gguf")


async def test_a_file_that_cannot_be_used_is_listed_under_its_whole_name(tmp_path: Path) -> None:
    (tmp_path / "my own model.gguf").write_bytes(b"nothing of the kind")
    [file] = await find_models([tmp_path], Settings(data_dir=tmp_path))
    assert (file.name, file.path) == ("my own model.gguf", None)
    assert "cannot be used" in file.detail
