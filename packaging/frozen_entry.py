"""Where the frozen application begins; the model process of `spawn` begins here as well, and is sent on its way first."""

from __future__ import annotations

import multiprocessing
import sys

if __name__ == "__main__":
    multiprocessing.freeze_support()
    from fabstir_desktop.__main__ import main

    sys.exit(main())
