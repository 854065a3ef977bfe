"""The frame decoder under a coverage-guided fuzzer: `python tests/faults/fuzz_decoder.py [libFuzzer's options] [CORPUS]`.

Only a frame or a ProtocolError may come out; both must be usable, and the same for the same bytes. With FUZZ_BROKEN in the
environment the decoder is broken on purpose, to see that the fuzzer notices.
"""

from __future__ import annotations

import json
import math
import os
import sys
from typing import Any

import atheris

with atheris.instrument_imports(include=["fabstir_desktop.server.decoder", "fabstir_desktop.jobs.ids", "json"]):
    from fabstir_desktop.server.decoder import MAX_TOKENS_LIMIT, decode_frame
    from fabstir_desktop.server.frames import Prompt, ProtocolError, SessionEnd, error_frame


def outcome(data: str | bytes) -> Any:
    """The frame, or what the client would be told."""
    try:
        frame = decode_frame(data)
    except ProtocolError as error:
        told = error_frame(error)
        assert json.loads(told)["type"] == "error"
        return told
    if "FUZZ_BROKEN" in os.environ and isinstance(frame, SessionEnd):
        raise KeyError("broken on purpose")
    return frame


def check(data: bytes) -> None:
    """One run of the fuzzer. A leading zero byte makes the frame binary; else it is text, as a WebSocket gives it."""
    message = data[1:] if data[:1] == b"\0" else data.decode("utf-8", "replace")
    found = outcome(message)
    assert found == outcome(message)
    if isinstance(found, bytes):
        return
    assert isinstance(message, str)
    assert isinstance(json.loads(message), dict)
    if isinstance(found, Prompt):
        assert found.job_id is None or 0 <= found.job_id < 2**256
        assert 1 <= found.max_tokens <= MAX_TOKENS_LIMIT
        assert math.isfinite(found.sampling.temperature)
        assert found.text is not None or found.context
        for text in (found.text or "", found.session_id or "", *(turn.content for turn in found.context or ())):
            text.encode()


if __name__ == "__main__":
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
