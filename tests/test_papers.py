"""The index of claims: it is what the stored results say, its commands can be typed, its tests and files exist."""

from __future__ import annotations

import json
import math
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import Command

from experiments import cli, compare
from experiments.claims import verdict
from experiments.claims_reward import GRID
from experiments.compare_config import CompareConfig
from experiments.evidence import Ahead, FixedPoint, Level, OverGrid, Reading, Side, Slope, above_zero, stored
from experiments.matrix import Matrix
from experiments.paper_index import CLAIMS, page
from unified_irl.statistics import Interval

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results"


class Understood(Exception):
    """Everything was understood, and the work would begin."""


@pytest.fixture
def work_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(*_: Any, **__: Any) -> None:
        raise Understood

    def begin_comparison(config: CompareConfig, _: list[str]) -> None:
        matrix = Matrix(config)
        for task in config.tasks:
            for method in config.methods:
                matrix.settings(task, method)
        raise Understood

    monkeypatch.setattr(compare, "run", begin_comparison)
    for place in ("experiments.train.train", "experiments.forecast.foretold", "experiments.verbs.science._measure",
                  "experiments.verbs.harness.measured", "experiments.robot_runs.load_robot_run"):  # fmt: skip
        monkeypatch.setattr(place, begin)


@pytest.mark.parametrize("typed", sorted({claim.command for claim in CLAIMS if claim.command}))
@pytest.mark.usefixtures("work_does_not_begin")
def test_every_command_can_be_typed(typed: str) -> None:
    program, *words = shlex.split(typed)
    assert program == "unified-irl"
    with pytest.raises(Understood):
        cli.run(words)


def test_the_page_is_what_the_stored_results_say() -> None:
    assert (ROOT / "docs" / "papers.md").read_text() == page(RESULTS), "unified-irl papers --out docs/papers.md"


def test_the_command_writes_the_page_and_shows_verdicts(command: Command, tmp_path: Path) -> None:
    said = command("papers", "--results", RESULTS, "--out", "page.md")
    assert (said.code, Path("page.md").read_text()) == (0, page(RESULTS))
    said = command("papers", "--results", RESULTS)
    assert said.code == 0
    assert "not reproduced" in said.out
    said = command("papers", "--results", tmp_path)
    assert said.code == 2
    assert "lacks control-halfcheetah.json" in said.sentence


def test_names_differ_and_tests_exist() -> None:
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        if claim.test:
            file, _, name = claim.test.partition("::")
            assert f"def {name}(" in (ROOT / file).read_text(), claim.test
        assert bool(claim.evidence) <= bool(claim.command)
        assert claim.evidence or claim.otherwise not in ("reproduced", "partly")
        assert claim.otherwise != "holds by construction" or claim.test
        assert claim.evidence or claim.remark, f"{claim.name}: why was it not measured?"


def test_losses_are_listed() -> None:
    verdicts = {verdict(claim, claim.readings(RESULTS)) for claim in CLAIMS}
    assert {"reproduced", "partly", "not reproduced", "not run here", "not measured"} <= verdicts


def test_no_number_of_ours_is_typed_by_hand() -> None:
    """The words of a claim hold no decimal but those that the papers report."""
    for claim in CLAIMS:
        assert not re.search(r"\d\.\d{2,}(?!M)", claim.remark + claim.scale), claim.name


@pytest.mark.parametrize("name", GRID)
def test_the_posters_averages_are_those_of_its_columns(name: str) -> None:
    *six, average = GRID[name]
    assert sum(six) / 6 == pytest.approx(average, abs=0.0101)


# Readings, from results small enough to reckon with.


def interval(low: float, high: float) -> Interval:
    return Interval(estimate=(low + high) / 2, low=low, high=high, num_seeds=3, method="t")


