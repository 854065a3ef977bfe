"""What the outbox tells the host about gas and nonces."""

from __future__ import annotations

from fabstir_desktop.jobs.gas_money import ALERT_CHECKPOINTS, WARN_CHECKPOINTS, format_eth
from fabstir_desktop.jobs.problems import Problem
from fabstir_desktop.jobs.states import problem
from fabstir_desktop.settlement.fees import FeeMarket

FUND = "Send ETH for gas to your host address."


def no_gas_problem(short_wei: int | None) -> Problem:
    """G02: the balance does not pay for the next claim; `short_wei` where it is known."""
    short = "" if short_wei is None else f" Short by {format_eth(short_wei)} ETH."
    message = f"Not enough ETH for the next claim.{short} Claims wait; nothing is lost."
    return problem("G02", message, advice=FUND)


def low_gas_problem(left: int) -> Problem | None:
    """G01: the balance pays for `left` more checkpoints; None where that is enough.

    Nearly out is a subject of its own, so that who put the first warning away is told again.
    """
    if left > WARN_CHECKPOINTS:
        return None
    if left > ALERT_CHECKPOINTS:
        return problem("G01", f"The gas money lasts for about {left} more checkpoints.", advice=FUND)
    message = f"The gas money is nearly out: it lasts for about {left} more checkpoints."
    return problem("G01", message, subject="nearly out", advice=FUND)


def foreign_nonce_problem(sender: str, nonce: int) -> Problem:
    """T03: a transaction that is not ours used a nonce of the account."""
    used = f"Another program is sending from {sender} (nonce {nonce} was used)"
    message = f"{used}. Claims go on one at a time, and no fee is raised against it."
    return problem("T03", message, advice="Use this key in one program only.")


def gas_refused_problem(nonce: int, text: str) -> Problem:
    """T01: it waits, and nothing that the app may do by itself would help."""
    message = f"No node takes the transaction with nonce {nonce}: {text[:120]}. It is sent again; later claims wait behind it."
    return problem("T01", message, advice="Try another RPC.")


def too_dear_problem(market: FeeMarket, cap_wei: int) -> Problem:
    """G03: the market is above the host's cap."""
    price, cap = market.base_fee_wei / 10**9, cap_wei / 10**9
    message = f"Gas costs {price:.3g} gwei, your cap is {cap:.3g} gwei. Claims wait until it falls."
    return problem("G03", message, advice="Wait, or raise the cap.")
