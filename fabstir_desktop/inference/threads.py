"""How many CPU threads a decode step uses while other programs want the cores too. Pure: no clock, no llama.cpp.

llama.cpp's threads wait for each other by spinning, several hundred times a step. As soon as one of them loses its core to
another program, the others burn theirs until it is back: on two cores shared with a compiler, two threads gave 1 to 10 tokens
a second where one gave 40. Whether that happens is seen in the processor time a step was given: threads that own their cores use
as much of it as the clock shows, all together `threads` times as much.
"""

from __future__ import annotations

CONTENDED_SHARE = 0.75
"""Below this share of the processor time that the threads could have had, one of them was waiting for a core."""
WINDOW_S = 0.25
"""Steps are judged together until this much time is in them."""
FIRST_PATIENCE_S = 5.0
LONGEST_PATIENCE_S = 60.0


class ThreadGovernor:
    """Takes threads away while cores are contended, and tries one more from time to time."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        """What the next step shall use."""
        self._full = threads
        self._wall_s = 0.0
        self._cpu_s = 0.0
        self._calm_s = 0.0
        self._patience_s = FIRST_PATIENCE_S
        self._is_warm = False
        self._is_trying = False

    def note(self, wall_s: float, cpu_s: float) -> int:
        """Take one step's time by the clock and the processor time of the process in it; returns `threads`."""
        self._wall_s += wall_s
        self._cpu_s += cpu_s
        if self._wall_s < WINDOW_S:
            return self.threads
        share = self._cpu_s / (self._wall_s * self.threads)
        window_s, self._wall_s, self._cpu_s = self._wall_s, 0.0, 0.0
        if not self._is_warm:
            self._is_warm = True  # the first steps wait for the model's pages, not for cores
        elif share < CONTENDED_SHARE and self.threads > 1:
            self._yield()
        else:
            self._wait(window_s, share)
        return self.threads

    def _yield(self) -> None:
        if self._is_trying:  # one more thread, and at once it was too many
            self._patience_s = min(2 * self._patience_s, LONGEST_PATIENCE_S)
        self._is_trying = False
        self._calm_s = 0.0
        self.threads = max(1, self.threads - max(1, self.threads // 4))

    def _wait(self, window_s: float, share: float) -> None:
        self._calm_s += window_s
        self._is_trying = False
        if self.threads < self._full and self._calm_s >= self._patience_s and share >= CONTENDED_SHARE:
            self._calm_s = 0.0
            self._is_trying = True
            self.threads += 1
        elif self._calm_s >= FIRST_PATIENCE_S and self.threads == self._full:
            self._patience_s = FIRST_PATIENCE_S
