"""Check a recorded answer against the model: could these tokens have been sampled from this prompt with these parameters?

`replay_check` runs in a child process of its own, so that llama.cpp stays out of the caller's. The recorded tokens are forced
one after the other; for each the model says how likely it was. Numbers differ a little between machines, GPUs and batch
sizes, so a token is called impossible only when it lies beyond what such differences explain.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fabstir_desktop.errors import ModelFileError
from fabstir_desktop.inference.machine import usable_cores
from fabstir_desktop.inference.model_files import inspect_model
from fabstir_desktop.inference.process import worker_environment
from fabstir_desktop.inference.worker import REPLAY_ARGUMENT
from fabstir_desktop.jobs.generation import SamplingParameters

LOGIT_TOLERANCE = 1.0
"""Difference in log-probability that other arithmetic may make."""
DEFAULT_TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True)
class ReplayedToken:
    """A recorded token as the model sees it: `rank` 0 is the likeliest; `log_probability` at temperature 1;
    `gap` how far its logit lies below the best; `mass_before` the probability (at temperature 1) of all likelier tokens."""

    token_id: int
    rank: int
    log_probability: float
    gap: float
    mass_before: float


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What the model says of each recorded token. `impossible` are the positions that the parameters could not have given."""

    tokens: tuple[ReplayedToken, ...]
    impossible: tuple[int, ...]

    @property
    def is_plausible(self) -> bool:
        """Whether every token could have been sampled."""
        return not self.impossible


def replay_check(
    model_path: Path,
    prompt_ids: Sequence[int],
    token_ids: Sequence[int],
    sampling: SamplingParameters,
    *,
    threads: int | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> ReplayReport:
    """Force `token_ids` after `prompt_ids` and report on each. Blocks for as long as the model computes.

    Raises ModelFileError if the model cannot be loaded, or does not know the ids, or does not answer in `timeout_s`.
    """
    model = inspect_model(model_path)
    if not prompt_ids or not token_ids:
        return ReplayReport((), ())
    threads = threads or usable_cores()
    task = {"path": str(model.path), "prompt": list(prompt_ids), "tokens": list(token_ids), "threads": threads}
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            _command(),
            input=json.dumps(task).encode(),
            capture_output=True,
            env=worker_environment(os.environ),
            cwd=os.sep,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelFileError(f"{model.path.name} did not answer in {timeout_s:.0f} s") from None
    if done.returncode != 0:
        raise ModelFileError(f"{model.path.name} could not replay the record (exit code {done.returncode})")
    rows = json.loads(done.stdout)
    if "error" in rows:
        raise ModelFileError(f"{model.path.name} could not replay the record: {rows['error']}")
    tokens = tuple(ReplayedToken(**row) for row in rows["tokens"])
    return ReplayReport(tokens, impossible_positions(tokens, sampling))


def impossible_positions(tokens: Sequence[ReplayedToken], sampling: SamplingParameters) -> tuple[int, ...]:
    """The positions whose tokens the sampling could not have chosen, with tolerance for other arithmetic.

    Penalties shift the logits of tokens that came before; then only a gap that no penalty explains counts.
    """
    slack = LOGIT_TOLERANCE + _penalty_slack(sampling)
    return tuple(place for place, token in enumerate(tokens) if not _is_possible(token, sampling, slack))


def _is_possible(token: ReplayedToken, sampling: SamplingParameters, slack: float) -> bool:
    if token.gap <= slack:
        return True  # as good as the best
    if sampling.temperature <= 0:
        return False
    if sampling.top_k > 0 and token.rank >= 2 * sampling.top_k + 8:
        return False
    if (
        sampling.top_p < 1
        and token.mass_before > sampling.top_p + (1 - sampling.top_p) * 0.5
        and slack <= LOGIT_TOLERANCE
    ):
        return False
    if sampling.min_p > 0 and -token.gap + slack < math.log(sampling.min_p):
        return False
    # Without filters all is possible in principle; a draw of less than one in 10^12 is not believed.
    return token.gap / sampling.temperature < 12 * math.log(10) + slack


def _penalty_slack(sampling: SamplingParameters) -> float:
    repeat = abs(math.log(sampling.repeat_penalty)) * 30 if sampling.repeat_penalty != 1 else 0.0
    return repeat + 64 * abs(sampling.frequency_penalty) + abs(sampling.presence_penalty)


def _command() -> list[str]:
    if getattr(sys, "frozen", False):
        return [sys.executable, REPLAY_ARGUMENT, str(os.getpid())]
    return [sys.executable, "-P", "-m", "fabstir_desktop.inference.worker", REPLAY_ARGUMENT, str(os.getpid())]


def run_replay() -> None:
    """The child's side: reads the task from standard input, writes the report to standard output."""
    from fabstir_desktop.inference.teacher import LlamaError, force  # noqa: PLC0415 - llama.cpp in the child only

    task = json.loads(sys.stdin.buffer.read())
    try:
        tokens = force(task["path"], task["prompt"], task["tokens"], task["threads"])
        answer: dict[str, object] = {"tokens": [asdict(token) for token in tokens]}
    except (LlamaError, ValueError) as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer))
