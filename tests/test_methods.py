"""The table of methods: ten rows with the properties the design gives them, and a sentence for what cannot be."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest

from unified_irl.descent_config import DescentConfig
from unified_irl.errors import UserError
from unified_irl.methods import ALIASES, CLONE, METHODS, Method, Phase, Regularisation, method
from unified_irl.rows import WATCHED
from unified_irl.serialise import from_json, to_json

LIKELIHOOD, LINEAR, PAIRWISE, NOTHING = "likelihood", "linear", "pairwise", "none"


def test_there_are_ten_rows_under_their_names():
    assert list(METHODS) == [
        "bc", "ml-irl", "rft", "irft", "spin", "rlhf", "dpo", "aihf", "direct-aihf", "self-play-aihf",
    ]  # fmt: skip
    assert all(row.name == name and row.summary for name, row in METHODS.items())
    assert all(method(name) is row for name, row in METHODS.items())
    assert method("sft") is METHODS["bc"]
    assert set(ALIASES.values()) <= set(METHODS)


@pytest.mark.parametrize(
    ("name", "demonstration", "preference", "reward", "updates_policy", "references"),
    [
        ("bc", LIKELIHOOD, False, "none", False, set()),
        ("ml-irl", LINEAR, False, "explicit", True, {"start"}),
        ("rft", PAIRWISE, False, "explicit", True, {"start"}),
        ("irft", PAIRWISE, False, "implicit", False, {"previous"}),
        ("spin", PAIRWISE, False, "implicit", False, {"previous"}),
        ("dpo", NOTHING, True, "implicit", False, {"start"}),
        ("aihf", LINEAR, True, "explicit", True, {"start"}),
        ("direct-aihf", LIKELIHOOD, True, "implicit", False, {"start"}),
        ("self-play-aihf", PAIRWISE, True, "implicit", False, {"previous", "start"}),
    ],
)
def test_single_stage_rows_are_those_of_the_design(name, demonstration, preference, reward, updates_policy, references):
    row = METHODS[name]
    (phase,) = row.stages
    assert phase.demonstration == demonstration
    assert phase.learns_demonstrations == (demonstration != NOTHING)
    assert phase.learns_preferences == preference
    assert phase.needs_own_samples == (demonstration in (LINEAR, PAIRWISE))
    assert phase.clones == (demonstration == LIKELIHOOD)
    assert row.reward == reward
    assert bool(phase.policy_updates) == updates_policy
    assert phase.references == references
    assert row.uses_demonstrations == (demonstration != NOTHING)
    assert row.uses_preferences == preference
    assert phase.until == "rounds"
    if name == "self-play-aihf":
        assert (phase.demonstration_reference, phase.preference_reference) == ("previous", "start")


def test_rlhf_clones_then_fits_until_held_out_loss_stops_falling_then_climbs():
    clone, reward, policy = METHODS["rlhf"].stages
    assert METHODS["rlhf"].reward == "explicit"
    assert clone.clones
    assert not clone.learns_preferences
    assert reward.learns_preferences
    assert not reward.learns_demonstrations
    assert reward.until == "held-out preferences"
    assert reward.policy_updates == 0
    assert policy.policy_updates > 0
    assert policy.practice > 0
    assert policy.until == "policy"
    assert not policy.learns_demonstrations
    assert not policy.learns_preferences


def test_self_play_differs_in_the_prompts_of_a_round():
    """irft: own samples from 1/T of the prompts in a round. spin: from all of them."""
    assert METHODS["irft"].phases[0].prompts < 1.0
    assert METHODS["spin"].phases[0].prompts == 1.0
    for name in ("irft", "spin", "self-play-aihf"):
        assert METHODS[name].phases[0].refresh_every == 1
        assert METHODS[name].phases[0].reward_steps > 1, "one step from the previous self has no pair to learn from"


def test_switching_a_term_off_leaves_its_data_and_its_reference_out():
    phase = METHODS["self-play-aihf"].phases[0]
    without = replace(phase, demonstration_weight=0.0)
    assert not without.learns_demonstrations
    assert not without.needs_own_samples
    assert without.references == {"start"}
    without = replace(phase, preference_weight=0.0)
    assert not without.learns_preferences
    assert without.references == {"previous"}
    assert METHODS["aihf"].with_phases(preference_weight=0.0).uses_preferences is False
    assert METHODS["direct-aihf"].with_phases(demonstration_weight=0.0).uses_demonstrations is False
    idle = replace(METHODS["ml-irl"].phases[0], reward_steps=0, practice=4)
    assert not idle.learns_demonstrations


def test_rows_are_data():
    """Frozen, comparable, and the same after a trip through JSON."""
    row = METHODS["rlhf"]
    with pytest.raises(FrozenInstanceError):
        row.beta = 1.0  # type: ignore[misc]
    for one in METHODS.values():
        assert from_json(Method, to_json(one), "a row") == one
    changed = row.with_phases(tolerance=0.5)
    assert [phase.tolerance for phase in changed.phases] == [0.5, 0.5]
    assert changed.warm_start == CLONE
    assert changed.stages[0] == CLONE
    assert row.phases[0].tolerance != 0.5


def test_every_setting_explains_itself():
    """The docstring under a field is its help on the command line."""
    import ast
    import inspect

    from unified_irl import descent_config, methods

    for module in (methods, descent_config):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.ClassDef):
                for this, following in zip(node.body, node.body[1:], strict=False):
                    if isinstance(this, ast.AnnAssign):
                        assert isinstance(following, ast.Expr), f"{node.name}.{ast.unparse(this.target)}"


def phase(**changes: Any) -> Phase:
    return Phase(**({"name": "p", "demonstration": "likelihood"} | changes))


def row(reward: str = "explicit", **changes: Any) -> Method:
    return Method(**({"name": "m", "summary": "", "reward": reward, "phases": (phase(),)} | changes))


IMPOSSIBLE = [
    *((lambda name=name: phase(**{name: 0}), f"phase 'p': {name} is 0; expected 1 or more.")
      for name in ("rounds", "refresh_every", "own_memory", "patience")),
    *((lambda name=name: phase(**{name: -1}), f"phase 'p': {name} is -1; expected 0 or more.")
      for name in ("demonstration_weight", "preference_weight", "reward_steps", "policy_updates", "batch_size",
                   "practice", "tolerance")),
    (lambda: phase(demonstration_weight=math.nan), "phase 'p': demonstration_weight is nan; expected 0 or more."),
    (lambda: phase(prompts=0.0), "phase 'p': prompts is 0.0; expected a share above 0 and at most 1."),
    (lambda: phase(prompts=1.5), "phase 'p': prompts is 1.5; expected a share above 0 and at most 1."),
    (lambda: phase(preference_sharpness=0.0), "phase 'p': preference_sharpness is 0.0; expected above 0."),
    (lambda: phase(demonstration="none"),
     "phase 'p' learns nothing: every weight is 0 and the policy makes no update."),
    (lambda: phase(demonstration_weight=0.0),
     "phase 'p' learns nothing: every weight is 0 and the policy makes no update."),
    (lambda: phase(reward_steps=0), "phase 'p' learns nothing: every weight is 0 and the policy makes no update."),
    (lambda: phase(policy_updates=1),
     "phase 'p' improves the policy, but nothing says where: without own samples for demonstrations it needs practice, "
     "a number of contexts above 0."),
    (lambda: METHODS["aihf"].with_phases(demonstration_weight=0.0),
     "phase 'joint' improves the policy, but nothing says where: without own samples for demonstrations it needs "
     "practice, a number of contexts above 0."),
    (lambda: phase(until="held-out preferences"),
     "phase 'p' waits for held-out preferences, but learns from none."),
    (lambda: phase(until="policy"), "phase 'p' waits for the policy, but policy_updates is 0."),
    *((lambda name=name: Regularisation(**{name: -0.5}), f"regularisation: {name} is -0.5; expected 0 or more.")
      for name in ("centring", "magnitude", "clamp", "clamp_bound")),
    (lambda: Regularisation(label_smoothing=0.5), "label_smoothing is 0.5; expected at least 0 and below 0.5."),
    (lambda: Regularisation(label_smoothing=-0.1), "label_smoothing is -0.1; expected at least 0 and below 0.5."),
    (lambda: row(beta=0.0), "beta is 0.0; expected a number above 0 (it is the policy's temperature)."),
    (lambda: row(beta=math.nan), "beta is nan; expected a number above 0 (it is the policy's temperature)."),
    (lambda: row(gamma=0.0), "gamma is 0.0; expected a discount above 0 and at most 1."),
    (lambda: row(gamma=1.01), "gamma is 1.01; expected a discount above 0 and at most 1."),
    (lambda: row(held_out=0.0), "held_out is 0.0; expected a share above 0 and below 1."),
    (lambda: row(held_out=1.0), "held_out is 1.0; expected a share above 0 and below 1."),
    (lambda: row(phases=()), "method 'm' has no phase; expected at least one."),
    (lambda: row("implicit", phases=(phase(demonstration="pairwise", policy_updates=2),)),
     "phase 'p' improves the policy on a reward, but method 'm' has none."),
    (lambda: row("none", phases=(phase(demonstration="linear"),)),
     "phase 'p' needs a reward, but method 'm' has none."),
    (lambda: row("none", phases=(phase(preference="bradley-terry"),)),
     "phase 'p' needs a reward, but method 'm' has none."),
    (lambda: row("none", init="clone", warm_start=phase(name="w", demonstration="linear")),
     "phase 'w' needs a reward, but method 'm' has none."),
    (lambda: row("explicit", phases=(phase(preference="bradley-terry"),)),
     "phase 'p' would train policy and reward in one step; split it into two phases."),
    (lambda: DescentConfig(learning_rate=0.0), "learning_rate is 0.0; expected a finite number above 0."),
    (lambda: DescentConfig(learning_rate=math.inf), "learning_rate is inf; expected a finite number above 0."),
    *((lambda name=name: DescentConfig(**{name: -1}), f"{name} is -1; expected 0 or more.")
      for name in ("warmup_steps", "total_steps", "weight_decay", "max_grad_norm", "micro_batch_size")),
    (lambda: DescentConfig(schedule="linear"),
     "a linear schedule needs total_steps above warmup_steps (0); total_steps is 0."),
    (lambda: DescentConfig(schedule="cosine", warmup_steps=7, total_steps=7),
     "a cosine schedule needs total_steps above warmup_steps (7); total_steps is 7."),
]  # fmt: skip


@pytest.mark.parametrize(("make", "sentence"), IMPOSSIBLE, ids=[sentence[:60] for _, sentence in IMPOSSIBLE])
def test_what_cannot_be_gets_a_sentence(make: Any, sentence: str):
    with pytest.raises(UserError) as caught:
        make()
    assert str(caught.value) == sentence


def test_every_number_of_a_phase_is_checked():
    """A new number in a phase without a check for nonsense shows up here."""
    unchecked = [
        field.name for field in fields(Phase) if isinstance(field.default, int | float) and not _refuses(field.name, -1)
    ]
    assert unchecked == []


def _refuses(name: str, value: float) -> bool:
    try:
        phase(**{name: value})
    except UserError:
        return True
    return False


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("ml_irl", "Did you mean ml-irl"),
        ("dpoo", "Did you mean dpo"),
        ("direct-aif", "Did you mean direct-aihf"),
        ("xyzzy", "Known: aihf, bc, direct-aihf, dpo, irft, ml-irl, rft, rlhf, self-play-aihf, sft, spin."),
    ],
)
def test_unknown_names_suggest_the_nearest(given: str, hint: str):
    with pytest.raises(UserError) as caught:
        method(given)
    assert str(caught.value).startswith(f"There is no method called '{given}'. {hint}")


def test_what_can_be_waited_for_has_a_metric():
    assert set(WATCHED) == {"held-out preferences", "policy"}
    assert len(set(WATCHED.values())) == 2


def test_step_sizes_rise_and_fall_as_scheduled():
    """Warm-up over 4 steps: ¼, ½, ¾, 1; then over the 4 steps until 8: 1, ¾, ½, ¼, 0 (linear), or ½(1 + cos πx)."""
    warm = {"warmup_steps": 4, "total_steps": 8}
    linear = DescentConfig(schedule="linear", **warm)
    assert [linear.factor(step) for step in range(10)] == [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    cosine = DescentConfig(schedule="cosine", **warm)
    expected = [1.0, 0.5 * (1 + math.sqrt(0.5)), 0.5, 0.5 * (1 - math.sqrt(0.5)), 0.0]
    assert [cosine.factor(step) for step in range(4, 9)] == pytest.approx(expected)
    root = DescentConfig(schedule="inverse-sqrt", warmup_steps=2)
    assert [root.factor(step) for step in range(6)] == pytest.approx(
        [0.5, 1, 1, 1 / math.sqrt(2), 1 / math.sqrt(3), 0.5]
    )
    assert {DescentConfig().factor(step) for step in range(100)} == {1.0}


@pytest.mark.parametrize(
    "modules", ["unified_irl", "unified_irl.methods", "envs.walks.config", "unified_irl.errors, envs.labeller"]
)
def test_reading_configs_needs_no_tensor_library(modules: str):
    code = f"import sys, {modules}; print(sorted({{'torch', 'numpy', 'scipy', 'transformers'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
