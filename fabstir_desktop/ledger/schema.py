"""The tables of the ledger and how older files become the newest version.

What must always be true stands in `triggers`; here are the shapes. Token counts are integers, amounts of money and job ids
are decimal text (they may need 256 bits), times are seconds since the epoch, hashes are 32 bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

from fabstir_desktop.jobs.claims import ClaimState, SlotState

APPLICATION_ID = 0x46425354
"""`FBST` in the file's header: says that the file is ours."""


def quoted(words: Iterable[str]) -> str:
    """The words as an SQL list: 'a','b'."""
    return ",".join(f"'{word}'" for word in sorted(words))


TABLES = f"""
CREATE TABLE writer (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  group_number INTEGER NOT NULL,            -- of the last committed group: a commit of unknown outcome is read back by it
  clean INTEGER NOT NULL CHECK (clean IN (0, 1)),
  checked_at REAL NOT NULL
) STRICT;
INSERT INTO writer VALUES (1, 0, 1, unixepoch('subsec'));

CREATE TABLE venue (
  id INTEGER PRIMARY KEY,
  chain_id INTEGER NOT NULL CHECK (chain_id > 0),
  contract TEXT NOT NULL,
  interface TEXT NOT NULL,
  event_block INTEGER,
  event_hash BLOB,
  UNIQUE (chain_id, contract)
) STRICT;

CREATE TABLE job (
  id INTEGER PRIMARY KEY,
  venue INTEGER NOT NULL REFERENCES venue,
  job_id TEXT NOT NULL CHECK (job_id <> '' AND job_id NOT GLOB '*[^0-9]*'),
  session_id TEXT NOT NULL,
  session_open INTEGER NOT NULL CHECK (session_open IN (0, 1)),
  generated INTEGER NOT NULL DEFAULT 0,
  -- the counts below follow from the claims; triggers keep them
  claimed INTEGER NOT NULL DEFAULT 0 CHECK (claimed >= 0),
  proven INTEGER NOT NULL DEFAULT 0 CHECK (proven BETWEEN 0 AND claimed),
  settled INTEGER NOT NULL DEFAULT 0 CHECK (settled BETWEEN 0 AND proven),
  written_off INTEGER NOT NULL DEFAULT 0 CHECK (written_off >= 0),
  reserved INTEGER NOT NULL DEFAULT 0 CHECK (reserved >= 0),
  open_claims INTEGER NOT NULL DEFAULT 0 CHECK (open_claims >= 0),
  next_start INTEGER NOT NULL DEFAULT 0 CHECK (next_start BETWEEN 0 AND generated),
  note TEXT NOT NULL DEFAULT '',
  created_at REAL NOT NULL,
  updated_at REAL NOT NULL,
  UNIQUE (venue, job_id),
  CHECK (claimed + reserved + written_off <= generated)
) STRICT;
CREATE INDEX job_of_session ON job (session_id) WHERE session_open;

CREATE TABLE ticket (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  job INTEGER NOT NULL REFERENCES job,
  session_id TEXT NOT NULL,
  opened_at REAL NOT NULL,
  closed_at REAL,
  finish_reason TEXT,
  prompt_ids BLOB,
  parameters TEXT,
  model_sha256 TEXT
) STRICT;
CREATE INDEX ticket_open ON ticket (job) WHERE closed_at IS NULL;

CREATE TABLE token (                        -- one row for each piece that was counted
  job INTEGER NOT NULL REFERENCES job,
  start INTEGER NOT NULL,
  count INTEGER NOT NULL CHECK (count > 0),
  ticket INTEGER REFERENCES ticket,         -- null: known from the chain alone
  ids BLOB NOT NULL,                        -- little-endian 32 bit each
  PRIMARY KEY (job, start),
  CHECK (length(ids) = CASE WHEN ticket IS NULL THEN 0 ELSE 4 * count END)
) STRICT, WITHOUT ROWID;

CREATE TABLE claim (
  id INTEGER PRIMARY KEY,
  job INTEGER NOT NULL REFERENCES job,
  sequence INTEGER NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('claim', 'foreign')),
  range_start INTEGER NOT NULL CHECK (range_start >= 0),
  range_end INTEGER NOT NULL CHECK (range_end > range_start),
  host TEXT NOT NULL,
  reason TEXT NOT NULL,
  record BLOB,
  proof_hash BLOB CHECK (length(proof_hash) = 32),
  proof BLOB,
  calldata BLOB,
  foreign_hash BLOB,
  state TEXT NOT NULL CHECK (state IN ({quoted(ClaimState)})),
  paid INTEGER NOT NULL DEFAULT 0 CHECK (paid IN (0, 1)),
  note TEXT NOT NULL DEFAULT '',
  created_at REAL NOT NULL,
  proven_at REAL,
  UNIQUE (job, sequence),
  CHECK ((kind = 'foreign') = (foreign_hash IS NOT NULL)),
  CHECK (kind = 'foreign' OR (record IS NOT NULL AND proof_hash IS NOT NULL AND proof IS NOT NULL AND calldata IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX one_owner_of_a_token ON claim (job, range_start) WHERE state <> 'void';
CREATE UNIQUE INDEX one_live_proof ON claim (proof_hash) WHERE state <> 'void';
CREATE INDEX claim_state ON claim (state);
CREATE INDEX claim_proven ON claim (proven_at) WHERE proven_at IS NOT NULL;

CREATE TABLE slot (
  id INTEGER PRIMARY KEY,
  chain_id INTEGER NOT NULL,
  sender TEXT NOT NULL,
  nonce INTEGER NOT NULL CHECK (nonce >= 0),
  kind TEXT NOT NULL CHECK (kind <> ''),
  state TEXT NOT NULL CHECK (state IN ({quoted(SlotState)})),
  mined_hash BLOB,
  block_number INTEGER,
  block_hash BLOB,
  succeeded INTEGER CHECK (succeeded IN (0, 1)),
  gas_used INTEGER,
  fee_wei TEXT,
  created_at REAL NOT NULL,
  UNIQUE (chain_id, sender, nonce),
  CHECK ((state IN ('included', 'confirmed', 'final')) =
         (mined_hash IS NOT NULL AND block_number IS NOT NULL AND block_hash IS NOT NULL AND succeeded IS NOT NULL))
) STRICT;
CREATE INDEX slot_state ON slot (chain_id, sender, state, nonce);

CREATE TABLE binding (
  claim INTEGER NOT NULL REFERENCES claim,
  slot INTEGER NOT NULL REFERENCES slot,
  released TEXT,                            -- why; null while it holds
  PRIMARY KEY (claim, slot)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX one_live_binding ON binding (claim) WHERE released IS NULL;
CREATE INDEX binding_slot ON binding (slot);

CREATE TABLE attempt (
  id INTEGER PRIMARY KEY,
  tx_hash BLOB NOT NULL UNIQUE CHECK (length(tx_hash) = 32),
  slot INTEGER NOT NULL REFERENCES slot,
  number INTEGER NOT NULL,
  raw BLOB NOT NULL CHECK (length(raw) > 0),
  max_fee_per_gas_wei TEXT NOT NULL,
  max_priority_fee_per_gas_wei TEXT NOT NULL,
  gas_limit INTEGER NOT NULL,
  created_at REAL NOT NULL,
  sends INTEGER NOT NULL DEFAULT 0,
  last_sent_at REAL,
  last_error TEXT,
  UNIQUE (slot, number)
) STRICT;

CREATE TABLE payment (
  tx_hash BLOB NOT NULL CHECK (length(tx_hash) = 32),
  log_index INTEGER NOT NULL,
  venue INTEGER NOT NULL REFERENCES venue,
  job_id TEXT NOT NULL,
  block_number INTEGER NOT NULL,
  token TEXT NOT NULL,
  host_amount TEXT NOT NULL CHECK (host_amount <> '' AND host_amount NOT GLOB '*[^0-9]*'),
  treasury_amount TEXT NOT NULL CHECK (treasury_amount <> '' AND treasury_amount NOT GLOB '*[^0-9]*'),
  recorded_at REAL NOT NULL,
  PRIMARY KEY (venue, tx_hash, log_index)
) STRICT, WITHOUT ROWID;
CREATE INDEX payment_job ON payment (venue, job_id);
CREATE INDEX payment_block ON payment (venue, block_number);

CREATE TABLE journal (
  id INTEGER PRIMARY KEY,
  at REAL NOT NULL,
  job INTEGER REFERENCES job,
  text TEXT NOT NULL
) STRICT;
CREATE INDEX journal_job ON journal (job);

CREATE TABLE activity (                     -- tokens generated in each minute, for the plot
  venue INTEGER NOT NULL REFERENCES venue,
  minute INTEGER NOT NULL,
  generated INTEGER NOT NULL,
  PRIMARY KEY (venue, minute)
) STRICT, WITHOUT ROWID;

CREATE TABLE running (                      -- stretches of time in which the app ran
  id INTEGER PRIMARY KEY,
  started_at REAL NOT NULL,
  last_at REAL NOT NULL
) STRICT;
"""

