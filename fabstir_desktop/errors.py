"""The error tree, ordered by what the reader should do. Every library's error is translated at its door.

Messages are written for the host: what failed, for which job or transaction, what happens next. They never hold a key, a
prompt, an answer, or the path or query of an RPC URL.
"""

from __future__ import annotations


class FabstirError(Exception):
    """Root of every error this application raises on purpose."""


class UserError(FabstirError):
    """Something the user gave cannot be used; the text is shown as it is and says what to do."""


class SettingError(UserError):
    """A setting cannot be used. The text names it, its source and what is expected."""


class EnvironmentFault(FabstirError):
    """Disk, network, keyring or driver does not do its part now: show it, keep what is stored, try again."""


class ChainRace(FabstirError):
    """The chain moved while we looked: read again and plan anew."""


class Bug(FabstirError):
    """A broken invariant in our own code: stop the part concerned rather than guess."""


# --- ledger ---------------------------------------------------------------------------------------------------------


class LedgerError(EnvironmentFault):
    """The ledger cannot be read or written; serving stops to protect earnings."""


class ControlTaken(EnvironmentFault):
    """Another running app answers at the control socket of this data directory."""


class LedgerLocked(LedgerError):
    """Another process uses this data directory."""


class LedgerTooNew(LedgerError):
    """The ledger was written by a newer version; it is left untouched."""


class LedgerDamaged(LedgerError):
    """The integrity check failed; the files are kept as they are."""


class LedgerRefused(Bug):
    """The database refused a step that would break what must always be true; nothing was changed."""


# --- wallet ---------------------------------------------------------------------------------------------------------


class KeyInvalid(UserError):
    """The text given is not a private key. The message never repeats it."""


class KeyMissing(UserError):
    """No key is stored."""


class KeyExists(UserError):
    """Another key is stored; it is replaced only when that is asked for."""


class KeyringUnavailable(EnvironmentFault):
    """No safe place for the key answers on this system."""


class KeyringLocked(EnvironmentFault):
    """The keyring is locked, or its prompt was dismissed or not answered in time."""


class SignerLocked(FabstirError):
    """The signer refuses: the chain or contract is not the one it was made for."""


# --- inference ------------------------------------------------------------------------------------------------------


class GenerationError(FabstirError):
    """A request for tokens ended without success; `code` is the word for it in the protocol."""

    code = "INTERNAL"


class InvalidGenerationRequest(GenerationError):
    """A parameter is out of range, or the model cannot render the conversation."""

    code = "INVALID_REQUEST"


class ContextOverflow(GenerationError):
    """Prompt and answer do not fit the model's window; said before any token is made."""

    code = "TOKEN_LIMIT_EXCEEDED"

    def __init__(self, prompt_tokens: int, context_window: int, *, is_lower_bound: bool = False) -> None:
        """`is_lower_bound`: the prompt was not read; by its bytes alone it has so many tokens or more."""
        count = f"at least {prompt_tokens}" if is_lower_bound else str(prompt_tokens)
        super().__init__(f"the prompt has {count} tokens; the model's window holds {context_window}")
        self.prompt_tokens = prompt_tokens
        self.context_window = context_window


class EngineBusy(GenerationError):
    """All streams and the waiting line are taken."""

    code = "BUSY"

    def __init__(self, message: str, *, position: int, retry_after_s: float) -> None:
        super().__init__(message)
        self.position = position
        self.retry_after_s = retry_after_s


class ModelUnavailable(GenerationError):
    """No model is loaded, or it is just being loaded."""

    code = "MODEL_UNAVAILABLE"


class WorkerCrashed(GenerationError):
    """The model process died while this request ran. What was delivered stays counted."""

    code = "WORKER_CRASHED"


class ModelFileError(UserError):
    """A model file cannot be used: missing, damaged, or not a GGUF. `file_name` is set where a folder was looked through."""

    file_name: str = ""


# --- admission ------------------------------------------------------------------------------------------------------


class AdmissionRefused(FabstirError):
    """A prompt is refused before a token is made; `code` is the word for it in the protocol."""

    code = "JOB_NOT_VALID"


class JobNotValid(AdmissionRefused):
    """The job is not ours, not open, unknown to the contract, or used by another session."""


class JobUnchecked(JobNotValid):
    """There is no contact with the job's contract: the job may be good, come back later."""

    retry_after_s = 10.0


class JobTaken(JobNotValid):
    """Another client was the first to use the job."""


class DepositExhausted(AdmissionRefused):
    """The job's deposit covers no further token."""

    code = "DEPOSIT_EXHAUSTED"


class RateLimited(AdmissionRefused):
    """Too many requests or too many unproven tokens; come back later."""

    code = "RATE_LIMITED"

    def __init__(self, message: str, *, retry_after_s: float = 10.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ShuttingDown(AdmissionRefused):
    """The host stops or pauses and takes no new work."""

    code = "SHUTTING_DOWN"


# --- chain ----------------------------------------------------------------------------------------------------------


class ChainError(EnvironmentFault):
    """The RPC did not give a usable answer. Says nothing about whether a transaction was taken."""


class RpcUnreachable(ChainError):
    """No connection, time-out, or an answer that is no JSON-RPC."""


class RpcRefused(ChainError):
    """The RPC answered with an error; `code`, `detail` (its text) and `data` (revert data, 0x hex or empty) are its own.

    `retry_after_s`: when it asked to be left alone for a while.
    """

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        detail: str = "",
        data: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.detail = detail
        self.data = data
        self.retry_after_s = retry_after_s


class WrongChain(ChainError):
    """The RPC is on another chain than the settings name. Nothing is signed."""

    def __init__(self, expected: int, found: int) -> None:
        super().__init__(f"this RPC is on chain {found}; the settings name chain {expected}. Nothing will be signed")
        self.expected = expected
        self.found = found


class ContractNotSupported(ChainError):
    """There is no code at the address, or it does not answer as the chosen interface must."""


class CallReverted(ChainError):
    """A simulated or mined call was reverted; `reason` is the contract's own, `plain` ours."""

    def __init__(self, plain: str, *, reason: str) -> None:
        super().__init__(plain)
        self.reason = reason
        self.plain = plain
