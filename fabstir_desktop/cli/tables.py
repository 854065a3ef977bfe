"""Plain-text tables for people."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from fabstir_desktop.jobs.gas_money import format_eth

_DASH = "-"


def print_status(status: Mapping[str, Any]) -> None:
    """The node in a few lines, problems last."""
    print(f"{status['state']}: {status['sentence']}")
    if "engine" in status:
        model = status["engine"]["model"]
        print(f"model:  {model['name'] if model else _DASH} ({status['engine']['state']})")
        wallet, chain, server = status["wallet"], status["chain"], status["server"]
        print(f"key:    {wallet['address'] or _DASH} ({wallet['location'] or wallet['state']})")
        print(
            f"chain:  {chain['chain_name']} {chain['chain_id']} ({chain['state']}), {chain['contract_name']} {chain['contract']}"
        )
        left = chain["checkpoints_left"]
        print(f"gas:    {'unknown' if left is None else f'about {left} checkpoints left'}")
        if chain.get("withdrawable"):
            print(f"kept:   {', '.join(map(_amount, chain['withdrawable']))}, to be withdrawn from the contract")
        print(
            f"server: {server['url'] or _DASH}, {server['connections']} connections, {server['active_requests']} running"
        )
    if "tokens" in status:
        print(f"tokens: {', '.join(f'{name} {count}' for name, count in status['tokens'].items())} (from the ledger)")
    for problem in status["problems"]:
        print(f"{problem['code']}: {problem['message']} {problem['action']}".rstrip())


def _amount(one: Mapping[str, Any]) -> str:
    """Exactly; of a token whose decimals are not known here, in its smallest unit."""
    amount = int(one["amount"])
    if one["token"] != "ETH":  # noqa: S105 - money, no secret
        return f"{amount} of the smallest unit of {one['token']}"
    return f"{format_eth(amount)} ETH"


def print_jobs(rows: Sequence[Mapping[str, Any]]) -> None:
    """Jobs, one a line."""
    names = ("job_id", "state", "generated", "claimed", "proven", "settled", "unclaimed", "session_id")
    _print_table(names, [[str(row[name]) for name in names] for row in rows], empty="No jobs yet.")


def print_transactions(rows: Sequence[Mapping[str, Any]]) -> None:
    """Transactions, one a line."""
    lines = []
    for row in rows:
        claims = ", ".join(f"{item['job_id']}:{item['from']}-{item['to']}" for item in row["claims"])
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["created_at"]))
        block = _DASH if row["block"] is None else str(row["block"])
        lines.append([moment, row["kind"], str(row["nonce"]), row["state"], claims or _DASH, block, row["tx_hash"]])
    _print_table(("time", "kind", "nonce", "state", "claims", "block", "tx_hash"), lines, empty="No transactions yet.")


def print_outcomes(outcomes: Sequence[Mapping[str, Any]]) -> None:
    """What a forced checkpoint did, a line a job."""
    if not outcomes:
        print("No job has unclaimed tokens.")
    for outcome in outcomes:
        done = f"submitted {outcome['tokens']} tokens, tx_hash {outcome['tx_hash']}"
        print(f"job {outcome['job_id']}: {done if outcome['submitted'] else 'not submitted: ' + outcome['why']}")


def _print_table(names: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str) -> None:
    if not rows:
        print(empty)
        return
    widths = [max(len(name), *(len(row[column]) for row in rows)) for column, name in enumerate(names)]
    for row in (names, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
