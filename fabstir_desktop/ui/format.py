"""Numbers, amounts, ages and hashes as text. Exact: integers and decimals only, no floating point near money."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from PySide6.QtCore import QCoreApplication

from fabstir_desktop.jobs.views import TokenAmount

translate = QCoreApplication.translate

UNKNOWN = "–"
"""What stands where nothing is known; never a zero."""
_GROUP = "\u2009"
_SHORT_DIGITS = 4
_WEI_DECIMALS = 18
_NATIVE = frozenset({"ETH", "0x0000000000000000000000000000000000000000"})


@dataclass(frozen=True, slots=True)
class Currency:
    """How amounts of a token are written. `decimals` is None where the token's own number is not known."""

    symbol: str
    decimals: int | None


_CURRENCY_BY_TOKEN = {
    "0x036cbd53842c5426634e7929541ec2318f3dcf7e": Currency("USDC", 6),
    "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913": Currency("USDC", 6),
}

_EXPLORER_BY_CHAIN = {
    1: "https://etherscan.io",
    8453: "https://basescan.org",
    84532: "https://sepolia.basescan.org",
    11155111: "https://sepolia.etherscan.io",
}


def currency_of(token: str) -> Currency:
    """Tell how amounts of `token` ("ETH" or an address) are written."""
    if token in _NATIVE:
        return Currency("ETH", _WEI_DECIMALS)
    known = _CURRENCY_BY_TOKEN.get(token.lower())
    return known or Currency(short_address(token), None)


def exact_decimal(amount: int, decimals: int) -> str:
    """Write an integer of smallest units as a decimal, every digit kept, closing zeros dropped."""
    sign, digits = ("-", str(-amount)) if amount < 0 else ("", str(amount))
    digits = digits.rjust(decimals + 1, "0")
    whole, fraction = digits[: len(digits) - decimals], digits[len(digits) - decimals :].rstrip("0")
    return f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"


def short_decimal(amount: int, decimals: int) -> str:
    """Write at most four significant digits of the fraction; an ellipsis marks what is cut off, nothing is rounded up."""
    exact = exact_decimal(amount, decimals)
    whole, _, fraction = exact.partition(".")
    if not fraction:
        return exact
    leading = len(fraction) - len(fraction.lstrip("0")) if whole in {"0", "-0"} else 0
    kept = fraction[: leading + _SHORT_DIGITS]
    return exact if kept == fraction else f"{whole}.{kept}…"


def exact_amount(amount: TokenAmount) -> str:
    """Write the whole amount with its symbol."""
    currency = currency_of(amount.token)
    if currency.decimals is None:
        return translate("format", "{amount} units of {token}").format(amount=amount.amount, token=amount.token)
    return f"{exact_decimal(amount.amount, currency.decimals)} {currency.symbol}"


def short_amount(amount: TokenAmount) -> str:
    """Write the amount with its symbol, shortened for a card or a cell; the tool tip has all digits."""
    currency = currency_of(amount.token)
    if currency.decimals is None:
        return translate("format", "{amount} units of {token}").format(amount=amount.amount, token=currency.symbol)
    return f"{short_decimal(amount.amount, currency.decimals)} {currency.symbol}"


def amounts(values: Sequence[TokenAmount], *, exact: bool = False) -> str:
    """Write amounts side by side: two tokens are never added. Nothing earned yet is an en dash, not a zero."""
    write = exact_amount if exact else short_amount
    return "  +  ".join(write(value) for value in values) if values else UNKNOWN


def wei(amount: int | None, *, exact: bool = False) -> str:
    """Write wei as ETH, however small; None is unknown. The short form marks what it cuts off."""
    if amount is None:
        return UNKNOWN
    write = exact_decimal if exact else short_decimal
    return f"{write(amount, _WEI_DECIMALS)} ETH"


def count(number: int | None) -> str:
    """Write a whole number with thin spaces between thousands; None is unknown."""
    return UNKNOWN if number is None else f"{number:,}".replace(",", _GROUP)


def rate(tokens_per_second: float | None) -> str:
    """Write tokens per second; None or zero is a dash (nothing runs)."""
    if not tokens_per_second or tokens_per_second < 0.05:
        return UNKNOWN
    return f"{tokens_per_second:.1f}" if tokens_per_second < 100 else f"{tokens_per_second:.0f}"


def size(size_bytes: int | None) -> str:
    """Write a file's size in MB or GB (powers of ten)."""
    if size_bytes is None:
        return UNKNOWN
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"


def parameters(number: int) -> str:
    """Write a parameter count: 135 M, 8.0 B."""
    return f"{number / 1e9:.1f} B" if number >= 1e9 else f"{number / 1e6:.0f} M"


def duration(seconds: float | None) -> str:
    """Write a span in its two largest units."""
    if seconds is None:
        return UNKNOWN
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def age(since: float | None, now: float | None = None) -> str:
    """Write how long ago `since` (seconds since the epoch) was."""
    if since is None:
        return UNKNOWN
    seconds = (time.time() if now is None else now) - since
    return translate("format", "{duration} ago").format(duration=duration(seconds))


def clock(when: float | None, *, now: float | None = None) -> str:
    """Write a local time of day, with the date if it is not today."""
    if when is None:
        return UNKNOWN
    moment = datetime.fromtimestamp(when)
    today = datetime.fromtimestamp(time.time() if now is None else now)
    if moment.date() == today.date():
        return moment.strftime("%H:%M:%S")
    return moment.strftime("%d %b %H:%M" if moment.year == today.year else "%Y-%m-%d")


def full_time(when: float) -> str:
    """Write local date, time and offset."""
    return datetime.fromtimestamp(when).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")


def short_hash(value: str | None) -> str:
    """Write the ends of a hash: 0x8d1b2c…35c4."""
    if not value:
        return UNKNOWN
    return value if len(value) <= 14 else f"{value[:8]}…{value[-4:]}"


def short_address(value: str | None) -> str:
    """Write the ends of an address: 0x12ab…9fE0."""
    if not value:
        return UNKNOWN
    return value if len(value) <= 12 else f"{value[:6]}…{value[-4:]}"


def short_job(job_id: int) -> str:
    """Write a job id; one of more than twelve digits by its ends (the tool tip and copies have all digits)."""
    text = str(job_id)
    return text if len(text) <= 12 else f"{text[:5]}…{text[-5:]}"


def explorer_link(chain_id: int, kind: str, value: str) -> str | None:
    """Address of a block explorer's page for a `tx` or an `address`; None for a chain without one."""
    base = _EXPLORER_BY_CHAIN.get(chain_id)
    return f"{base}/{kind}/{value}" if base else None
