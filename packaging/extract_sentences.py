"""Collect the sentences that rooms without Qt write for the host, so that translators and lupdate's file have them.

.venv/bin/python packaging/extract_sentences.py

Writes resources/translations/sentences.txt (a source a line, arguments in braces), which `ui/say.py` matches what it is
given against, and the context `sentences` of fabstir_desktop_en.ts with its compiled file.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fabstir_desktop.jobs.states import STATES  # noqa: E402 - the folder above is not on the path of a script
from fabstir_desktop.settings import editable_fields  # noqa: E402

ROOMS = ROOT / "fabstir_desktop"
TRANSLATIONS = ROOT / "resources" / "translations"
BESIDES = ("jobs/diagnosis.py", "serving.py", "habits.py", "server/exposure.py")
"""Modules whose sentences are not problems: the status sentence, reasons of pauses, what others can reach."""
COUNTED = ("request", "job")
"""What sentences count; `ui/say.py` says it with the language's own plurals."""
_CALLS_PROBLEM = re.compile(r"\bproblem\(\s*[\"'f]|\bproblem\(\s*code\b|import .*\bproblem\b")
_TWO_WORDS = re.compile(r"[A-Za-z]{2,}.*\s.*[A-Za-z]{2,}|^[A-Z][a-z]{3,}$", re.DOTALL)
_CONTEXT = re.compile(r"<context>\s*<name>sentences</name>.*?</context>\n", re.DOTALL)


def sentences() -> list[str]:
    """All sources, without the full stop that `jobs.states.problem` adds to what has none."""
    found = {text for state in STATES.values() for text in (state.title, state.action)}
    for field in editable_fields().values():
        extra = field.json_schema_extra
        found |= {field.description or "", str(extra.get("effect", "")) if isinstance(extra, dict) else ""}
    for file in sorted(ROOMS.rglob("*.py")):
        name = file.relative_to(ROOMS).as_posix()
        text = file.read_text(encoding="utf-8")
        if name in BESIDES or (not name.startswith(("ui/", "cli/")) and _CALLS_PROBLEM.search(text)):
            found |= set(_sources(ast.parse(text)))
    return sorted({_without_stop(text) for text in found if text.strip()})


def _sources(tree: ast.Module) -> Iterator[str]:
    skipped = set(_not_for_the_host(tree))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        text = _template(node)
        if text is not None and _TWO_WORDS.search(re.sub(r"\{\w+\}", "", text)):
            yield " ".join(text.split())


def _not_for_the_host(tree: ast.Module) -> Iterator[ast.AST]:
    """Docstrings, what is logged or raised as a programmer's error, and the pieces of f-strings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value
        if isinstance(node, ast.JoinedStr):
            yield from (part for part in node.values if isinstance(part, ast.Constant))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(("log.", "logging.", "ValueError")):
            yield from ast.walk(node)


def _template(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value if "%" not in node.value else None
    if not isinstance(node, ast.JoinedStr):
        return None
    parts, names = [], dict[str, int]()
    for part in node.values:
        if isinstance(part, ast.Constant):
            parts.append(str(part.value))
        elif isinstance(part, ast.FormattedValue):
            words = re.findall(r"[a-z_]+[a-z0-9_]*", ast.unparse(part.value).replace("self.", ""))
            name = (words[-1] if words else "").strip("_") or "value"
            names[name] = names.get(name, 0) + 1
            parts.append("{" + (name if names[name] == 1 else f"{name}_{names[name]}") + "}")
    return "".join(parts)


def _without_stop(text: str) -> str:
    return text.strip().removesuffix(".")


def as_context(sources: list[str]) -> str:
    """The context of the English file: every source is its own translation."""
    messages = (
        f"    <message>\n        <source>{escape(text)}</source>\n        <translation>{escape(text)}</translation>\n"
        "    </message>\n"
        for text in sources
    )
    plurals = (
        f'    <message numerus="yes">\n        <source>%n {noun}(s)</source>\n        <translation>\n'
        f"            <numerusform>%n {noun}</numerusform>\n            <numerusform>%n {noun}s</numerusform>\n"
        "        </translation>\n    </message>\n"
        for noun in COUNTED
    )
    return f"<context>\n    <name>sentences</name>\n{''.join((*messages, *plurals))}</context>\n"


def main() -> int:
    """Write both files and compile the second."""
    sources = sentences()
    (TRANSLATIONS / "sentences.txt").write_text("\n".join(sources) + "\n", encoding="utf-8")
    english = TRANSLATIONS / "fabstir_desktop_en.ts"
    text = _CONTEXT.sub("", english.read_text(encoding="utf-8"))
    english.write_text(text.replace("</TS>", as_context(sources) + "</TS>"), encoding="utf-8")
    lrelease = Path(sys.executable).with_name("pyside6-lrelease")
    subprocess.run([str(lrelease), "-silent", str(english), "-qm", str(english.with_suffix(".qm"))], check=True)
    print(f"{len(sources)} sentences")
    return 0


if __name__ == "__main__":
    sys.exit(main())