CLIENT_OF_JOB = """
ALTER TABLE job ADD COLUMN client BLOB CHECK (length(client) = 32);  -- hash of who used it first; null: nobody yet
CREATE INDEX ticket_of_session ON ticket (job, session_id);
"""

BATCHES = """
-- Of a batch each claim has an outcome of its own; null: not judged yet, or the outcome is the transaction's.
ALTER TABLE binding ADD COLUMN succeeded INTEGER CHECK (succeeded IN (0, 1));
CREATE INDEX binding_failed ON binding (slot) WHERE succeeded = 0 AND released IS NULL;
"""

DIGITS_OF_A_LIMB = 9
"""A running total of amounts of up to 256 bits is kept in pieces of so many digits: each is an integer that SQLite can add."""
_LIMBS = range(9)
PLACES = "(" + " UNION ALL ".join(f"SELECT {limb} AS place" for limb in _LIMBS) + ")"
"""Every piece's place, the lowest digits first; nine of them hold 2^256."""


def limb_of(amount: str) -> str:
    """SQL for the piece of a decimal text at `place`."""
    return f"CAST(substr({amount}, -{DIGITS_OF_A_LIMB} * (place + 1), {DIGITS_OF_A_LIMB}) AS INTEGER)"


def has_limb(amount: str) -> str:
    """SQL that is true where the decimal text has digits at `place`."""
    return f"{DIGITS_OF_A_LIMB} * place < length({amount})"


