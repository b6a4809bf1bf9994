"""Where a run was made: code, packages, machine, command and time."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import socket
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def describe_environment(command: Sequence[str]) -> dict[str, Any]:
    """What one needs to know to run the same thing again: code, packages, machine, command, time."""
    import torch

    from unified_irl import parallel

    has_cuda = torch.cuda.is_available()
    packages = _packages()
    return {
        "command": list(command),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": _describe_repository(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": packages.get("numpy", "unknown"),
        "packages": packages,
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "cpu": _cpu_model(),
        "num_cores": os.cpu_count(),
        "num_usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "cuda_device": torch.cuda.get_device_name() if has_cuda else None,
        "cuda": torch.version.cuda if has_cuda else None,
        "num_torch_threads": torch.get_num_threads(),
        "num_processes": parallel.world().size,
    }


@functools.cache
def _packages() -> dict[str, str]:
    """Every installed distribution and its version; read once, because reading takes longer than a small run."""
    found = {str(one.metadata["Name"]): one.version for one in importlib.metadata.distributions()}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def _describe_repository() -> Any:
    """Commit, and a fingerprint of the changes since, of the repository of this package, or else of where we are."""
    for place in (Path(__file__).parent, Path.cwd()):
        commit = _git(place, "rev-parse", "HEAD")
        status = _git(place, "status", "--porcelain")
        if commit is not None and status is not None:
            diff = _git(place, "diff", "HEAD", "--binary") or ""
            changes = hashlib.sha256((status + diff).encode()).hexdigest()[:12] if status else None
            return {"commit": commit.strip(), "dirty": bool(status), "diff": changes}
    return "unknown"


def _git(place: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", place, *arguments], capture_output=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
