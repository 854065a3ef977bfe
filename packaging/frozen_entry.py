"""Where the frozen application begins: as itself, or as the model process that it starts by its own name."""

from __future__ import annotations

import multiprocessing
import sys

if __name__ == "__main__":
    multiprocessing.freeze_support()
    from fabstir_desktop.inference.worker import run_if_worker

    run_if_worker(sys.argv)
    from fabstir_desktop.__main__ import main

    sys.exit(main())
