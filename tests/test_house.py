"""The rules of the house: tools are content, files short, imports light; a method is one row, a domain one file."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from experiments import cli
from unified_irl.conformance import CHECKS, check_domain
from unified_irl.contracts import Metrics, Parts, State
from unified_irl.descent import Descent
from unified_irl.descent_config import DescentConfig
from unified_irl.feed import stream
from unified_irl.feedback import Demonstrations, Preferences, Provenance
from unified_irl.learner import Learner
from unified_irl.methods import METHODS
from unified_irl.rows import Method, Phase
from unified_irl.run import evaluate
from unified_irl.trajectories import Contexts, Trajectories

ROOT = Path(__file__).resolve().parents[1]
MOST_LINES = 330
TOOLS = ("ruff check .", "ruff format --check .", "mypy", "lint-imports")
HEAVY = ("torch", "transformers", "datasets", "mujoco", "gymnasium", "stable_baselines3", "scipy", "matplotlib",
         "wandb", "pydantic")  # fmt: skip


@pytest.mark.parametrize("tool", TOOLS)
def test_tools_are_content(tool: str) -> None:
    name, *words = tool.split()
    command = [str(Path(sys.executable).with_name(name)), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_mypy_is_strict_and_the_linter_watches_every_package() -> None:
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert settings["mypy"]["strict"] is True
    assert settings["mypy"]["packages"] == ["unified_irl"]
    linter = settings["importlinter"]
    assert set(linter["root_packages"]) == {"unified_irl", "envs", "llm", "control", "experiments"}
    layers = next(one["layers"] for one in linter["contracts"] if one["type"] == "layers")
    assert layers == ["experiments", "control | llm", "envs", "unified_irl"]


def test_no_file_of_the_core_is_long() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in (ROOT / "unified_irl").glob("**/*.py")}
    assert len(lengths) > 20
    assert not {name: length for name, length in lengths.items() if length > MOST_LINES}


@pytest.mark.parametrize("package", ["unified_irl", "unified_irl.methods", "experiments.cli", "experiments.train"])
def test_imports_are_light(package: str) -> None:
    code = f"import sys, json, {package}; print(json.dumps(sorted(set({HEAVY}) & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_the_core_alone_pulls_in_no_world() -> None:
    code = (
        "import sys, unified_irl; [getattr(unified_irl, name) for name in unified_irl.__all__]\n"
        "worlds = {'transformers', 'datasets', 'mujoco', 'gymnasium', 'stable_baselines3', 'envs', 'control', 'llm'}\n"
        "assert 'torch' in sys.modules; print(sorted(worlds & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_method_is_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row that exists in no file trains from the command line, with every flag, the table and the checkpoints."""
    row = Method(
        name="reward-then-show",
        summary="fit the reward to the preferences, then let the demonstrations correct it",
        reward="explicit",
        phases=(
            Phase(name="preferences", preference="bradley-terry", rounds=20),
            Phase(name="demonstrations", demonstration="linear", policy_updates=1, rounds=60),
        ),
    )
    monkeypatch.setitem(METHODS, row.name, row)
    monkeypatch.chdir(tmp_path)
    world = "--task.num-nodes 8 --task.horizon 6 --task.num-demonstrations 24 --tracking.progress quiet --out it"
    assert cli.run(["train", "walks", row.name, *world.split(), "--method.phases.0.rounds", "10"]) == 0
    assert json.loads(Path("it/result.json").read_text())["rounds"] == 70
    assert json.loads(Path("it/result.json").read_text())["final"]["score"] > 0.7
    assert cli.run(["evaluate", "it"]) == 0
    assert cli.run(["methods"]) == 0
    assert row.summary in capsys.readouterr().out


# A domain from nothing: two levers in two rooms, and the sampled learner that pulls them.

BETA = 0.1
TRUE_REWARD = torch.tensor([[0.2, 0.0], [0.0, 0.1]], dtype=torch.float64)


def pulled(room: Tensor, lever: Tensor, log_prob: Tensor) -> Trajectories:
    yes, no = torch.ones(len(room), dtype=torch.bool), torch.zeros(len(room), dtype=torch.bool)
    return Trajectories(
        data={"lever": lever[:, None]}, mask=yes[:, None], rewarded=yes[:, None], context_id=room, weight=yes.double(),
        behaviour_log_prob=log_prob[:, None], start_step=torch.zeros_like(room), terminated=yes, truncated=no,
    )  # fmt: skip


