"""A coverage-guided fuzzer on the frame decoder, in a process of its own: some seconds, or half an hour with --long."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_support import ODD_VALUES, SEEDS

TARGET = Path(__file__).with_name("fuzz_decoder.py")
WORDS = (
    "type", "request", "inference", "prompt", "session_init", "stream_cancel", "session_end", "ping", "messages", "role",
    "content", "user", "assistant", "system", "max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "stream",
    "job_id", "jobId", "session_id", "sessionId", "chain_id", "chainId", "id", "model",
)  # fmt: skip
HAS_ATHERIS = sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info < (3, 14)
pytestmark = pytest.mark.skipif(not HAS_ATHERIS, reason="atheris is made for Linux on x86-64 up to Python 3.13 alone")


def fuzz(folder: Path, seconds: int, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the fuzzer from the seeds of the random hunt, with the protocol's words."""
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS):
        (corpus / f"seed-{number}").write_text(json.dumps(seed))
    tokens = [json.dumps(f'"{word}":') for word in WORDS] + [
        json.dumps(value, ensure_ascii=True) for value in ODD_VALUES
    ]
    words = folder / "words.dict"
    words.write_text("\n".join(token for token in tokens if "\\u" not in token) + "\n")
    options = ["-max_len=2048", "-timeout=5", "-rss_limit_mb=1024", f"-artifact_prefix={folder}/", f"-dict={words}"]
    return subprocess.run(
        [sys.executable, str(TARGET), *options, f"-max_total_time={seconds}", str(corpus)],
        cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=seconds + 120, check=False,
    )  # fmt: skip


def check_decoder(folder: Path, seconds: int, least: int) -> None:
    done = fuzz(folder, seconds)
    assert done.returncode == 0, done.stderr[-4000:]
    runs = int(re.findall(r"Done (\d+) runs", done.stderr)[0])
    coverage = [int(number) for number in re.findall(r"cov: (\d+)", done.stderr)]
    print(json.dumps({"runs": runs, "coverage_at_first": coverage[0], "coverage": coverage[-1]}))
    assert runs > least
    assert coverage[-1] > coverage[0], "the fuzzer found no new path: is the decoder instrumented?"


def test_no_bytes_the_fuzzer_thinks_of_break_the_decoder(tmp_path: Path) -> None:
    check_decoder(tmp_path, seconds=15, least=2_000)


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_no_bytes_the_fuzzer_thinks_of_in_half_an_hour_break_the_decoder(tmp_path: Path) -> None:
    check_decoder(tmp_path, seconds=1800, least=200_000)


def test_the_fuzzer_notices_a_decoder_that_is_broken_on_purpose(tmp_path: Path) -> None:
    done = fuzz(tmp_path, 20, FUZZ_BROKEN="1")
    assert done.returncode != 0
    assert "broken on purpose" in done.stdout + done.stderr
