"""What a claim's gas is offered and worst costs: pure arithmetic in wei, never floating point.

Both fields of an EIP-1559 offer are raised together, by an eighth rounded up plus one wei, because pools refuse a
replacement that raises less than a tenth and a tenth of a five-wei tip is nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GWEI = 10**9
MINIMUM_TIP_WEI = 100
MAXIMUM_TIP_WEI = GWEI // 100
MINIMUM_BASE_FEE_WEI = 2_000_000
"""The lowest base fee of Base; an offer below twice of it can be stranded by the protocol's own minimum."""
MAXIMUM_BUMPS = 6


@dataclass(frozen=True, slots=True)
class FeeOffer:
    """What a transaction offers per gas, in wei."""

    max_fee_per_gas_wei: int
    max_priority_fee_per_gas_wei: int

    def worst_cost_wei(self, gas_limit: int, l1_fee_wei: int = 0) -> int:
        """The most that a transaction with this gas limit can cost."""
        return gas_limit * self.max_fee_per_gas_wei + l1_fee_wei


@dataclass(frozen=True, slots=True)
class Quote:
    """What a transaction is offered: calldata, gas limit, fees, and its share of the L1 data fee, in wei."""

    calldata: bytes
    gas_limit: int
    offer: FeeOffer
    l1_fee_wei: int

    @property
    def likely_cost_wei(self) -> int:
        """What it will about cost: the offer holds twice the base fee, the limit a fifth more gas than was estimated."""
        tip = self.offer.max_priority_fee_per_gas_wei
        per_gas = (self.offer.max_fee_per_gas_wei - tip) // 2 + tip
        return self.gas_limit * 5 // 6 * per_gas + self.l1_fee_wei * 2 // 3

    @property
    def worst_cost_wei(self) -> int:
        """The most it can cost."""
        return self.offer.worst_cost_wei(self.gas_limit, self.l1_fee_wei)


@dataclass(frozen=True, slots=True)
class FeeMarket:
    """The fee market as last read: base fee of the newest block, median tips of recent blocks."""

    base_fee_wei: int
    tips_wei: tuple[int, ...] = ()

    @property
    def tip_wei(self) -> int:
        """The tip that is usual, within sane limits."""
        return clamp(median(self.tips_wei), MINIMUM_TIP_WEI, MAXIMUM_TIP_WEI)


def median(values: Sequence[int]) -> int:
    """The middle value, the lower of two; 0 for none."""
    return sorted(values)[(len(values) - 1) // 2] if values else 0


def clamp(value: int, low: int, high: int) -> int:
    """`value`, kept within low and high."""
    return max(low, min(value, high))


def first_offer(market: FeeMarket, cap_wei: int, *, minimum_tip_wei: int = 0) -> FeeOffer | None:
    """An offer that stays valid while the base fee doubles; never above the cap. None: the market is dearer than the cap."""
    tip = max(market.tip_wei, minimum_tip_wei)
    wanted = 2 * max(market.base_fee_wei, MINIMUM_BASE_FEE_WEI) + tip
    ceiling = min(wanted, cap_wei)
    if ceiling < market.base_fee_wei or ceiling < tip:
        return None
    return FeeOffer(ceiling, tip)


def bumped(offer: FeeOffer, fresh: FeeOffer | None, cap_wei: int) -> FeeOffer | None:
    """A replacement that pools accept: both fields at least an eighth higher and not below a fresh offer.

    None: the cap does not allow it; the old attempt stays and is sent again.
    """
    max_fee = _eighth_more(offer.max_fee_per_gas_wei)
    tip = _eighth_more(offer.max_priority_fee_per_gas_wei)
    if fresh is not None:
        max_fee = max(max_fee, min(fresh.max_fee_per_gas_wei, cap_wei))
        tip = max(tip, fresh.max_priority_fee_per_gas_wei)
    if max_fee > cap_wei or tip > max_fee:
        return None
    return FeeOffer(max_fee, tip)


def bump_helps(offer: FeeOffer, market: FeeMarket) -> bool:
    """Whether the offer, not a lost transaction, is what keeps it out of a block."""
    return (
        offer.max_fee_per_gas_wei * 100 < market.base_fee_wei * 105
        or offer.max_priority_fee_per_gas_wei < market.tip_wei
    )


def bump_due(waiting_s: float, attempts: int, first_bump_s: float) -> bool:
    """Whether the newest of `attempts` has waited long enough: twice as long each time, six times at most."""
    return attempts <= MAXIMUM_BUMPS and waiting_s >= first_bump_s * 2 ** (attempts - 1)


def gas_limit_for(estimate: int, maximum: int = 1_000_000) -> int:
    """The estimate with a fifth more, rounded up; at most `maximum`, but never below the estimate."""
    return max(estimate, min(maximum, (estimate * 6 + 4) // 5))


def _eighth_more(value: int) -> int:
    return (value * 9 + 7) // 8 + 1
