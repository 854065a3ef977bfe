"""Secrets that every suite plants, and the last step of every run: nothing that was written may hold one.

Keys of test hosts begin with KEY_MARK, prompts and RPC URLs hold TEXT_MARK, so that one search a file finds them all; prompts
to the real model, which would answer a changed one differently, are looked for as they are. Looked through are the captured
output and log of every test, and every file below pytest's temporary directory: data directories with their logs, ledgers,
proofs and settings, and what child processes wrote to their standard output and error.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

KEY_MARK = "c0a1ea5edcab1e5e"
TEXT_MARK = "kestrel-7e1d4c"
PROMPT = f"Do not tell of the {TEXT_MARK}."
RPC_PATH = f"{TEXT_MARK}-path"
RPC_QUERY = f"apikey={TEXT_MARK}-query"
_PIECE = 1 << 22
_OVERLAP = 512
_SHORTEST_PROMPT = 20
_planted_prompts: set[bytes] = set()
_CHOSEN_BY_THE_HOST = {"settings.toml"}
"""The host's own file, in which an RPC URL is kept as it was entered."""


def canary_key() -> str:
    """A private key like any other, but for its first eight bytes."""
    return "0x" + KEY_MARK + secrets.token_hex(24)


def planted(prompt: str) -> str:
    """The prompt itself, which from now on must never be written anywhere. Too short to be told from other text: let be."""
    if len(prompt) >= _SHORTEST_PROMPT:
        _planted_prompts.add(prompt.lower().encode())
    return prompt


def with_canary(urls: str) -> str:
    """RPC URLs with a query that must never be written anywhere."""
    parts = [url.strip() for url in urls.split(",")]
    return ",".join(url if "?" in url or not url else f"{url.rstrip('/')}/?{RPC_QUERY}" for url in parts)


def marks_in(data: bytes) -> list[str]:
    """Which secrets stand in the data, in any spelling."""
    lowered = data.lower()
    found = []
    if KEY_MARK.encode() in lowered or bytes.fromhex(KEY_MARK) in data:
        found.append("a private key")
    texts = (TEXT_MARK.encode(), TEXT_MARK.encode("utf-16-le"), *_planted_prompts)
    if any(text in lowered for text in texts):
        found.append("a prompt or the path or query of an RPC URL")
    return found


def marks_in_file(path: Path) -> list[str]:
    """The same for a file of any size."""
    found: set[str] = set()
    with path.open("rb") as file:
        tail = b""
        while piece := file.read(_PIECE):
            found.update(marks_in(tail + piece))
            tail = piece[-_OVERLAP:]
    if path.name in _CHOSEN_BY_THE_HOST:
        found.discard("a prompt or the path or query of an RPC URL")
    return sorted(found)


def leaks_below(folder: Path) -> Iterator[str]:
    """A sentence for each file that holds a secret."""
    for path in sorted(folder.rglob("*")):
        try:
            found = marks_in_file(path) if path.is_file() and not path.is_symlink() else []
        except OSError:
            continue  # gone meanwhile, or not to be read even by its owner
        yield from (f"{path} holds {what}" for what in found)


class SecretHunt:
    """The plugin. A run that leaked fails, whatever its tests say."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._leaks: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Look through what a test and the code under it printed and logged."""
        if report.when == "teardown":  # its sections are those of the whole test
            for name, text in report.sections:
                self._leaks += [f"{report.nodeid}: {name} holds {what}" for what in marks_in(text.encode())]

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Look through every file of the run."""
        factory = getattr(self._config, "_tmp_path_factory", None)
        if factory is not None and factory._basetemp is not None:
            self._leaks += leaks_below(factory.getbasetemp())
        if self._leaks and session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was found."""
        if self._leaks:
            terminalreporter.section("secrets were written", red=True)
            for leak in self._leaks:
                terminalreporter.line(leak)
