"""Each page: what it shows, what its buttons do, and why they cannot."""

from __future__ import annotations

import asyncio
import csv
import io
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QFileDialog, QLineEdit
from pytestqt.qtbot import QtBot
from secrets_support import KEY_MARK
from ui_support import ADDRESS, CHAIN, ENGINE, HUGE_JOB, FakeNode, make_job

from fabstir_desktop.errors import KeyInvalid, KeyringLocked, SettingError
from fabstir_desktop.jobs.generation import EngineState
from fabstir_desktop.jobs.status import ChainState, KeySource, WalletState, WalletStatus
from fabstir_desktop.settings import editable_fields
from fabstir_desktop.ui.dialogs.prompts import HiddenEntry, TypedConfirmation
from fabstir_desktop.ui.log_store import LogStore
from fabstir_desktop.ui.main_window import MainWindow
from fabstir_desktop.ui.models.keyed_table import ROW_ROLE
from fabstir_desktop.ui.reasons import claim_refusal
from fabstir_desktop.ui.widgets.tables import choose_row

SECRET = "0x" + KEY_MARK + "7e" * 24


@pytest.fixture
def window(make_window: Callable[[Any], MainWindow], busy_node: FakeNode) -> MainWindow:
    return make_window(busy_node)


# --- jobs -----------------------------------------------------------------------------------------------------------


def test_the_jobs_filters_show_only_their_rows(window: MainWindow) -> None:
    window.show_page("jobs", "unclaimed")
    shown = [window.jobs.proxy.index(place, 0).data(ROW_ROLE) for place in range(window.jobs.proxy.rowCount())]
    assert {job.job_id for job in shown} == {4711, 4712, 4702, 4698, 4688}
    window.jobs.choose_filter("problem")
    assert window.jobs.proxy.rowCount() == 1
    window.jobs.choose_filter("all")
    window.jobs.search.setText("57896")
    assert window.jobs.proxy.rowCount() == 1


def test_the_drawer_has_the_whole_job_id_and_the_timeline(qtbot: QtBot, window: MainWindow) -> None:
    window.show_page("jobs", str(HUGE_JOB))
    drawer = window.jobs.drawer
    assert drawer.isVisible()
    drawer.job_id.copy()
    assert QGuiApplication.clipboard().text() == str(HUGE_JOB)
    qtbot.waitUntil(lambda: drawer.timeline.count() == 5)
    assert "Session opened" in drawer.timeline.item(4).text()


def test_the_drawer_follows_its_job_and_keeps_it_chosen_while_rows_stream(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    window.show_page("jobs", "4711")
    for _ in range(5):
        busy_node.count_tokens(4711, 20)
        busy_node.set_jobs(make_job(5000 + len(busy_node.job_by_id)))
        qtbot.wait(60)
    qtbot.waitUntil(lambda: window.jobs.drawer.values["generated"].text().endswith("240"))
    assert window.jobs.drawer.job_id.shown.text() == "4711"


def test_submitting_one_job_from_the_drawer(qtbot: QtBot, window: MainWindow, busy_node: FakeNode) -> None:
    window.show_page("jobs", "4711")
    window.jobs.drawer.submit_button.click()
    qtbot.waitUntil(lambda: ("checkpoint", 4711) in busy_node.calls)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"wallet": WalletStatus(WalletState.NONE)}, "There is no host key"),
        ({"wallet": WalletStatus(WalletState.LOCKED)}, "keyring is locked"),
        ({"chain": replace(CHAIN, state=ChainState.WRONG_CHAIN)}, "another chain"),
        ({"chain": replace(CHAIN, state=ChainState.UNREACHABLE)}, "cannot be reached"),
        ({"chain": replace(CHAIN, state=ChainState.NOT_SUPPORTED)}, "does not answer"),
    ],
)
def test_a_disabled_submit_button_says_why(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode, change: dict[str, Any], reason: str
) -> None:
    window.show_page("jobs")
    busy_node.set_status(**change)
    qtbot.waitUntil(lambda: reason in window.jobs.submit_reason.text())
    assert not window.jobs.submit_button.isEnabled()
    assert reason in window.dashboard.submit_reason.text()


def test_the_reason_of_each_job_is_its_own(busy_node: FakeNode) -> None:
    status = busy_node.status
    assert "already on its way" in str(claim_refusal(make_job(1, "claiming", generated=10), status))
    assert "claimed" in str(claim_refusal(make_job(1, generated=10, claimed=10), status))
    market = replace(status, chain=replace(CHAIN, contract_name="JobMarketplace"))
    assert "no claim below 100 tokens; this job has 20" in str(claim_refusal(make_job(1, generated=20), market))
    assert claim_refusal(make_job(1, generated=20), status) is None


