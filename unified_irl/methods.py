"""The method table: a method is a row of data.

This module imports no tensor library: the command line reads it to print help.
"""

from __future__ import annotations

from unified_irl.errors import unknown_name
from unified_irl.rows import CLONE, Method, Phase, Regularisation

__all__ = ["ALIASES", "CLONE", "METHODS", "Method", "Phase", "Regularisation", "method"]


def _table(*rows: Method) -> dict[str, Method]:
    return {row.name: row for row in rows}


METHODS: dict[str, Method] = _table(
    Method(
        name="bc",
        summary="clone the demonstrations (in language: sft)",
        reward="none",
        phases=(CLONE,),
    ),
    Method(
        name="ml-irl",
        summary="maximum-likelihood inverse RL: raise the demonstrations' reward over one's own",
        reward="explicit",
        phases=(Phase(name="irl", demonstration="linear", policy_updates=1),),
    ),
    Method(
        name="rft",
        summary="reward learning from demonstrations: tell them from own samples, then climb",
        reward="explicit",
        phases=(Phase(name="rft", demonstration="pairwise", reward_steps=5, policy_updates=4, rounds=40),),
    ),
    Method(
        name="irft",
        summary="rft on the implicit reward, the previous self refreshed several times per pass over the data",
        reward="implicit",
        phases=(
            Phase(
                name="self-play",
                demonstration="pairwise",
                demonstration_reference="previous",
                prompts=0.2,
                reward_steps=10,
                rounds=50,
            ),
        ),
        beta=1.0,
    ),
    Method(
        name="spin",
        summary="self-play against the previous self, refreshed once per pass over the data",
        reward="implicit",
        phases=(
            Phase(
                name="self-play",
                demonstration="pairwise",
                demonstration_reference="previous",
                reward_steps=50,
                rounds=10,
            ),
        ),
        beta=1.0,
    ),
    Method(
        name="rlhf",
        summary="clone, fit a reward to the preferences, then climb it",
        reward="explicit",
        init="clone",
        phases=(
            Phase(name="reward", preference="bradley-terry", rounds=400, until="held-out preferences", patience=20),
            Phase(name="policy", reward_steps=0, policy_updates=4, practice=256, until="policy", patience=5),
        ),
    ),
    Method(
        name="dpo",
        summary="fit the implicit reward to the preferences, the start as reference",
        reward="implicit",
        phases=(Phase(name="direct", preference="bradley-terry", rounds=200),),
    ),
    Method(
        name="aihf",
        summary="joint: demonstrations and preferences shape one reward while the policy climbs it",
        reward="explicit",
        phases=(Phase(name="joint", demonstration="linear", preference="bradley-terry", policy_updates=1),),
    ),
    Method(
        name="direct-aihf",
        summary="joint and direct: cloning plus preferences on the implicit reward",
        reward="implicit",
        phases=(Phase(name="direct", demonstration="likelihood", preference="bradley-terry", rounds=200),),
    ),
    Method(
        name="self-play-aihf",
        summary="joint self-play: demonstrations against the previous self, preferences against the start",
        reward="implicit",
        phases=(
            Phase(
                name="self-play",
                demonstration="pairwise",
                demonstration_reference="previous",
                preference="bradley-terry",
                preference_reference="start",
                reward_steps=50,
                rounds=10,
            ),
        ),
        beta=1.0,
    ),
)

ALIASES = {"sft": "bc"}


def method(name: str) -> Method:
    """The row of that name, or an error that suggests the nearest."""
    row = METHODS.get(ALIASES.get(name, name))
    if row is None:
        raise unknown_name("method", name, [*METHODS, *ALIASES])
    return row
