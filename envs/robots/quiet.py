"""Models compiled without the one warning that nobody who uses this package can act on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import mujoco

NOISE = "compiler attribute 'settotalmass' is deprecated"
"""Gymnasium's own half-cheetah file sets it, and only Gymnasium can change that."""


@contextmanager
def building() -> Iterator[None]:
    """While models are compiled: keeps that warning from the terminal and from MUJOCO_LOG.TXT, passes on all others.

    Messages are kept until the end because an exception inside MuJoCo's callback would end the process.
    """
    handler = mujoco.get_mju_user_warning()
    messages: list[str] = []
    mujoco.set_mju_user_warning(messages.append)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(handler)
        for message in messages:
            if NOISE in message:
                continue
            if handler is not None:
                handler(message)
            else:
                warnings.warn(f"MuJoCo: {message}", RuntimeWarning, stacklevel=3)
