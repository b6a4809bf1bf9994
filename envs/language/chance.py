"""Chance for those who make many small choices."""

from __future__ import annotations

from random import Random

import torch
from torch import Generator


def fast(draw: Generator) -> Random:
    """A cheap generator, which continues this one's chance."""
    return Random(int(torch.randint(2**62, (), generator=draw)))
