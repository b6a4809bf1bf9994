"""Learn rewards and policies from what people do and what they prefer.

The nouns below are imported when they are first used, so that `import unified_irl` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Contexts": "trajectories",
    "Demonstrations": "feedback",
    "DescentConfig": "descent_config",
    "Diverged": "errors",
    "Domain": "contracts",
    "ImplicitReward": "implicit",
    "LearnableModule": "learnable",
    "Learner": "learner",
    "METHODS": "methods",
    "Method": "rows",
    "Parts": "contracts",
    "Phase": "rows",
    "Policy": "contracts",
    "Preferences": "feedback",
    "Provenance": "feedback",
    "Reward": "contracts",
    "Sampler": "contracts",
    "Trajectories": "trajectories",
    "UserError": "errors",
    "check_domain": "conformance",
    "method": "methods",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unified_irl' has no attribute '{name}'")
    return getattr(importlib.import_module(f"unified_irl.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
