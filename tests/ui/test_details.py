"""What the pages do beyond showing: files and fit, an encrypted key file, speeding up, comparing with the chain, bundles."""

from __future__ import annotations

import logging
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QEvent, Qt
from PySide6.QtWidgets import QApplication, QFileDialog, QHeaderView, QLineEdit
from pytestqt.qtbot import QtBot
from secrets_support import KEY_MARK
from ui_support import ADDRESS, ENGINE, FakeNode, make_transaction

from fabstir_desktop.errors import KeyringLocked, ModelFileError, UserError
from fabstir_desktop.jobs.generation import EngineState
from fabstir_desktop.jobs.inspections import ChainJob, ModelOnDisk
from fabstir_desktop.jobs.status import KeySource, WalletState, WalletStatus
from fabstir_desktop.ui.dialogs.prompts import SecretForm, TypedConfirmation
from fabstir_desktop.ui.log_store import LogStore
from fabstir_desktop.ui.main_window import MainWindow
from fabstir_desktop.ui.pages.models import _fit_text
from fabstir_desktop.ui.widgets.tables import choose_row, title_width

SECRET = "0x" + KEY_MARK + "5c" * 24
PASSWORD = "correct horse battery"
IN_FILE = WalletStatus(WalletState.READY, ADDRESS, KeySource.FILE, "keystore file /data/keystore.json")


@pytest.fixture
def window(make_window: Callable[[Any], MainWindow], busy_node: FakeNode) -> MainWindow:
    return make_window(busy_node)


def _page(window: MainWindow, name: str) -> Any:
    window.show_page(name)
    return window.page_by_name[name]


# --- models ---------------------------------------------------------------------------------------------------------


def test_each_file_says_what_it_needs_and_whether_that_is_free(qtbot: QtBot, window: MainWindow) -> None:
    page = _page(window, "models")
    small = ModelOnDisk("a.gguf", "llama", Path("/m/a.gguf"), 800_000_000, 900_000_000, 12_100_000_000)
    page._show_files([small, replace(small, path=Path("/m/b.gguf"), needed_bytes=40_000_000_000)])
    texts = [page.found.index(place, 3).data() for place in range(2)]
    assert texts == ["Needs 900 MB, 12.1 GB free: fits", "Needs 40.0 GB, 12.1 GB free: too large"]
    colours = [page.found.index(place, 3).data(Qt.ItemDataRole.ForegroundRole) for place in range(2)]
    assert colours[0] is None
    assert colours[1] is not None
    assert _fit_text(ModelOnDisk("c.gguf", "c.gguf is damaged")) == "–"


def test_a_damaged_file_is_listed_with_its_fault_and_cannot_be_loaded(qtbot: QtBot, window: MainWindow) -> None:
    page = _page(window, "models")
    qtbot.waitUntil(page.rescan_button.isEnabled)
    page._show_files([ModelOnDisk("c.gguf", "c.gguf is damaged")])
    choose_row(page.table, page.found.index(0, 0))
    assert page.found.index(0, 2).data() == "c.gguf is damaged"
    assert "Not usable" in page.found.index(0, 4).data()
    assert not page.load_button.isEnabled()


def test_a_chosen_file_is_tried_and_a_failure_is_said(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode, tmp_path: Path
) -> None:
    page = _page(window, "models")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    page.choose()
    dialog = window.findChild(QFileDialog)
    assert dialog is not None
    busy_node.fail_with = ModelFileError("broken.gguf is cut off")
    with qtbot.waitSignal(window.bridge.failed) as failed:
        dialog.fileSelected.emit(str(tmp_path / "broken.gguf"))
    dialog.close()
    assert failed.args == ["broken.gguf is cut off"]
    assert ("load_model", tmp_path / "broken.gguf") in busy_node.calls
    busy_node.set_status(engine=replace(ENGINE, state=EngineState.LOADING, load_progress=0.4))
    qtbot.waitUntil(lambda: page.progress.isVisible() and page.progress.value() == 40)


