"""Rewards that are given: a function and a classifier of another tokenizer, paid at the end or token by token."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Command, importable

from experiments.tiny import make
from experiments.train import TrainConfig, build_learner, default_config
from llm.config import ModelConfig, RewardConfig
from llm.data.config import DataConfig, SourceConfig
from llm.given import GivenReward
from llm.judges import Classifier
from llm.table import WrittenTask
from llm.voices import Voiced
from unified_irl.errors import UserError
from unified_irl.methods import METHODS, Method
from unified_irl.trajectories import Trajectories

torch.set_num_threads(1)
CLIMBING = METHODS["ml-irl"].with_phases(reward_steps=0, practice=8, policy_updates=4, rounds=15)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    make(folder, "llama", 40, 0)
    return folder


@pytest.fixture
def vowels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A judge that counts one letter."""
    source = (
        "def letters(prompts, answers):\n"
        "    texts = [one if isinstance(one, str) else one[0]['content'] for one in answers]\n"
        "    return [text.count('e') for text in texts]\n"
    )
    importable(source, "counting", tmp_path, monkeypatch)
    return "counting:letters"


def settings(tiny: Path, cache: Path, **reward: Any) -> WrittenTask:
    return WrittenTask(
        model=ModelConfig(path=str(tiny / "model")),
        data=DataConfig(
            demonstrations=SourceConfig(files=(str(tiny / "ultrachat.jsonl"),)), completion_tokens=12, held_out=0.2
        ),
        reward=RewardConfig(**reward),
        cache=str(cache),
        num_examined=8,
    )


def learner(task_name: str, config: Any, method: Method = CLIMBING) -> Any:
    return build_learner(task_name, TrainConfig(task=config, method=method))


def parts(one: Any) -> tuple[Voiced, GivenReward, Trajectories]:
    own = one.policy.sample(one.domain.contexts[torch.arange(6)], torch.Generator().manual_seed(0))
    return one.domain, one.reward, own


def test_a_token_gets_what_the_number_changed_by(tiny: Path, tmp_path: Path, vowels: str) -> None:
    """The text grows token by token; the credit is how many more letters each beginning of it has."""
    domain, reward, own = parts(learner("hf", settings(tiny, tmp_path, given=vowels)))
    said = reward(own)
    for row, (tokens, mask) in enumerate(zip(own.data["token"], own.mask, strict=True)):
        columns = mask.nonzero().squeeze(1).tolist()
        before = 0
        for count, column in enumerate(columns, start=1):
            is_end = count == len(columns) and bool(own.terminated[row])
            words = tokens[columns[: count - is_end]]
            now = domain.tokenizer.decode(words).count("e")
            assert float(said[row, column]) == now - before
            before = now
    assert float(said[~own.mask].abs().sum()) == 0.0
    assert float(said.sum()) > 0.0


def test_what_the_tokens_get_adds_up_to_what_the_end_gets(tiny: Path, tmp_path: Path, vowels: str) -> None:
    _, by_token, own = parts(learner("hf", settings(tiny, tmp_path, given=vowels)))
    _, at_the_end, same = parts(learner("hf", settings(tiny, tmp_path, given=vowels, level="sequence")))
    assert torch.equal(own.data["token"], same.data["token"])
    paid = at_the_end(own)
    assert torch.equal(by_token(own).sum(1), paid.sum(1))
    last = (own.mask * torch.arange(own.num_steps)).amax(1, keepdim=True)
    assert torch.equal(paid.gather(1, last).squeeze(1), paid.sum(1))


def test_a_classifier_of_another_tokenizer(tiny: Path, tmp_path: Path, command: Command) -> None:
    """A reward that was learnt on a GPT-NeoX with its own tokenizer is climbed by a Llama."""
    make(tmp_path / "other", "gpt-neox", 200, 1)
    command("train", "hf", "rlhf", "--model", tmp_path / "other/model", "--demonstrations",
            tmp_path / "other/ultrachat.jsonl", "--preferences", tmp_path / "other/ultrafeedback.jsonl",
            "--out", tmp_path / "run", "--task.cache", tmp_path, "--task.data.completion-tokens", "8",
            "--task.reward.level", "sequence", "--method.warm-start.rounds", "1", "--method.phases.0.rounds", "3",
            "--method.phases.1.rounds", "1", "--task.num-examined", "4")  # fmt: skip
    command("export", tmp_path / "run", tmp_path / "out")
    folder = str(tmp_path / "out/reward")
    domain, reward, own = parts(learner("hf", settings(tiny, tmp_path, given=folder)))
    theirs = Classifier(ModelConfig(path=folder), "cpu")(domain.answers(own))
    assert len(set(theirs)) > 1
    torch.testing.assert_close(reward(own).sum(1), torch.tensor(theirs))


def test_climbing_it(tiny: Path, tmp_path: Path, vowels: str) -> None:
    """More of the letter, and more wins against the start before the same judge."""
    method = replace(
        CLIMBING, beta=0.01, policy_descent=replace(CLIMBING.policy_descent, learning_rate=1e-2, max_grad_norm=1.0)
    )
    one = learner("hf", settings(tiny, tmp_path, given=vowels, normalise="at first"), method)
    while not one.finished:
        one.round()
    scores = one.domain.evaluate(one.policy, one.learnt_reward)
    assert scores["judged"] > scores["start_judged"] + 2.0
    assert scores["win_rate"] > 0.8
    saved = one.state_dict()
    again = learner("hf", settings(tiny, tmp_path, given=vowels, normalise="at first"), method)
    again.load_state_dict(saved)
    assert again.reward.scale.shift_scale == one.reward.scale.shift_scale is not None


def test_in_a_task_with_a_true_reward(tmp_path: Path, vowels: str) -> None:
    config = default_config("reviews", "ml-irl").task
    small = replace(config.model, size="seconds", documents=200, passes=1)
    config = replace(config, model=small, reward=RewardConfig(given=vowels), cache=str(tmp_path), num_examined=8)
    domain, reward, own = parts(learner("reviews", config))
    expected = [text.count("e") for _, text in domain.answers(own)]
    assert reward(own).sum(1).tolist() == expected


@pytest.mark.parametrize(("name", "why"), [("rft", "learns one"), ("spin", "climbs no reward")])
def test_nothing_teaches_it(tiny: Path, tmp_path: Path, vowels: str, name: str, why: str) -> None:
    with pytest.raises(UserError, match=f"{name} {why}; take a method that climbs"):
        learner("hf", settings(tiny, tmp_path, given=vowels), METHODS[name])


def test_answers_to_no_prompt_cannot_be_judged(tiny: Path, tmp_path: Path, vowels: str) -> None:
    _, reward, own = parts(learner("hf", settings(tiny, tmp_path, given=vowels)))
    with pytest.raises(UserError, match="belong to no prompt"):
        reward(replace(own, context_id=torch.full_like(own.context_id, -1)))
