"""What a processor is good at, and two habits of it that cost an update of small networks a fifth of its time."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""glibc's names for the two settings of `mallopt`."""
KEPT_BYTES = 1 << 30


def keep_memory() -> None:
    """Keep freed memory in this process: glibc hands that of large temporaries back to the system as soon as they are
    gone, and the next update pays for every page of it again."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(TRIM_THRESHOLD, KEPT_BYTES)
            libc.mallopt(MMAP_THRESHOLD, KEPT_BYTES)


WIDE = 256
"""Units of a layer from which vector instructions for bfloat16 pay: an update of 256-256 takes 0.72 times as long on an
EPYC, one of 128-128 as long, one of 64-64 1.1 times."""


def gains_from_bfloat16(device: str | torch.device, hidden: Sequence[int]) -> bool:
    """Whether products between such layers are faster in bfloat16. A CPU without instructions for it takes twice as
    long as in float32; matrix units always gain, vector instructions for wide layers."""
    if torch.device(device).type == "cuda":
        return True
    can = torch.cpu.get_capabilities()
    return bool(can.get("amx_bf16") or (can.get("avx512_bf16") and min(hidden) >= WIDE))


@contextmanager
def vanishing_numbers_as_zero() -> Iterator[None]:
    """Gradients of units that hardly matter become denormal numbers, which take a processor many times longer than
    ordinary ones. Whoever computes elsewhere in this process keeps theirs."""
    was_on = math.nextafter(0.0, 1.0) * 1.0 == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_on)
