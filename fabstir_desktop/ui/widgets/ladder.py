"""The ladder: generated, claimed, proven, settled, withdrawn. Five rungs, never one number; each leads to its rows."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from PySide6.QtCore import QRectF, QSize, Qt, Signal
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from fabstir_desktop.jobs.status import NodeStatus
from fabstir_desktop.jobs.views import EarningsView, TokenAmount, without
from fabstir_desktop.ui import format as fmt
from fabstir_desktop.ui.theme import colours, theme
from fabstir_desktop.ui.widgets.basics import Card, ElidedLabel, hold_width, label, set_text, set_tone
from fabstir_desktop.ui.widgets.flow import Tiles
from fabstir_desktop.ui.words import Tone

_OLD_S = 60.0
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


@dataclass(frozen=True, slots=True)
class RungFacts:
    """What stands on a rung: tokens and their share of all generated (None: unknown), money or why it is unknown, a note."""

    tokens: int | None
    share: float
    money: tuple[TokenAmount, ...] | None
    unknown: str
    note: str


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
        self.money = ElidedLabel()
        for widget in (self.tokens, self.money, self.bar, self.note):
            self.body.addWidget(widget)
        self.body.addStretch(1)
        self.setToolTip(explanation)
        self.setAccessibleDescription(explanation)

    def show_rung(self, facts: RungFacts) -> None:
        """Show tokens, money and how far both came."""
        set_text(self.tokens, fmt.count(facts.tokens))
        self.bar.show_share(facts.share)
        set_text(self.note, facts.note)
        money = facts.unknown if facts.money is None else fmt.amounts(facts.money)
        self.money.show_text(money)
        if facts.money:
            self.money.setToolTip(fmt.amounts(facts.money, exact=True))
        set_tone(self.money, Tone.OK if facts.money else Tone.QUIET)
        self.setAccessibleName(
            f"{self.title.text()}: {fmt.count(facts.tokens)} {self.unit.text()}. {money}. {facts.note}"
        )


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
        self.pays_directly = False
        """Whether what is settled is in the wallet at once."""

    def show_earnings(self, earnings: EarningsView | None, status: NodeStatus | None) -> None:
        """Show the rungs; None is unknown."""
        self.pays_directly = _pays_directly(status)
        unread = RungFacts(None, 0.0, None, self.tr("not read yet"), "")
        facts = dict.fromkeys(RUNGS, unread) if earnings is None else self._facts(earnings)
        for name, rung in self.rung_by_name.items():
            rung.show_rung(facts[name])

    def _facts(self, earnings: EarningsView) -> dict[str, RungFacts]:
        """Money stands where the contract has said it: what it credited, and rungs that hold nothing beyond that."""
        later = self.tr("unknown until paid")
        tokens = {
            "generated": earnings.generated,
            "claimed": earnings.claimed,
            "proven": earnings.proven,
            "settled": earnings.settled,
        }
        notes = self._notes(earnings)
        counted = without(earnings.earned, earnings.pending)
        facts = {}
        for name, count in tokens.items():
            money = earnings.earned if count == earnings.settled else None
            money = counted if name == "settled" else money
            facts[name] = RungFacts(count, count / max(earnings.generated, 1), money, later, notes[name])
        facts["withdrawn"] = self._withdrawn(earnings, facts["settled"])
        return facts

    def _withdrawn(self, earnings: EarningsView, settled: RungFacts) -> RungFacts:
        if self.pays_directly:
            return replace(settled, note=self.tr("paid straight to your wallet"))
        if earnings.withdrawn is None:
            return RungFacts(None, 0.0, None, self.tr("unknown"), self.tr("not read from this contract"))
        is_all = earnings.withdrawn == settled.money
        tokens, share = (settled.tokens, settled.share) if is_all else (None if earnings.withdrawn else 0, 0.0)
        note = self.tr("taken out of the contract")
        if earnings.withdrawable:
            note = self.tr("{amounts} to withdraw").format(amounts=fmt.amounts(earnings.withdrawable))
        if earnings.withdrawn_as_of is not None and time.time() - earnings.withdrawn_as_of > _OLD_S:
            note = self.tr("taken out, read {age}").format(age=fmt.age(earnings.withdrawn_as_of))
        return RungFacts(tokens, share, earnings.withdrawn, "", note)

    def _notes(self, earnings: EarningsView) -> dict[str, str]:
        unclaimed = max(earnings.generated - earnings.claimed - earnings.written_off, 0)
        waiting = max(earnings.claimed - earnings.proven, 0)
        if not earnings.generated:
            return dict.fromkeys(RUNGS, self.tr("nothing yet"))
        generated = self.tr("{tokens} not claimed yet").format(tokens=fmt.count(unclaimed))
        if earnings.written_off:
            generated += self.tr(", {tokens} lost").format(tokens=fmt.count(earnings.written_off))
        claimed = self.tr("{tokens} on their way").format(tokens=fmt.count(waiting))
        pending = self.tr("{amounts} pending").format(amounts=fmt.amounts(earnings.pending))
        credited = self.tr("credited by the contract") if earnings.earned else self.tr("nothing credited yet")
        return {
            "generated": generated if unclaimed or earnings.written_off else self.tr("all claimed"),
            "claimed": claimed if waiting else self.tr("none waiting"),
            "proven": self.tr("on chain, deep enough"),
            "settled": pending if earnings.pending else credited,
        }


def _pays_directly(status: NodeStatus | None) -> bool:
    """ProofSystem pays the host in the transaction that proves; JobMarketplace keeps a balance."""
    return status is not None and status.chain.contract_name == "ProofSystem"