def _sum_so_far(kind: str, scope: str, token: str, amount: str, table: str) -> str:
    return f"""INSERT INTO total (kind, scope, token, place, amount)
  SELECT '{kind}', {scope}, {token}, place, sum({limb_of(amount)}) FROM {table}, {PLACES}
  WHERE {amount} IS NOT NULL AND {has_limb(amount)} GROUP BY 2, 3, 4;"""


RUNNING_TOTALS = f"""
ALTER TABLE venue ADD COLUMN counted_block INTEGER;  -- payments above it are pending; null: payments of every block count

CREATE TABLE total (                        -- of all payments and fees; triggers keep it
  kind TEXT NOT NULL CHECK (kind IN ('host', 'treasury', 'fee')),
  scope INTEGER NOT NULL,                   -- of a fee the chain's id, else the venue
  token TEXT NOT NULL,
  place INTEGER NOT NULL,                   -- the sum is that of amount * 10^({DIGITS_OF_A_LIMB} * place)
  amount INTEGER NOT NULL,
  PRIMARY KEY (kind, scope, token, place)
) STRICT, WITHOUT ROWID;
{_sum_so_far("host", "venue", "token", "host_amount", "payment")}
{_sum_so_far("treasury", "venue", "token", "treasury_amount", "payment")}
{_sum_so_far("fee", "chain_id", "''", "fee_wei", "slot")}
"""

MIGRATIONS: tuple[str, ...] = (TABLES, CLIENT_OF_JOB, BATCHES, RUNNING_TOTALS)
"""Entry n brings a file of version n to version n + 1. Entries are never changed once released, only added."""
