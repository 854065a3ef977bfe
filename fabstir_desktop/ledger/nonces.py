"""Which slots use a nonce more than their own, as SQL over a slot `s`."""

USES_TWO_NONCES = (
    "(s.state NOT IN ('burned', 'foreign') AND EXISTS (SELECT 1 FROM attempt a WHERE a.slot = s.id "
    "AND substr(a.raw, 1, 1) = x'04' AND coalesce(s.mined_hash = a.tx_hash, 1)))"
)
"""A transaction of type 4 (its first byte) carries an authorization of the sender itself, which uses the nonce after its own
as soon as it is mined: read from the signed bytes, for only they tell what can be mined. See `Slot.nonces`."""
