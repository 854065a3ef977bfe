"""The ladder: generated, claimed, proven, settled, withdrawn. Five rungs, never one number; each leads to its rows."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt, Signal
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from fabstir_desktop.jobs.status import NodeStatus
from fabstir_desktop.jobs.views import EarningsView, without
from fabstir_desktop.ui import format as fmt
from fabstir_desktop.ui.theme import colours, theme
from fabstir_desktop.ui.widgets.basics import Card, hold_width, label, set_text
from fabstir_desktop.ui.widgets.flow import Tiles

RUNGS = ("generated", "claimed", "proven", "settled", "withdrawn")


class ShareBar(QWidget):
    """A thin bar: which part of all tokens came this far. The numbers stand above it."""

    def __init__(self) -> None:
        super().__init__()
        self._share = 0.0
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        theme().changed.connect(self.update)

    def show_share(self, share: float) -> None:
        """Fill this part, 0 to 1."""
        if share != self._share:
            self._share = share
            self.update()

    def sizeHint(self) -> QSize:
        """A few pixels high."""
        return QSize(40, max(5, self.fontMetrics().height() // 3))

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002 - Qt's signature
        """Draw trough and filling."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        box = QRectF(self.rect())
        radius = box.height() / 2
        scheme = colours()
        painter.setPen(scheme.line)
        painter.setBrush(scheme.hover)
        painter.drawRoundedRect(box.adjusted(0.5, 0.5, -0.5, -0.5), radius, radius)
        if self._share > 0:
            painter.setPen(scheme.accent)
            painter.setBrush(scheme.accent)
            width = max(box.width() * min(self._share, 1.0), box.height())
            painter.drawRoundedRect(QRectF(0, 0, width, box.height()).adjusted(0.5, 0.5, -0.5, -0.5), radius, radius)


class Rung(Card):
    """One rung: tokens, what it means for the money, how far it came."""

    def __init__(self, title: str, explanation: str, on_click: object) -> None:
        super().__init__(title, on_click if callable(on_click) else None)
        self.tokens = label(fmt.UNKNOWN, "number")
        hold_width(self.tokens, "0 000 000")
        self.unit = label(self.tr("tokens"), "muted")
        self.note = label(fmt.UNKNOWN, "muted", wrap=True)
        # Room for two lines, always: the note's length must not move what is below.
        self.note.setMinimumHeight(self.note.fontMetrics().lineSpacing() * 2 + 4)
        self.note.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.bar = ShareBar()
        self.body.setSpacing(4)
        self.body.setContentsMargins(14, 12, 14, 12)
        for widget in (self.tokens, self.bar, self.note):
            self.body.addWidget(widget)
        self.body.addStretch(1)
        self.setToolTip(explanation)
        self.setAccessibleDescription(explanation)

    def show_rung(self, tokens: int | None, share: float, note: str) -> None:
        """Show tokens (None is unknown), their share of all generated, and a line about the money."""
        set_text(self.tokens, fmt.count(tokens))
        self.bar.show_share(share)
        set_text(self.note, note)
        self.setAccessibleName(f"{self.title.text()}: {fmt.count(tokens)} {self.unit.text()}. {note}")


class Ladder(QWidget):
    """All five rungs side by side, in two or three lines where the window is narrow."""

    rungChosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        explained = {
            "generated": (self.tr("1  Generated"), self.tr("Tokens the model produced and clients received.")),
            "claimed": (self.tr("2  Claimed"), self.tr("Tokens in a checkpoint that was signed and sent.")),
            "proven": (self.tr("3  Proven"), self.tr("Tokens in a checkpoint that is mined, deep enough to count.")),
            "settled": (self.tr("4  Settled"), self.tr("Tokens the contract has credited to the host.")),
            "withdrawn": (self.tr("5  Withdrawn"), self.tr("What has arrived in the host's own wallet.")),
        }
        rungs = Tiles(10, self.fontMetrics().averageCharWidth() * 21)
        self.rung_by_name: dict[str, Rung] = {}
        for name in RUNGS:
            title, explanation = explained[name]
            rung = Rung(title, explanation, lambda name=name: self.rungChosen.emit(name))
            self.rung_by_name[name] = rung
            rungs.addWidget(rung)
        self.setLayout(rungs)

    def show_earnings(self, earnings: EarningsView | None, status: NodeStatus | None) -> None:
        """Show the rungs; None is unknown."""
        if earnings is None:
            for rung in self.rung_by_name.values():
                rung.show_rung(None, 0.0, self.tr("not read yet"))
            return
        total = max(earnings.generated, 1)
        notes = self._notes(earnings, status)
        for name, tokens in self._tokens(earnings, status).items():
            self.rung_by_name[name].show_rung(tokens, (tokens or 0) / total, notes[name])
        self.rung_by_name["settled"].note.setToolTip(fmt.amounts(earnings.earned, exact=True))

    def _tokens(self, earnings: EarningsView, status: NodeStatus | None) -> dict[str, int | None]:
        return {
            "generated": earnings.generated,
            "claimed": earnings.claimed,
            "proven": earnings.proven,
            "settled": earnings.settled,
            "withdrawn": earnings.settled if _pays_directly(status) else None,
        }

    def _notes(self, earnings: EarningsView, status: NodeStatus | None) -> dict[str, str]:
        unclaimed = max(earnings.generated - earnings.claimed - earnings.written_off, 0)
        waiting = max(earnings.claimed - earnings.proven, 0)
        if not earnings.generated:
            return dict.fromkeys(RUNGS, self.tr("nothing yet"))
        generated = self.tr("{tokens} not claimed yet").format(tokens=fmt.count(unclaimed))
        if earnings.written_off:
            generated += self.tr(", {tokens} lost").format(tokens=fmt.count(earnings.written_off))
        claimed = self.tr("{tokens} on their way").format(tokens=fmt.count(waiting))
        known = self.tr("paid straight to your wallet")
        return {
            "generated": generated if unclaimed or earnings.written_off else self.tr("all claimed"),
            "claimed": claimed if waiting else self.tr("none waiting"),
            "proven": self.tr("on chain, deep enough"),
            "settled": self._settled(earnings),
            "withdrawn": known if _pays_directly(status) else self.tr("not read from this contract"),
        }

    def _settled(self, earnings: EarningsView) -> str:
        counted = without(earnings.earned, earnings.pending)
        lines = [fmt.amounts(counted)] if counted else []
        if earnings.pending:
            lines.append(self.tr("{amounts} pending").format(amounts=fmt.amounts(earnings.pending)))
        return "\n".join(lines) if lines else self.tr("nothing credited yet")


def _pays_directly(status: NodeStatus | None) -> bool:
    """ProofSystem pays the host in the transaction that proves; JobMarketplace keeps a balance."""
    return status is not None and status.chain.contract_name == "ProofSystem"
