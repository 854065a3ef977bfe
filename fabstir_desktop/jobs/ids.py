"""Identifiers and their one strict reading."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fabstir_desktop.errors import UserError

MAX_UINT256 = 2**256 - 1
_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,77})n?")


class IdInvalid(UserError):
    """A text or number that is not an id."""


def parse_job_id(value: object) -> int:
    """Read a job id: a whole number or its decimal string (a trailing `n` of a JavaScript BigInt is tolerated).

    Raises IdInvalid for booleans, floats, signs, leading zeros and anything outside 0 to 2^256-1.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and _DECIMAL.fullmatch(value):
        number = int(value.removesuffix("n"))
    else:
        raise IdInvalid("job_id must be a whole number or its decimal string")
    if not 0 <= number <= MAX_UINT256:
        raise IdInvalid("job_id must lie between 0 and 2^256-1")
    return number


@dataclass(frozen=True, slots=True)
class Venue:
    """Where claims are made: one contract on one chain. `contract` is a checksummed 0x address."""

    chain_id: int
    contract: str
    interface: str
    """`proof_system` or `job_marketplace`."""

    @property
    def contract_name(self) -> str:
        """The contract's name as hosts know it from the log."""
        return {"proof_system": "ProofSystem", "job_marketplace": "JobMarketplace"}.get(self.interface, self.interface)
