"""What the host is told follows from the state alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fabstir_desktop.jobs.diagnosis import derive_problems, describe_state
from fabstir_desktop.jobs.generation import EngineFailure, EngineState, EngineStatus
from fabstir_desktop.jobs.problems import Problem, ProblemList, Severity
from fabstir_desktop.jobs.states import STATES
from fabstir_desktop.jobs.status import ServerStatus, ServingState, WalletState, WalletStatus

LISTENING = ServerStatus("ws://127.0.0.1:8080/v1/ws", 0, 0, 0, 0)
READY_WALLET = WalletStatus(WalletState.READY, "0x00")


def engine(state: EngineState = EngineState.READY, detail: str = "", progress: float = 0.0) -> EngineStatus:
    return EngineStatus(state, detail, None, 0, 0, 8, 0.0, progress, 0, None)


def codes(wallet: WalletStatus, state: EngineState, server: ServerStatus, failure: str | None = None) -> set[str]:
    return {problem.code for problem in derive_problems(wallet, engine(state), server, failure)}


def test_a_host_with_key_model_and_port_has_no_problem() -> None:
    assert codes(READY_WALLET, EngineState.READY, LISTENING) == set()


@pytest.mark.parametrize(
    ("wallet", "state", "server", "failure", "code"),
    [
        (WalletState.NONE, EngineState.READY, LISTENING, None, "K01"),
        (WalletState.LOCKED, EngineState.READY, LISTENING, None, "K02"),
        (WalletState.UNAVAILABLE, EngineState.READY, LISTENING, None, "K03"),
        (WalletState.INVALID, EngineState.READY, LISTENING, None, "K05"),
        (WalletState.READY, EngineState.NO_MODEL, LISTENING, None, "M01"),
        (WalletState.READY, EngineState.LOADING, LISTENING, None, "M06"),
        (WalletState.READY, EngineState.RESTARTING, LISTENING, None, "S02"),
        (WalletState.READY, EngineState.FAILED, LISTENING, None, "S03"),
        (WalletState.READY, EngineState.READY, ServerStatus(None, 0, 0, 0, 0, "Port 8080 is taken."), None, "S01"),
        (WalletState.READY, EngineState.READY, LISTENING, "disk full", "D01"),
    ],
)
def test_each_state_in_the_way_has_its_code(
    wallet: WalletState, state: EngineState, server: ServerStatus, failure: str | None, code: str
) -> None:
    assert codes(WalletStatus(wallet), state, server, failure) == {code}
    assert code in STATES


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (EngineFailure.FILE_MISSING, "M02"),
        (EngineFailure.FILE_UNUSABLE, "M03"),
        (EngineFailure.MEMORY, "M05"),
        (EngineFailure.CRASHES, "S03"),
    ],
)
def test_why_no_model_is_served_has_its_own_code(failure: EngineFailure, code: str) -> None:
    status = replace(engine(EngineState.FAILED, "x.gguf is gone"), failure=failure)
    [problem] = derive_problems(READY_WALLET, status, LISTENING, None)
    assert (problem.code, problem.severity, problem.message) == (code, Severity.ERROR, "X.gguf is gone.")
    assert problem.action
    assert code in STATES


def test_layers_that_are_not_on_the_gpu_are_a_problem_of_a_host_that_serves() -> None:
    status = replace(engine(), warning="needs 9.1 GiB, 7.4 GiB of GPU memory were free: 12 of 33 layers run on the CPU")
    [problem] = derive_problems(READY_WALLET, status, LISTENING, None)
    assert (problem.code, problem.severity, problem.page) == ("M05", Severity.WARNING, "settings")
    assert "12 of 33 layers" in problem.message


def test_problems_come_worst_first_and_replace_their_elder() -> None:
    problems = ProblemList()
    assert problems.raise_(Problem("G01", Severity.WARNING, "38 left", "Fund"))
    assert problems.raise_(Problem("C01", Severity.ERROR, "wrong chain", "Change RPC"))
    assert problems.raise_(Problem("G01", Severity.WARNING, "37 left", "Fund"))
    assert not problems.raise_(Problem("G01", Severity.WARNING, "37 left", "Fund"))
    assert [problem.message for problem in problems] == ["wrong chain", "37 left"]
    assert problems.clear("C01")
    assert not problems.clear("C01")
    assert len(problems) == 1


def test_the_sentence_says_whether_it_serves_and_whether_it_is_paid() -> None:
    def sentence(
        state: ServingState, model: EngineStatus, *, submitting: bool = True, active: int = 0, **more: object
    ) -> str:
        return describe_state(
            state, engine=model, submitting=submitting, active_requests=active, problems=more.get("problems", ())
        )  # type: ignore[arg-type]

    assert sentence(ServingState.SERVING, engine()) == "Serving, waiting for jobs"
    assert sentence(ServingState.SERVING, engine(), active=1) == "Serving, 1 request running"
    assert "not submitted" in sentence(ServingState.SERVING, engine(), submitting=False)
    assert sentence(ServingState.SERVING, engine(EngineState.LOADING, progress=0.45)) == "Loading the model, 45%"
    wrong_chain = Problem("C01", Severity.ERROR, "This RPC is on chain 1.", "")
    assert "not paid yet" in sentence(ServingState.SERVING, engine(), problems=(wrong_chain,))
    assert sentence(ServingState.PAUSED, engine()) == "Paused until you resume"
    assert sentence(ServingState.DRAINING, engine(), active=2) == "Finishing 2 requests, then stopping"