def test_the_layers_on_the_gpu_are_chosen_stored_and_shown_amber_when_only_some_fit(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    page = _page(window, "models")
    assert page.layers.text() == "As many as fit"
    page.layers.setValue(12)
    page.layers_button.click()
    qtbot.waitUntil(lambda: ("save_setting", "gpu_layers", 12) in busy_node.calls)
    page.layers.setValue(-1)
    qtbot.waitUntil(page.layers_button.isEnabled)
    page.layers_button.click()
    qtbot.waitUntil(lambda: ("save_setting", "gpu_layers", None) in busy_node.calls)
    assert ENGINE.model is not None
    busy_node.set_status(engine=replace(ENGINE, model=replace(ENGINE.model, gpu_layers=12)))
    qtbot.waitUntil(lambda: page.values["layers"].property("tone") == "warning")


# --- wallet ---------------------------------------------------------------------------------------------------------


def _fill(form: SecretForm, *texts: str) -> None:
    for field, text in zip(form.fields, texts, strict=True):
        assert field.echoMode() is QLineEdit.EchoMode.Password
        field.setText(text)


def test_without_a_keyring_the_key_goes_into_a_file_whose_password_is_asked_twice(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    busy_node.set_status(wallet=WalletStatus(WalletState.UNAVAILABLE, detail="No keyring answers."))
    page = _page(window, "wallet").keys
    qtbot.waitUntil(page.file_button.isVisible)
    form = page.import_into_file()
    _fill(form, SECRET, "short", "short")
    assert not form.accept_button.isEnabled()
    assert "8" in form.wrong.text()
    _fill(form, SECRET, PASSWORD, PASSWORD + "!")
    assert not form.accept_button.isEnabled()
    assert "differ" in form.wrong.text()
    _fill(form, SECRET, PASSWORD, PASSWORD)
    fields = form.fields
    form.accept_button.click()
    assert [field.text() for field in fields] == ["", "", ""]
    qtbot.waitUntil(lambda: ("set_key", len(SECRET), False, len(PASSWORD)) in busy_node.calls)


def test_a_locked_key_file_is_opened_with_its_password_and_a_wrong_one_is_said(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    busy_node.set_status(wallet=replace(IN_FILE, state=WalletState.LOCKED))
    page = _page(window, "wallet").keys
    qtbot.waitUntil(page.password_button.isVisible)
    assert not page.unlock_button.isVisible()
    busy_node.fail_with = KeyringLocked("the password does not open the keystore file")
    form = page.unlock_file()
    _fill(form, " with spaces ")
    form.accept_button.click()
    qtbot.waitUntil(page.error.isVisible)
    assert "does not open" in page.error.text()
    assert ("unlock_keystore", len(" with spaces ")) in busy_node.calls


def test_replacing_lists_the_claims_on_their_way_and_keeps_the_new_key_in_the_same_place(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    busy_node.set_status(wallet=IN_FILE)
    page = _page(window, "wallet").keys
    qtbot.waitUntil(lambda: window.bridge.status.wallet.source is KeySource.FILE)
    dialog: TypedConfirmation = page.replace_key()
    told = "\n".join(label.text() for label in dialog.findChildren(type(page.error)))
    assert "job 4709: tokens 500 to 600, sent" in told
    assert "4702" not in told
    dialog.field.setText(ADDRESS[-4:])
    dialog.accept_button.click()
    form = page.findChild(SecretForm)
    _fill(form, SECRET, PASSWORD, PASSWORD)
    form.accept_button.click()
    qtbot.waitUntil(lambda: ("set_key", len(SECRET), True, len(PASSWORD)) in busy_node.calls)


def test_a_back_up_asks_where_and_for_a_password_and_never_shows_the_key(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode, tmp_path: Path
) -> None:
    page = _page(window, "wallet").keys
    dialog = page.back_up()
    dialog.fileSelected.emit(str(tmp_path / "copy.json"))
    dialog.close()
    form = page.findChild(SecretForm)
    _fill(form, PASSWORD, PASSWORD)
    with qtbot.waitSignal(window.bridge.noticed) as noticed:
        form.accept_button.click()
    assert ("back_up_key", tmp_path / "copy.json", len(PASSWORD)) in busy_node.calls
    assert str(tmp_path / "copy.json") in noticed.args[0]


# --- transactions ---------------------------------------------------------------------------------------------------


def test_a_waiting_claim_is_sped_up_and_a_confirmed_one_is_not(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    page = _page(window, "transactions")
    waiting = next(row for row in busy_node.transaction_rows if row.state == "sent")
    done = next(row for row in busy_node.transaction_rows if row.state == "confirmed")
    choose_row(page.table, page.model.index_of(done.tx_hash))
    assert not page.speed_up_button.isEnabled()
    choose_row(page.table, page.model.index_of(waiting.tx_hash))
    with qtbot.waitSignal(window.bridge.noticed) as noticed:
        page.speed_up_button.click()
    assert ("speed_up", waiting.tx_hash) in busy_node.calls
    assert "0xcdcdcd" in noticed.args[0]
    busy_node.fail_with = UserError("the fee is at your cap already")
    with qtbot.waitSignal(window.bridge.failed):
        page.speed_up_button.click()
    busy_node.set_transactions(make_transaction(39, "included"), *busy_node.transaction_rows[1:])
    qtbot.waitUntil(lambda: not page.speed_up_button.isEnabled())


# --- jobs -----------------------------------------------------------------------------------------------------------


def test_the_drawer_compares_the_ledger_with_the_chain(qtbot: QtBot, window: MainWindow, busy_node: FakeNode) -> None:
    def shown() -> str:
        return window.jobs.drawer.values["chain"].text().replace("\u2009", ",")

    busy_node.chain_jobs[4690] = ChainJob(4690, 5000, "", time.time() - 20)
    window.show_page("jobs", "4690")
    qtbot.waitUntil(lambda: shown() == "local 5,000 / chain 5,000: matches, checked 20 s ago")
    window.show_page("jobs", "4711")
    qtbot.waitUntil(lambda: "local 1,000 / chain 900: 100 on their way" in shown())
    busy_node.chain_jobs[4702] = ChainJob(4702, 700, "", time.time())
    window.show_page("jobs", "4702")
    qtbot.waitUntil(lambda: "differs" in shown())
    assert window.jobs.drawer.values["chain"].property("tone") == "warning"
    busy_node.chain_jobs[4709] = ChainJob(4709, None, "the contract does not tell", time.time())
    window.show_page("jobs", "4709")
    qtbot.waitUntil(lambda: "unknown: the contract does not tell" in shown())


def test_an_old_comparison_is_made_anew_while_the_drawer_is_open(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode
) -> None:
    busy_node.chain_jobs[4690] = ChainJob(4690, 4000, "", time.time() - 60)
    window.show_page("jobs", "4690")
    qtbot.waitUntil(lambda: "4" in window.jobs.drawer.values["chain"].text())
    busy_node.chain_jobs[4690] = ChainJob(4690, 5000, "", time.time())
    window.jobs.drawer.grow_older()
    qtbot.waitUntil(lambda: "matches" in window.jobs.drawer.values["chain"].text())


def test_no_title_of_a_table_is_cut_when_the_font_is_found_to_be_larger(window: MainWindow) -> None:
    for name, table in (("jobs", window.jobs.table), ("transactions", window.page_by_name["transactions"].table)):
        window.show_page(name)
        header = table.horizontalHeader()
        larger = header.font()
        larger.setPointSizeF(larger.pointSizeF() * 1.3)
        table.setFont(larger)
        header.setFont(larger)
        QApplication.sendEvent(table, QEvent(QEvent.Type.StyleChange))
        cut = [
            header.model().headerData(place, Qt.Orientation.Horizontal)
            for place in range(header.count())
            if header.sectionResizeMode(place) is not QHeaderView.ResizeMode.Stretch
            and header.sectionSize(place) < title_width(header, place)
        ]
        assert cut == [], name


def test_the_usual_window_has_room_for_every_amount(
    qtbot: QtBot, make_window: Callable[[Any], MainWindow], busy_node: FakeNode
) -> None:
    window = make_window(busy_node)
    window.resize(1240, 840)
    window.show_page("jobs")
    header = window.jobs.table.horizontalHeader()
    qtbot.waitUntil(lambda: header.sectionSize(window.jobs.model.EARNED) > 0)
    needed = window.jobs.table.fontMetrics().horizontalAdvance("0.000225 ETH") + 24
    assert header.sectionSize(window.jobs.model.EARNED) >= needed


# --- logs -----------------------------------------------------------------------------------------------------------


def test_the_log_is_filtered_by_job(qtbot: QtBot, window: MainWindow, store: LogStore) -> None:
    logger = logging.getLogger("fabstir_desktop.settlement.claimer")
    logger.addHandler(store)
    logger.setLevel(logging.INFO)
    try:
        logger.info("CHECKPOINT NEEDED for job 47 with 100 tokens!")
        logger.info("CHECKPOINT NEEDED for job 4711 with 100 tokens!")
        page = _page(window, "logs")
        qtbot.waitUntil(lambda: "4711" in page.text.toPlainText())
        page.job.setText("47")
        assert "job 47 " in page.text.toPlainText()
        assert "4711" not in page.text.toPlainText()
    finally:
        logger.removeHandler(store)


def test_the_diagnostic_bundle_is_shown_before_it_is_saved(
    qtbot: QtBot, window: MainWindow, busy_node: FakeNode, store: LogStore, tmp_path: Path
) -> None:
    store.emit(logging.LogRecord("fabstir_desktop.node", logging.INFO, "", 0, "Listening", None, None))
    page = _page(window, "logs")
    page.bundle_button.click()
    qtbot.waitUntil(lambda: getattr(page, "preview", None) is not None and page.preview.isVisible())
    preview = page.preview
    assert "3" in preview.note.text()
    preview.names.setCurrentRow(1)
    assert "Listening" in preview.content.toPlainText()
    target = tmp_path / "bundle.zip"
    dialog = preview.save()
    with qtbot.waitSignal(window.bridge.noticed):
        dialog.fileSelected.emit(str(target))
    with zipfile.ZipFile(target) as archive:
        assert archive.namelist() == ["version.txt", "log.txt"]
        assert b"Listening" in archive.read("log.txt")
