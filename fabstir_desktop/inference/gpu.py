"""How many of a model's layers go to the GPU, and what is said when fewer are there than should be. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ALL_LAYERS = -1
_RESERVE_BYTES = 512 * 1024 * 1024
"""Left free on the GPU for what is computed in between, and for the desktop."""
_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU as llama.cpp sees it; bytes of its memory."""

    name: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Needs:
    """What a model takes: bytes of its weights and of its KV cache, over so many layers."""

    weights_bytes: int
    cache_bytes: int
    layers: int

    @property
    def all_bytes(self) -> int:
        """Together."""
        return self.weights_bytes + self.cache_bytes


def layers_that_fit(needs: Needs, free_bytes: int) -> int:
    """Layers with their part of the cache that fit into so much free memory of GPUs; -1 is all of them."""
    usable = max(0, free_bytes - _RESERVE_BYTES)
    if needs.all_bytes <= usable:
        return ALL_LAYERS
    layer_bytes = max(1, needs.all_bytes // (needs.layers + 1))  # what comes before and after counts as one more
    return min(needs.layers, usable // layer_bytes)


def layer_attempts(wanted: int | None, devices: Sequence[Device], needs: Needs, failures: int = 0) -> list[int]:
    """The numbers of layers to try on the GPU, in order; -1 is all.

    A number that the host chose is tried alone. `failures`: workers that died while they loaded this model, of a driver
    out of memory for one; each takes away the first of the attempts.
    """
    if not devices or wanted == 0:
        return [0]
    if wanted is not None:
        return [wanted]
    first = layers_that_fit(needs, sum(device.free_bytes for device in devices))
    parts = [needs.layers * quarters // 4 for quarters in (3, 2, 1, 0)]
    attempts = [first, *(part for part in parts if first == ALL_LAYERS or part < first)]
    return attempts[min(failures, len(attempts) - 1) :]


def shortfall(
    wanted: int | None, offloaded: int, devices: Sequence[Device], needs: Needs, *, machine_has_gpu: bool
) -> str:
    """What to tell the host about layers that are on the CPU and should not be; empty if all is as it should be."""
    if wanted == 0:
        return ""
    if not devices:
        if wanted is not None:
            return f"{wanted} layers are wanted on the GPU, but this build of llama.cpp finds none: all run on the CPU"
        if machine_has_gpu:
            return "this machine has a GPU, but this build of llama.cpp cannot use it: all layers run on the CPU"
        return ""
    expected = needs.layers if wanted is None else min(wanted, needs.layers)
    if offloaded >= expected:
        return ""
    free = sum(device.free_bytes for device in devices)
    memory = f"needs {needs.all_bytes / _GIB:.1f} GiB, {free / _GIB:.1f} GiB of GPU memory were free"
    return f"{memory}: {expected - offloaded} of {expected} layers run on the CPU"
