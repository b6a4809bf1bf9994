"""The measurements of the theory in their quick settings: slopes and fixed points within honest, wide bands.

The full settings, minutes each, are what results are quoted from.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.science.configs import QUICK, ConvergenceConfig, FixedPointsConfig, GradientConfig, SamplesConfig
from unified_irl.errors import UserError

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return {}


def measured(name: str, results: dict[str, Any]) -> Any:
    """The result of a quick measurement as a file would hold it; measured once."""
    if name not in results:
        module = importlib.import_module(f"experiments.science.{name}")
        results[name] = json.loads(json.dumps(module.run(QUICK[name], lambda sentence: None), allow_nan=False))
    return results[name]


def test_gradient_errors_fall_as_one_over_the_root_of_samples(results: dict[str, Any]):
    """A root mean square over 12 seeds is known to about 15 %, so slopes over 6 doublings to about 0.05."""
    slopes = measured("gradient", results)["slopes"]
    assert set(slopes) == {"free", "linear", "network"}
    for fit in slopes.values():
        assert -0.65 < fit["estimate"] < -0.35


def test_single_loop_becomes_stationary(results: dict[str, Any]):
    """Theory: no slower than T^(−1/2). At these few rounds the start still weighs, so the band is wide."""
    result = measured("convergence", results)
    assert -0.8 < result["slopes"]["linear"]["estimate"] < -0.35
    assert result["step_size"] == "0.3/sqrt(T)"
    for point in result["points"]:
        assert point["last_squared_gradient"] < 0.25 * point["first_squared_gradient"]


def test_errors_fall_with_demonstrations(results: dict[str, Any]):
    """√n and n, for the learner, the exact solution and cloning; shared structure in the reward beats a free table."""
    result = measured("samples", results)
    for learner in ("ml-irl", "ml-irl, exact", "bc, free"):
        assert -0.8 < result["slopes"]["total_variation"][learner]["estimate"] < -0.25
        assert -1.5 < result["slopes"]["kl"][learner]["estimate"] < -0.5
    most = [point for point in result["points"] if point["num_demonstrations"] == 1024]
    by_learner = {
        name: sum(point["kl"] for point in most if point["learner"] == name) for name in result["slopes"]["kl"]
    }
    assert by_learner["ml-irl"] < 0.5 * by_learner["bc, free"]
    assert by_learner["ml-irl"] < 3.0 * by_learner["ml-irl, exact"]


def test_links_settle_where_predicted(results: dict[str, Any]):
    """Exact sums over walks: what is left is the solver's last digits, and turns or steps not yet made."""
    result = measured("fixed_points", results)
    rows = {(row["link"], row["beta"]): row for row in result["rows"]}
    for (link, _), row in rows.items():
        if link.startswith(("likelihood", "linear (ml-irl)", "preferences", "pairwise, implicit")):
            assert row["distance"] < 1e-5, row
        if link.startswith("pairwise, explicit"):
            assert row["distance"] < 2e-3, row
            assert row["kl_expert"] > 0.01, row
    for one in result["turns"]:
        for before, after in zip(one["errors"][:-1], one["errors"][1:], strict=True):
            assert after == pytest.approx(abs(one["factor"]) * before, rel=1e-3)
    for one in result["self_play"]:
        for before, after in zip(one["errors"][:-1], one["errors"][1:], strict=True):
            assert after == pytest.approx(abs(one["factor"]) * before, rel=1e-3, abs=1e-5)
    drift = result["drift"]
    assert drift["previous"] == pytest.approx(drift["predicted"], abs=1e-4)
    assert drift["start"][1:] == pytest.approx([drift["predicted"][1]] * (len(drift["start"]) - 1), abs=1e-4)
    stale, fresh = result["linear_implicit"]["stale"], result["linear_implicit"]["fresh"]
    assert stale["losses"][-1] < stale["losses"][len(stale["losses"]) // 2] < -0.2
    assert fresh["kl_expert"][-1] < 0.1 * fresh["kl_expert"][0] < stale["kl_expert"][-1]


@pytest.mark.parametrize("name", list(QUICK))
def test_results_become_tables_and_figures(name: str, results: dict[str, Any], tmp_path: Path):
    """Every line has a cell per heading; the figure is there."""
    result, module = measured(name, results), importlib.import_module(f"experiments.science.{name}")
    headings, lines = module.table(result)
    assert lines
    assert all(len(line) == len(headings) for line in lines)
    path = module.plot(result, tmp_path / "folder" / f"{name}.png")
    assert path.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        (GradientConfig, {"num_samples": (16, 32)}),
        (GradientConfig, {"seeds": 1}),
        (ConvergenceConfig, {"step_size": 0.0}),
        (SamplesConfig, {"prior": 0.0}),
        (FixedPointsConfig, {"betas": ()}),
        (FixedPointsConfig, {"rounds": 0}),
    ],
)
def test_settings_without_a_meaning_are_refused(config: Any, wrong: dict[str, Any]):
    with pytest.raises(UserError):
        config(**wrong)
