"""The file: one owner, versions, backups, damage, readers beside it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import apsw
import pytest
from ledger_support import VENUE, count, opened, plan

from fabstir_desktop.errors import LedgerDamaged, LedgerError, LedgerLocked, LedgerTooNew
from fabstir_desktop.ledger import keeper, startup
from fabstir_desktop.ledger.backup import KEPT_BACKUPS, back_up, backup_folder, drop_old_backups
from fabstir_desktop.ledger.connection import open_for_writing, prepare_for_writing
from fabstir_desktop.ledger.ledger import Ledger, read_views
from fabstir_desktop.ledger.migrate import migrate
from fabstir_desktop.ledger.schema import APPLICATION_ID, MIGRATIONS
from fabstir_desktop.ledger.triggers import TRIGGERS


async def test_a_second_opener_is_refused_while_views_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with opened(path) as ledger:
        await count(ledger, 1, 5)
        with pytest.raises(LedgerLocked, match="another"):
            await Ledger.open(path, VENUE)
        views = await read_views(path, VENUE)
        view = await views.job_view(1)
        with pytest.raises(LedgerError, match="reading only"):
            await views.open_ticket(1, "s")
        with pytest.raises(LedgerError, match="reading only"):
            await views.add_tokens(1, [1])
        await views.close()
        assert view is not None
        assert view.generated == 5
        assert await count(ledger, 1, 5) == 10
    async with opened(path):
        pass


async def test_another_process_is_refused_and_a_dead_one_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    code = "import sys,time;from pathlib import Path;from fabstir_desktop.ledger.lock import take_lock\n"
    code += "l=take_lock(Path(sys.argv[1]));print('locked',flush=True);time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(LedgerLocked):
            await Ledger.open(path, VENUE)
        process.kill()
        process.wait(10)
    async with opened(path):
        pass


async def test_views_need_no_running_app_and_leave_no_file_behind(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with pytest.raises(LedgerError, match="no ledger"):
        await read_views(path, VENUE)
    assert list(tmp_path.iterdir()) == []
    async with opened(path) as ledger:
        await count(ledger, 1, 5)
    before = sorted(tmp_path.iterdir())
    views = await read_views(path, VENUE)
    assert [view.generated for view in await views.job_views()] == [5]
    await views.close()
    assert sorted(tmp_path.iterdir()) == before
    strange = await read_views(path, type(VENUE)(1, "0xother", "proof_system"))
    assert await strange.job_views() == []
    assert await strange.event_cursor() is None
    await strange.close()


async def test_an_ended_ledger_is_one_file_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with opened(path) as ledger:
        await count(ledger, 1, 5)
    assert {entry.name for entry in tmp_path.iterdir()} <= {"ledger.db", "ledger.lock"}
    if os.name == "posix":
        assert path.stat().st_mode & 0o077 == 0


async def test_the_connection_is_set_up_for_safety(tmp_path: Path) -> None:
    pragmas = ("journal_mode", "foreign_keys", "trusted_schema", "cell_size_check", "fullfsync", "recursive_triggers")
    async with opened(tmp_path / "ledger.db") as ledger:
        found = [
            await ledger._engine.write(lambda db, name=name: db.execute(f"PRAGMA {name}").get, durable=True)  # type: ignore[misc]
            for name in pragmas
        ]
        synchronous = [
            await ledger._engine.write(lambda db: db.execute("PRAGMA synchronous").get, durable=durable)
            for durable in (True, False)
        ]
        with pytest.raises(LedgerError, match="read-only"):
            await ledger._engine.read(lambda db: db.execute("DELETE FROM journal"))
    assert found == ["wal", 1, 0, 1, 1, 1]
    assert synchronous == [2, 1], "claims with FULL, tokens with NORMAL"


async def test_a_ledger_of_a_newer_version_is_left_untouched(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with opened(path) as ledger:
        await count(ledger, 1, 5)
    connection = apsw.Connection(str(path))
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(LedgerTooNew, match="newer"):
        await Ledger.open(path, VENUE)
    with pytest.raises(LedgerTooNew):
        await read_views(path, VENUE)
    assert path.read_bytes() == before
    assert {entry.name for entry in tmp_path.iterdir()} <= {"ledger.db", "ledger.lock"}


async def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE photos (id)")
    connection.close()
    with pytest.raises(LedgerError, match="not a ledger"):
        await Ledger.open(path, VENUE)


async def test_a_file_that_is_no_database_is_kept_and_said(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"this is no database at all, but long enough to look at" * 100)
    before = path.read_bytes()
    with pytest.raises(LedgerDamaged):
        await Ledger.open(path, VENUE)
    assert path.read_bytes() == before
    path.unlink()
    async with opened(path):
        pass


async def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LedgerError):
        await Ledger.open(tmp_path / "file" / "ledger.db", VENUE)
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises(LedgerError):
        await Ledger.open(tmp_path / "ledger.db", VENUE)


def damage(path: Path) -> None:
    """Overwrite the middle of every page but the first."""
    content = bytearray(path.read_bytes())
    for page in range(4096, len(content), 4096):
        content[page : page + 200] = b"\xff" * 200
    path.write_bytes(bytes(content))


async def test_damage_is_found_before_the_ledger_is_used(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with opened(path) as ledger:
        await count(ledger, 1, 5)
    damage(path)
    with pytest.raises(LedgerDamaged):
        await Ledger.open(path, VENUE)


async def test_damage_of_a_large_ledger_is_found_in_the_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "QUICK_CHECK_BYTES", 0)
    path = tmp_path / "ledger.db"
    async with opened(path) as ledger:
        await count(ledger, 1, 5)
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA writable_schema = ON")
    root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'payment_block'").get
    connection.close()
    content = bytearray(path.read_bytes())
    content[(root - 1) * 4096 : root * 4096] = b"\xee" * 4096
    path.write_bytes(bytes(content))
    async with opened(path) as ledger:
        deadline = time.monotonic() + 10
        while ledger.failure is None and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        assert ledger.failure is not None
        assert "damaged" in ledger.failure
        with pytest.raises(LedgerDamaged):
            await ledger.open_ticket(1, "s")


async def test_an_unclean_end_is_followed_by_a_thorough_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.db"
    thorough: list[bool] = []
    original = startup.check

    def spy(connection: apsw.Connection, *, thorough_: bool) -> None:
        thorough.append(thorough_)
        original(connection, thorough=thorough_)

    monkeypatch.setattr(keeper, "check", lambda connection, *, thorough: spy(connection, thorough_=thorough))
    async with opened(path):
        pass
    async with opened(path):
        pass
    assert thorough == []
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE writer SET clean = 0")
    connection.close()
    async with opened(path) as ledger:
        deadline = time.monotonic() + 10
        while not thorough and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        assert ledger.failure is None
    assert thorough == [True]


def old_ledger(path: Path) -> apsw.Connection:
    connection = open_for_writing(path)
    prepare_for_writing(connection)
    migrate(connection, path, MIGRATIONS)
    connection.execute("INSERT INTO venue (id, chain_id, contract, interface) VALUES (1, 1, 'c', 'proof_system')")
    return connection


NEXT = (
    *MIGRATIONS,
    "ALTER TABLE job ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'; UPDATE venue SET interface = 'new';",
)


def test_a_migration_is_preceded_by_a_sound_backup(tmp_path: Path) -> None:
    connection = old_ledger(tmp_path / "ledger.db")
    backup = migrate(connection, tmp_path / "ledger.db", NEXT)
    assert backup is not None
    assert connection.execute("SELECT interface FROM venue").get == "new"
    assert connection.execute("PRAGMA user_version").get == len(NEXT)
    connection.close()
    copy = apsw.Connection(str(backup))
    assert copy.execute("SELECT interface FROM venue").get == "proof_system"
    assert copy.execute("PRAGMA user_version").get == len(MIGRATIONS)
    assert copy.execute("PRAGMA application_id").get == APPLICATION_ID
    assert copy.execute("PRAGMA integrity_check").get == "ok"
    copy.close()
    assert [entry.name for entry in backup_folder(tmp_path / "ledger.db").iterdir()] == [backup.name]


@pytest.mark.parametrize(
    "broken",
    [
        "UPDATE venue SET interface = 'new'; SELECT nonsense FROM nowhere;",
        "UPDATE venue SET interface = 'new'; INSERT INTO journal VALUES (1, 0, 77, 'to a job that is not there')",
    ],
)
def test_a_migration_that_fails_changes_nothing(tmp_path: Path, broken: str) -> None:
    connection = old_ledger(tmp_path / "ledger.db")
    connection.execute("PRAGMA foreign_keys = OFF")
    with pytest.raises((apsw.Error, LedgerDamaged)):
        migrate(connection, tmp_path / "ledger.db", (*MIGRATIONS, broken))
    assert connection.execute("SELECT interface FROM venue").get == "proof_system"
    assert connection.execute("PRAGMA user_version").get == len(MIGRATIONS)
    stored = dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall())
    assert stored == TRIGGERS
    connection.close()


def test_no_migration_without_room_for_its_backup(tmp_path: Path) -> None:
    connection = old_ledger(tmp_path / "ledger.db")
    (tmp_path / "backups").write_text("in the way")
    with pytest.raises(LedgerError, match="backup"):
        migrate(connection, tmp_path / "ledger.db", NEXT)
    assert connection.execute("PRAGMA user_version").get == len(MIGRATIONS)
    connection.close()


def test_changed_rules_replace_the_stored_ones(tmp_path: Path) -> None:
    connection = old_ledger(tmp_path / "ledger.db")
    connection.execute("DROP TRIGGER claim_steps; CREATE TRIGGER old_rule BEFORE DELETE ON venue BEGIN SELECT 1; END")
    assert migrate(connection, tmp_path / "ledger.db") is None
    stored = dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall())
    assert stored == TRIGGERS
    connection.close()


async def test_a_copy_is_made_each_day_while_the_ledger_is_used(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with opened(path) as ledger:
        await count(ledger, 1, 5)
    assert not backup_folder(path).exists(), "a new ledger needs none yet"
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE running SET started_at = started_at - 90000")
    connection.close()
    async with opened(path) as ledger:
        deadline = time.monotonic() + 10
        while not list(tmp_path.glob("backups/*-daily-*.db")) and time.monotonic() < deadline:
            await plan(ledger, 1, 0, 5)
            await asyncio.sleep(0.01)
    (copy,) = tmp_path.glob("backups/*.db")
    views = await read_views(copy, VENUE)
    assert [view.generated for view in await views.job_views()] == [5]
    await views.close()


def test_only_the_newest_daily_copies_are_kept(tmp_path: Path) -> None:
    connection = old_ledger(tmp_path / "ledger.db")
    labels = [f"daily-202601{day:02d}" for day in range(1, KEPT_BACKUPS + 4)]
    for label in (*labels, "v1-20200101"):
        back_up(connection, tmp_path / "ledger.db", label)
    drop_old_backups(tmp_path / "ledger.db")
    left = sorted(entry.name for entry in backup_folder(tmp_path / "ledger.db").iterdir())
    assert left == [f"ledger-{label}.db" for label in labels[3:]] + ["ledger-v1-20200101.db"]
    connection.close()


async def test_an_opening_given_up_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    for delay in (0.0, 0.001, 0.005):
        task = asyncio.create_task(Ledger.open(path, VENUE))
        await asyncio.sleep(delay)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await task).close()
        deadline = time.monotonic() + 10
        while True:
            try:
                async with opened(path):
                    break
            except LedgerLocked:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)


async def test_views_without_a_venue_show_the_one_used_last(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    other = type(VENUE)(VENUE.chain_id, "0x" + "22" * 20, "job_marketplace")
    async with opened(path):
        pass
    views = await read_views(path)
    assert await views.job_views() == []
    await views.close()
    for venue, job_id in ((VENUE, 1), (other, 2)):
        async with opened(path, venue) as ledger:
            await count(ledger, job_id, 5)
    views = await read_views(path)
    assert views.venue == other
    assert [view.job_id for view in await views.job_views()] == [2]
    await views.close()
