"""The style sheet: only for what carries a name or a property of ours, so that native controls stay native."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fabstir_desktop.ui.resources import resource_dir
from fabstir_desktop.ui.words import Tone

if TYPE_CHECKING:
    from fabstir_desktop.ui.theme import Colours


# long: one sheet, a rule a line
def write_stylesheet(colours: Colours, base_points: float) -> str:
    """Write the sheet for one scheme. Sizes are in points, so that they scale with the font."""
    text, muted, line = colours.text.name(), colours.muted.name(), colours.line.name()
    accent, on_accent = colours.accent.name(), colours.on_accent.name()
    card, window, hover = colours.card.name(), colours.window.name(), colours.hover.name()
    parts = [
        f"""
        QFrame[card="true"] {{ background: {card}; border: 1px solid {line}; border-radius: 10px; }}
        QFrame[card="true"][clickable="true"]:hover {{ border-color: {accent}; }}
        QFrame[card="true"][clickable="true"]:focus {{ border: 2px solid {accent}; }}
        QFrame#notice {{ background: {card}; border: 1px solid {accent}; border-radius: 10px; }}
        QFrame#strip, QFrame#footer {{ background: {card}; border: none; }}
        QFrame#strip {{ border-bottom: 1px solid {line}; }}
        QFrame#footer {{ border-top: 1px solid {line}; }}
        QFrame#rail {{ background: {card}; border: none; border-right: 1px solid {line}; }}
        QFrame#drawer {{ background: {card}; border: 1px solid {line}; border-radius: 10px; }}
        QFrame[rule="true"] {{ background: {line}; border: none; max-height: 1px; min-height: 1px; }}
        QScrollArea, QScrollArea > QWidget > QWidget#page {{ background: {window}; border: none; }}
        QFrame#drawer QScrollArea, QScrollArea > QWidget > QWidget#details {{ background: {card}; border: none; }}
        QLabel[role="heading"] {{ font-size: {base_points * 1.55:.1f}pt; font-weight: 600; }}
        QLabel[role="title"] {{ font-size: {base_points * 1.12:.1f}pt; font-weight: 600; }}
        QLabel[role="hero"] {{ font-size: {base_points * 2.1:.1f}pt; font-weight: 600; }}
        QLabel[role="number"] {{ font-size: {base_points * 1.5:.1f}pt; font-weight: 600; }}
        QLabel[role="state"] {{ font-size: {base_points * 1.35:.1f}pt; font-weight: 700; }}
        QLabel[role="caption"] {{ color: {muted}; font-size: {base_points * 0.95:.1f}pt; font-weight: 600; }}
        QLabel[role="muted"] {{ color: {muted}; }}
        QLabel[role="mono"], QPlainTextEdit[role="mono"] {{ font-family: monospace; }}
        QToolButton[rail="true"] {{
            border: none; border-radius: 8px; padding: 9px 12px; text-align: left; color: {text};
            font-size: {base_points * 1.05:.1f}pt;
        }}
        QToolButton[rail="true"]:hover {{ background: {hover}; }}
        QToolButton[rail="true"]:checked {{ background: {colours.wash(Tone.OK).name()}; color: {accent}; font-weight: 600; }}
        QToolButton[rail="true"]:focus {{ border: 2px solid {accent}; padding: 7px 10px; }}
        QToolButton[flat="true"] {{ border: none; border-radius: 6px; padding: 4px; }}
        QToolButton[flat="true"]:hover {{ background: {hover}; }}
        QToolButton[flat="true"]:focus {{ border: 2px solid {accent}; padding: 2px; }}
        QPushButton[primary="true"] {{
            background: {accent}; color: {on_accent}; border: 2px solid {accent}; border-radius: 7px;
            padding: 6px 16px; font-weight: 600;
        }}
        QPushButton[primary="true"]:hover {{ background: {colours.accent.lighter(112).name()}; }}
        QPushButton[primary="true"]:pressed {{ background: {colours.accent.darker(112).name()}; }}
        QPushButton[primary="true"]:focus {{ border-color: {text}; }}
        QPushButton[primary="true"]:disabled {{ background: {line}; border-color: {line}; color: {muted}; }}
        QPushButton[plain="true"] {{
            background: {card}; color: {text}; border: 1px solid {line}; border-radius: 7px; padding: 7px 14px;
        }}
        QPushButton[plain="true"]:hover {{ background: {hover}; }}
        QPushButton[plain="true"]:focus {{ border: 2px solid {accent}; padding: 6px 13px; }}
        QPushButton[plain="true"]:checked {{
            background: {colours.wash(Tone.OK).name()}; color: {accent}; border-color: {accent};
        }}
        QPushButton[plain="true"]:disabled {{ color: {muted}; background: {window}; }}
        QPushButton[danger="true"] {{ color: {colours.tones[Tone.ERROR].name()}; }}
        QPushButton::menu-indicator {{ width: 10px; subcontrol-position: right center; right: 6px; }}
        QTableView {{ background: {card}; border: 1px solid {line}; border-radius: 10px; gridline-color: transparent;
            selection-background-color: {colours.wash(Tone.OK).name()}; selection-color: {text}; outline: 0; }}
        QTableView::item {{ border-bottom: 1px solid {line}; padding: 0 14px 0 8px; }}
        QTableView::item:focus {{ border: 1px solid {accent}; }}
        QTableView QHeaderView {{ background: {card}; border: none; border-top-left-radius: 10px; }}
        QTableView QHeaderView::section {{
            background: {card}; color: {muted}; border: none; border-bottom: 1px solid {line};
            padding: 7px 16px 7px 11px; font-weight: 600;
        }}
        QTableView QHeaderView::section:first {{ border-top-left-radius: 10px; }}
        QTableView QHeaderView::section:last {{ border-top-right-radius: 10px; }}
        QLineEdit, QComboBox {{
            background: {card}; color: {text}; border: 1px solid {line}; border-radius: 7px; padding: 6px 9px;
            selection-background-color: {accent}; selection-color: {on_accent};
        }}
        QLineEdit:focus, QComboBox:focus {{ border: 2px solid {accent}; padding: 5px 8px; }}
        QLineEdit:disabled, QComboBox:disabled {{ color: {muted}; background: {window}; }}
        QComboBox::drop-down {{ border: none; width: 24px; }}
        QComboBox::down-arrow {{ image: url({_picture(colours, "chevron")}); width: 12px; height: 12px; }}
        QComboBox QAbstractItemView {{
            background: {card}; color: {text}; border: 1px solid {line}; selection-background-color: {accent};
            selection-color: {on_accent}; padding: 4px;
        }}
        QCheckBox {{ spacing: 8px; }}
        QCheckBox::indicator {{
            width: 15px; height: 15px; border: 1px solid {muted}; border-radius: 4px; background: {card};
        }}
        QCheckBox::indicator:checked {{
            background: {accent}; border-color: {accent}; image: url({_picture(colours, "tick")});
        }}
        QCheckBox::indicator:focus {{ border: 2px solid {accent}; }}
        QCheckBox::indicator:disabled {{ background: {window}; border-color: {line}; }}
        QProgressBar {{
            background: {hover}; border: 1px solid {line}; border-radius: 6px; text-align: center; color: {text};
            min-height: 16px;
        }}
        QProgressBar::chunk {{ background: {accent}; border-radius: 5px; }}
        QListWidget {{ background: {card}; border: none; }}
        QListWidget::item:selected {{ background: {colours.wash(Tone.OK).name()}; color: {text}; }}
        QSplitter::handle {{ background: {window}; }}
        QScrollBar:vertical {{ background: transparent; width: 12px; margin: 2px; }}
        QScrollBar:horizontal {{ background: transparent; height: 12px; margin: 2px; }}
        QScrollBar::handle {{ background: {line}; border-radius: 4px; min-height: 28px; min-width: 28px; }}
        QScrollBar::handle:hover {{ background: {muted}; }}
        QScrollBar::add-line, QScrollBar::sub-line {{ width: 0; height: 0; }}
        QScrollBar::add-page, QScrollBar::sub-page {{ background: transparent; }}
        QTableView QTableCornerButton::section {{ background: {card}; border: none; }}
        QPlainTextEdit[role="mono"] {{ border: 1px solid {line}; border-radius: 10px; padding: 8px; background: {card}; }}
        QToolTip {{ background: {card}; color: {text}; border: 1px solid {line}; padding: 4px 6px; }}
        """
    ]
    parts.extend(_tone_rules(colours, tone) for tone in Tone)
    return "".join(parts)


def _picture(colours: Colours, name: str) -> str:
    name = f"{name}-dark.svg" if colours.is_dark else f"{name}-light.svg"
    return (resource_dir() / "icons" / name).as_posix()


def _tone_rules(colours: Colours, tone: Tone) -> str:
    fore, wash = colours.tones[tone].name(), colours.wash(tone).name()
    return f"""
        QLabel[tone="{tone.value}"] {{ color: {fore}; }}
        QLabel[badge="{tone.value}"] {{
            color: {fore}; background: {wash}; border: 1px solid {fore}; border-radius: 9px; padding: 2px 9px; font-weight: 600;
        }}
        QFrame[problem="{tone.value}"] {{ background: {wash}; border: 1px solid {fore}; border-radius: 10px; }}
        """