def test_without_jobs_the_page_says_what_will_happen(make_window: Callable[[Any], MainWindow], node: FakeNode) -> None:
    window = make_window(node)
    window.show_page("jobs")
    assert window.jobs.empty.isVisible()
    assert "Nothing was generated yet" in window.jobs.submit_reason.text()


# --- transactions ---------------------------------------------------------------------------------------------------


def test_the_whole_hash_is_copied(window: MainWindow, busy_node: FakeNode) -> None:
    page: Any = window.page_by_name["transactions"]
    row = busy_node.transaction_rows[2]
    window.show_page("transactions", row.tx_hash)
    assert row.error in page.detail.text()
    page.copy_button.click()
    assert QGuiApplication.clipboard().text() == row.tx_hash


def test_the_csv_has_exact_values_and_whole_hashes(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode, tmp_path: Path
) -> None:
    window.show_page("transactions")
    page: Any = window.page_by_name["transactions"]
    page.export_button.click()
    dialog = page.findChild(QFileDialog)
    target = tmp_path / "out.csv"
    dialog.fileSelected.emit(str(target))
    dialog.close()
    qtbot.waitUntil(target.exists)
    qtbot.waitUntil(lambda: target.read_text().count("\n") == len(busy_node.transaction_rows) + 1)
    rows = list(csv.DictReader(io.StringIO(target.read_text())))
    first = busy_node.transaction_rows[4]
    assert rows[4]["tx_hash"] == first.tx_hash
    assert int(rows[4]["fee_wei"]) == first.fee_wei
    assert rows[0]["fee_wei"] == ""


# --- the plot -------------------------------------------------------------------------------------------------------


def test_the_plot_shows_gaps_and_the_table_has_the_same_data(qtbot: QtBot, window: MainWindow) -> None:
    plot = window.dashboard.plot
    with qtbot.waitSignal(plot.drawn, timeout=20_000):
        pass
    assert plot.model.rowCount() == 24
    assert [plot.model.index(place, 1).data() for place in range(24)].count("not running") == 3
    assert "3 intervals without the app" in plot.accessibleDescription()
    assert plot.as_csv().count("not running") == 6
    window.dashboard.table_button.click()
    assert not plot.legend.isVisible()


def test_the_arrow_keys_read_the_bars(qtbot: QtBot, window: MainWindow) -> None:
    plot = window.dashboard.plot
    qtbot.waitUntil(lambda: plot.model.rowCount() == 24)
    qtbot.keyClick(plot, Qt.Key.Key_Left)
    assert "197 generated, 100 proven, 0.00009 ETH settled" in plot.reading.text()
    qtbot.keyClick(plot, Qt.Key.Key_Left)
    assert "260 generated" in plot.reading.text()


# --- models ---------------------------------------------------------------------------------------------------------