class Levers:
    """A number for every lever: a reward."""

    def __init__(self, config: DescentConfig) -> None:
        self.numbers = torch.nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))
        self.descent = Descent([self.numbers], config)
        self.descend, self.measure = self.descent.descend, self.descent.measure

    def __call__(self, pulls: Trajectories) -> Tensor:
        return self.numbers[pulls.context_id[:, None], pulls.data["lever"]]

    def for_policy(self) -> Any:
        return self.numbers.detach

    def state_dict(self) -> State:
        return {"numbers": self.numbers.detach().clone(), "descent": self.descent.state_dict()}

    def load_state_dict(self, state: State) -> None:
        self.numbers.data.copy_(state["numbers"])
        self.descent.load_state_dict(state["descent"])


class Gambler(Levers):
    """The log-softmax of such numbers: a policy."""

    def log_prob(self, pulls: Trajectories) -> Tensor:
        return self.numbers.log_softmax(1)[pulls.context_id[:, None], pulls.data["lever"]] * pulls.mask

    @torch.no_grad()
    def sample(self, contexts: Contexts, generator: Generator) -> Trajectories:
        log_prob = self.numbers.log_softmax(1)[contexts.ids]
        lever = torch.multinomial(log_prob.exp(), 1, generator=generator)
        return pulled(contexts.ids, lever[:, 0], log_prob.gather(1, lever)[:, 0])

    @torch.no_grad()
    def improve(
        self, reward: Any, reference: Any, beta: float, gamma: float, contexts: Contexts, num_updates: int,
        draw: Generator,
    ) -> tuple[Metrics, Trajectories]:  # fmt: skip
        """π = π_ref exp(r/β)/Z at once, whose objective is β log Z."""
        scores = reference.numbers.log_softmax(1) + reward.for_policy()() / beta
        self.numbers.copy_(scores)
        return {"policy_loss": -float(beta * scores.logsumexp(1)[contexts.ids].mean())}, self.sample(contexts, draw)

    def frozen(self) -> Gambler:
        twin = Gambler(self.descent.config)
        twin.load_state_dict(self.state_dict())
        twin.numbers.requires_grad_(False)
        return twin


class TwoArmedBandit:
    """Demonstrated by the gambler who is soft-optimal for the true reward, compared by one who knows it."""

    contexts = Contexts(ids=torch.arange(2), data={})

    def __init__(self) -> None:
        self.expert = Gambler(DescentConfig())
        self.expert.numbers.data.copy_(TRUE_REWARD / BETA)
        rooms, who = self.contexts[torch.arange(200) % 2], torch.zeros(200, dtype=torch.long)
        self.demonstrations: Demonstrations | None = Demonstrations(
            trajectories=self.expert.sample(rooms, stream(0, "shown")), maker=who, makers=(Provenance(maker="expert"),)
        )
        sides = [pulled(rooms.ids, torch.full_like(who, lever), torch.zeros(200).double()) for lever in (0, 1)]
        gap = TRUE_REWARD[rooms.ids, 0] - TRUE_REWARD[rooms.ids, 1]
        self.preferences: Preferences | None = Preferences(
            first=sides[0], second=sides[1], label=gap.sigmoid(), margin=gap * 0.0, maker=who,
            makers=(Provenance(maker="a lever", labeller="one who knows"),),
        )  # fmt: skip

    def build(self, method: Method) -> Parts:
        policy = Gambler(method.policy_descent)
        reward = Levers(method.reward_descent) if method.reward == "explicit" else None
        return Parts(policy, reward, policy.frozen())

    def evaluate(self, policy: Any, reward: Any) -> Metrics:
        chance, best, own = (
            float((log_prob.exp() * TRUE_REWARD).sum())
            for log_prob in (
                one.numbers.detach().log_softmax(1) for one in (Gambler(DescentConfig()), self.expert, policy)
            )
        )
        return {"score": (own - chance) / (best - chance)}


def test_a_domain_touches_no_file_of_the_core() -> None:
    rows = [METHODS["aihf"], METHODS["self-play-aihf"]]
    assert len(check_domain(TwoArmedBandit(), rows)) == 2 * len(CHECKS)


@pytest.mark.parametrize("name", METHODS)
def test_a_new_domain_learns_through_the_learner_as_it_is(name: str) -> None:
    """Every row runs. With a number per lever and data without end, those that end at the demonstrator end there."""
    domain, row = TwoArmedBandit(), METHODS[name]
    descent = DescentConfig(learning_rate=0.02)
    learner = Learner(domain, replace(row, policy_descent=descent, reward_descent=descent), seed=0)
    assert evaluate(learner)["score"] == pytest.approx(0.0)
    while not learner.finished:
        assert all(math.isfinite(value) for value in learner.round().values())
    score = evaluate(learner)["score"]
    assert score > 0.2
    if name in ("bc", "ml-irl", "aihf"):
        assert score == pytest.approx(1.0, abs=0.2)
    if learner.reward is not None:
        gaps = learner.reward.numbers.detach().diff(dim=1)  # type: ignore[attr-defined]
        assert torch.equal(gaps.sign(), TRUE_REWARD.diff(dim=1).sign())
