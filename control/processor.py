"""Two habits of a processor that cost an update of small networks a fifth of its time."""

from __future__ import annotations

import ctypes
import sys

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""glibc's names for the two settings of `mallopt`."""
KEPT_BYTES = 1 << 30


def suit_updates() -> None:
    """Keep freed memory, and treat vanishing numbers as zero.

    glibc hands the memory of large temporaries back to the system as soon as they are gone, and the next update pays
    for every page of it again. Gradients of units that hardly matter become denormal numbers, which take a processor
    many times longer than ordinary ones.
    """
    torch.set_flush_denormal(True)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(TRIM_THRESHOLD, KEPT_BYTES)
            libc.mallopt(MMAP_THRESHOLD, KEPT_BYTES)
