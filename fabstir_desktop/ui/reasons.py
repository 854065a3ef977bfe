"""Why something cannot be done now, as a sentence that stands beside the disabled button."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication

from fabstir_desktop.jobs.status import ChainState, NodeStatus, WalletState
from fabstir_desktop.jobs.views import JobView
from fabstir_desktop.ui.waiting_jobs import MARKETPLACE_MINIMUM_TOKENS, WaitingJobs

translate = QCoreApplication.translate


def submit_refusal(status: NodeStatus | None) -> str | None:
    """Why no claim at all can be submitted; None if claims can be."""
    if status is None:
        return translate("reasons", "The host is starting.")
    if status.wallet.state is WalletState.READY and status.chain.state is ChainState.READY:
        return None
    wallet = {
        WalletState.LOADING: translate("reasons", "The key is being looked for."),
        WalletState.NONE: translate("reasons", "There is no host key: tokens are counted, not claimed."),
        WalletState.LOCKED: translate("reasons", "The keyring is locked."),
        WalletState.UNAVAILABLE: translate("reasons", "No keyring answers on this system."),
        WalletState.INVALID: translate("reasons", "The stored key is not valid."),
        WalletState.OTHER_KEY: translate("reasons", "Another key than expected was found: nothing is signed."),
        WalletState.OTHER_PLACE: translate("reasons", "The key was saved in another keyring than this session has."),
    }.get(status.wallet.state)
    chain = {
        ChainState.CONNECTING: translate("reasons", "The chain is being contacted."),
        ChainState.UNREACHABLE: translate("reasons", "The chain cannot be reached."),
        ChainState.WRONG_CHAIN: translate("reasons", "The RPC is on another chain: nothing is signed."),
        ChainState.NOT_SUPPORTED: translate("reasons", "The contract does not answer as it must."),
    }.get(status.chain.state)
    return wallet or chain


def claim_refusal(job: JobView, status: NodeStatus | None) -> str | None:
    """Why this job's tokens cannot be claimed now; None if they can."""
    general = submit_refusal(status)
    if general is not None:
        return general
    if job.state == "claiming":
        return _on_its_way()
    if job.unclaimed == 0:
        return translate("reasons", "Everything of this job is claimed.")
    if _has_minimum(status) and job.unclaimed < MARKETPLACE_MINIMUM_TOKENS:
        return translate(
            "reasons", "The contract takes no claim below {minimum} tokens; this job has {tokens}."
        ).format(minimum=MARKETPLACE_MINIMUM_TOKENS, tokens=job.unclaimed)
    return None


def ready_to_claim(waiting: WaitingJobs, status: NodeStatus | None) -> int:
    """How many jobs have tokens that can be claimed now."""
    return 0 if submit_refusal(status) is not None else waiting.ready(with_minimum=_has_minimum(status))


def submit_all_refusal(waiting: WaitingJobs, status: NodeStatus | None) -> str | None:
    """Why *Submit checkpoints now* does nothing at this moment; None if it would claim something."""
    general = submit_refusal(status)
    if general is not None:
        return general
    if not waiting:
        return (
            translate("reasons", "Everything that was generated is claimed.")
            if waiting.has_generated
            else translate("reasons", "Nothing was generated yet.")
        )
    if waiting.ready(with_minimum=_has_minimum(status)):
        return None
    if waiting.claiming == len(waiting):
        return _on_its_way()
    if len(waiting) == 1:
        return claim_refusal(waiting.largest(1)[0], status)
    return translate("reasons", "No job can be claimed right now.")


def _on_its_way() -> str:
    return translate("reasons", "One claim of this job is already on its way.")


def _has_minimum(status: NodeStatus | None) -> bool:
    return status is not None and status.chain.contract_name == "JobMarketplace"