def test_the_models_page_shows_the_loaded_model_and_how_much_of_it_is_on_the_gpu(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    page: Any = window.page_by_name["models"]
    assert page.values["layers"].text() == "22 of 22"
    cpu = replace(ENGINE.model, gpu_layers=12)  # type: ignore[type-var]
    busy_node.set_status(engine=replace(ENGINE, model=cpu))
    qtbot.waitUntil(lambda: "rest on the CPU" in page.values["layers"].text())
    busy_node.set_status(engine=replace(ENGINE, model=None, state=EngineState.NO_MODEL))
    qtbot.waitUntil(lambda: page.state_badge.text() == "None")
    assert page.values["layers"].text() == "–"


def test_model_files_at_hand_are_listed_and_loaded(
    qtbot: QtBot, make_window: Callable[[Any], MainWindow], busy_node: FakeNode, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "other.gguf").write_bytes(b"GGUF" + bytes(2_000_000))
    window = make_window(busy_node)
    window.show_page("models")
    page: Any = window.page_by_name["models"]
    qtbot.waitUntil(lambda: page.found.rowCount() == 1)
    choose_row(page.table, page.found.index(0, 0))
    page.load_button.click()
    qtbot.waitUntil(lambda: ("load_model", tmp_path / "models" / "other.gguf") in busy_node.calls)


def test_a_file_that_is_added_is_listed_and_chosen_and_what_is_served_stays(
    qtbot: QtBot, make_window: Callable[[Any], MainWindow], busy_node: FakeNode, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "added.gguf").write_bytes(b"GGUF" + bytes(2_000_000))
    window = make_window(busy_node)
    window.show_page("models")
    page: Any = window.page_by_name["models"]
    page.add_file(elsewhere / "added.gguf")
    qtbot.waitUntil(lambda: page.found.rowCount() == 1)
    assert page.load_button.isEnabled(), "its row is chosen"
    page.try_button.click()
    assert not page.try_button.isEnabled(), "one trial at a time"
    qtbot.waitUntil(lambda: ("try_model", elsewhere / "added.gguf") in busy_node.calls)
    qtbot.waitUntil(lambda: "it is not served" in window.notice.text.text())
    qtbot.waitUntil(page.try_button.isEnabled)
    assert [call for call in busy_node.calls if call[0] == "load_model"] == []
    page.rescan()
    qtbot.waitUntil(page.rescan_button.isEnabled)
    assert page.found.rowCount() == 1, "it is remembered"


# --- wallet ---------------------------------------------------------------------------------------------------------


def _wallet(window: MainWindow) -> Any:
    window.show_page("wallet")
    return window.page_by_name["wallet"]


def test_the_address_is_copied_whole_and_shown_as_a_code(window: MainWindow) -> None:
    page = _wallet(window)
    page.address.copy()
    assert QGuiApplication.clipboard().text() == ADDRESS
    assert page.qr.accessibleDescription() == ADDRESS
    assert len(page.qr._modules) >= 25
    assert "GNOME Keyring" in page.keys.key_word.text()


def test_importing_a_key_hides_it_hands_it_over_once_and_wipes_the_field(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    busy_node.set_status(wallet=WalletStatus(WalletState.NONE))
    page = _wallet(window)
    qtbot.waitUntil(page.keys.import_button.isVisible)
    dialog: HiddenEntry = page.keys.import_key()
    assert dialog.field.echoMode() is QLineEdit.EchoMode.Password
    assert not dialog.accept_button.isEnabled()
    dialog.field.setText(f"  {SECRET} ")
    field = dialog.field
    dialog.accept_button.click()
    assert field.text() == ""
    qtbot.waitUntil(lambda: ("set_key", len(SECRET), False) in busy_node.calls)
    qtbot.waitUntil(page.keys.replace_button.isVisible)
    assert SECRET[2:] not in caplog.text


def test_a_key_that_is_refused_is_explained_without_repeating_it(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    page = _wallet(window)
    busy_node.fail_with = KeyInvalid("that is not a private key: 64 hexadecimal digits expected, got 63")
    page.keys._store(SECRET[:-1])
    qtbot.waitUntil(page.keys.error.isVisible)
    assert "got 63" in page.keys.error.text()
    assert SECRET[10:20] not in page.keys.error.text()


def test_waiting_for_the_keyring_is_shown_and_can_be_abandoned(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    page = _wallet(window)
    busy_node.hold = asyncio.Event()
    page.keys._store(SECRET)
    qtbot.waitUntil(page.keys.waiting_row.isVisible)
    assert not page.keys.key_actions.isEnabled()
    page.keys.cancel_button.click()
    qtbot.waitUntil(lambda: not page.keys.waiting_row.isVisible())
    assert page.keys.key_actions.isEnabled()


def test_a_locked_keyring_offers_to_try_again(qtbot: QtBot, window: MainWindow, busy_node: FakeNode) -> None:
    busy_node.set_status(wallet=WalletStatus(WalletState.LOCKED, detail="The keyring is locked.", action="Unlock it."))
    page = _wallet(window)
    qtbot.waitUntil(page.keys.unlock_button.isVisible)
    busy_node.fail_with = KeyringLocked("the keyring's prompt was dismissed")
    page.keys.unlock_button.click()
    qtbot.waitUntil(page.keys.error.isVisible)
    assert ("reload_key",) in busy_node.calls


def test_removing_the_key_needs_the_last_four_characters_of_the_address(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    page = _wallet(window)
    dialog: TypedConfirmation = page.keys.remove_key()
    dialog.field.setText("9fE")
    assert not dialog.accept_button.isEnabled()
    dialog.field.setText("9fe0")
    dialog.accept_button.click()
    qtbot.waitUntil(lambda: ("remove_key",) in busy_node.calls)
    qtbot.waitUntil(page.keys.import_button.isVisible)


def test_a_key_from_the_environment_can_be_moved_into_the_keyring(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    busy_node.set_status(wallet=WalletStatus(WalletState.READY, ADDRESS, KeySource.ENVIRONMENT, "environment variable"))
    page = _wallet(window)
    qtbot.waitUntil(page.keys.keep_button.isVisible)
    page.keys.keep_button.click()
    qtbot.waitUntil(lambda: ("keep_environment_key",) in busy_node.calls)


# --- logs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def logger(store: LogStore) -> logging.Logger:
    made = logging.getLogger("fabstir_desktop.settlement.test_of_the_page")
    made.handlers = [store]
    made.setLevel(logging.DEBUG)
    made.propagate = False
    return made


def test_the_log_is_filtered_by_level_part_and_words(qtbot: QtBot, window: MainWindow, logger: logging.Logger) -> None:
    window.show_page("logs")
    page: Any = window.page_by_name["logs"]
    logger.debug("a detail")
    logger.info("CHECKPOINT NEEDED for job 7")
    logger.warning("the RPC is slow")
    qtbot.waitUntil(lambda: "RPC is slow" in page.text.toPlainText())
    assert "a detail" not in page.text.toPlainText()
    page.level.setCurrentIndex(3)
    assert "a detail" in page.text.toPlainText()
    page.search.setText("job 7")
    assert page.text.toPlainText().count("\n") == 0
    page.component.setCurrentIndex(page.component.findData("server"))
    assert page.text.toPlainText() == ""


def test_the_log_stands_still_when_it_is_not_followed(qtbot: QtBot, window: MainWindow, logger: logging.Logger) -> None:
    window.show_page("logs")
    page: Any = window.page_by_name["logs"]
    page.follow.setChecked(False)
    logger.info("unseen")
    qtbot.wait(700)
    assert "unseen" not in page.text.toPlainText()
    page.follow.setChecked(True)
    assert "unseen" in page.text.toPlainText()


def test_the_log_keeps_a_bounded_number_of_lines() -> None:
    store = LogStore()
    record = logging.LogRecord("fabstir_desktop.server.session", logging.INFO, "", 0, "line", None, None)
    for _ in range(6000):
        store.emit(record)
    assert len(store.after(0)) == 5000
    assert store.after(5999)[0].component == "server"


# --- settings -------------------------------------------------------------------------------------------------------


def _settings(qtbot: QtBot, window: MainWindow) -> Any:
    window.show_page("settings")
    page = window.settings_page
    qtbot.waitUntil(lambda: all(row.facts.text() for row in page.row_by_name.values()))
    return page


def test_every_setting_of_the_file_is_shown_with_default_and_effect(qtbot: QtBot, window: MainWindow) -> None:
    page = _settings(qtbot, window)
    assert set(page.row_by_name) == set(editable_fields())
    for name, row in page.row_by_name.items():
        assert name.upper() in row.facts.text()
        assert row.description.text() == editable_fields()[name].description
        assert "takes effect" in row.facts.text()


def test_a_setting_is_stored_and_can_be_put_back(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode, tmp_path: Path
) -> None:
    page = _settings(qtbot, window)
    row = page.row_by_name["checkpoint_threshold"]
    row.editor.setText("800")
    row.editor.editingFinished.emit()
    file = tmp_path / "settings.toml"
    qtbot.waitUntil(lambda: file.exists() and "checkpoint_threshold = 800" in file.read_text())
    qtbot.waitUntil(row.reset_button.isEnabled)
    row.reset_button.click()
    qtbot.waitUntil(lambda: "800" not in file.read_text())
    qtbot.waitUntil(lambda: row.editor.text() == "100")


def test_a_value_that_cannot_be_used_is_refused_beside_its_field(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode, tmp_path: Path
) -> None:
    page = _settings(qtbot, window)
    row = page.row_by_name["checkpoint_threshold"]
    row.editor.setText("lots")
    row.editor.editingFinished.emit()
    qtbot.waitUntil(row.error.isVisible)
    assert "CHECKPOINT_THRESHOLD" in row.error.text()
    assert not (tmp_path / "settings.toml").exists()


def test_a_setting_of_the_environment_is_locked_with_the_variables_name(
    qtbot: QtBot, window: MainWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_PORT", "9001")
    page = _settings(qtbot, window)
    row = page.row_by_name["api_port"]
    qtbot.waitUntil(row.lock.isVisible)
    assert "API_PORT" in row.lock.text()
    assert not row.editor.isEnabled()


def test_a_setting_that_cannot_be_written_says_so(qtbot: QtBot, window: MainWindow, busy_node: FakeNode) -> None:
    page = _settings(qtbot, window)
    busy_node.fail_with = SettingError("settings.toml cannot be written: disk full")
    row = page.row_by_name["start_hidden"]
    row.editor.click()
    qtbot.waitUntil(lambda: "disk full" in row.error.text())