@pytest.mark.parametrize(
    ("low", "high", "side"), [(0.1, 0.2, "for"), (-0.2, -0.1, "against"), (-0.1, 0.1, "undecided"), (0, 1, "undecided")]
)
def test_an_interval_takes_a_side_once_it_leaves_zero(low: float, high: float, side: Side) -> None:
    assert above_zero(interval(low, high)) == side


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        (["for", "for"], "reproduced"),
        (["for", "against"], "partly"),
        (["undecided", "for"], "partly"),
        (["undecided", "against"], "not reproduced"),
        ([], "not run here"),
    ],
)
def test_verdicts_follow_from_the_readings(sides: list[Side], expected: str) -> None:
    claim = replace(CLAIMS[0], evidence=(), otherwise="not run here")
    assert verdict(claim, [Reading(what="it", interval=interval(0, 1), side=side) for side in sides]) == expected


def written(place: Path, name: str, record: dict[str, Any]) -> str:
    stored.cache_clear()
    (place / name).write_text(json.dumps(record))
    return name


def test_a_comparison_is_paired_by_seed(tmp_path: Path) -> None:
    """Differences 1, 2, 3: mean 2, standard error 1/√3, t quantile 4.303 at two degrees of freedom."""
    cells = [
        {"task": "t", "method": method, "seed": seed, "final": {"score": score}}
        for method, scores in (("a", (11, 22, 33)), ("b", (10, 20, 30)))
        for seed, score in enumerate(scores)
    ]
    file = written(tmp_path, "it.json", {"cells": cells})
    found = Ahead(file=file, task="t", first="a", second="b").read(tmp_path)
    half = 4.302653 / math.sqrt(3)
    assert (found.interval.estimate, found.interval.low) == (2.0, pytest.approx(2 - half))
    assert found.side == "undecided"
    level = Level(file=file, task="t", method="a", metric="score").read(tmp_path)
    assert (level.interval.estimate, level.side) == (22.0, "undecided")


def test_a_grid_has_one_mean_per_seed(tmp_path: Path) -> None:
    """Seed 0 leads by 1 and 3, seed 1 by 2 and 4: means 2 and 3. With many comparisons less with few: 2 and 2."""
    rows = [
        {"kind": kind, "seed": seed, "num_preferences": count, "method": method, "score": lead * (method == "a")}
        for kind, more in (("linear", 0), ("free", 100))
        for seed in (0, 1)
        for count, lead in ((16, 1 + seed + more), (128, 3 + seed + more))
        for method in ("a", "b")
    ]
    file = written(tmp_path, "it.json", {"result": {"rows": rows}})
    whole = OverGrid(first="a", second="b", file=file).read(tmp_path)
    assert (whole.interval.estimate, whole.interval.num_seeds) == (2.5, 2)
    many, few = {"num_preferences": 128}, {"num_preferences": 16}
    gain = OverGrid(first="a", second="b", where=many, less=few, file=file).read(tmp_path)
    assert (gain.interval.low, gain.interval.high, gain.side) == (2.0, 2.0, "for")


@pytest.mark.parametrize(
    ("low", "high", "side"),
    [(-0.6, -0.4, "for"), (-0.9, -0.6, "for"), (-0.4, -0.3, "against"), (-0.9, -0.1, "undecided")],
)
def test_a_slope_is_as_steep_as_theory_or_steeper(low: float, high: float, side: Side, tmp_path: Path) -> None:
    record = {"result": {"slopes": {"linear": vars(interval(low, high))}}}
    file = written(tmp_path, "it.json", record)
    assert Slope(file=file, keys=("slopes", "linear"), expected=-0.5).read(tmp_path).side == side


@pytest.mark.parametrize(("value", "side"), [(1e-7, "for"), (0.2, "against")])
def test_a_fixed_point_is_met_or_not(value: float, side: Side, tmp_path: Path) -> None:
    row = {"link": "l", "beta": 1.0, "fixed_point": "somewhere", "distance": value, "kl_expert": 9.0}
    file = written(tmp_path, "it.json", {"result": {"rows": [row]}})
    found = FixedPoint(link="l", beta=1.0, file=file).read(tmp_path)
    assert found.side == side
    assert "computed exactly" in str(found)
