"""A language task as a domain: what every domain owes, every method at work, feedback files, and examinations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from language import TASK, TINY, Praise, counted, domain, gentle, settings, short
from torch import Tensor

from envs.labeller import LabellerConfig
from llm.config import ImproveConfig, LanguageConfig, LoRAConfig, RewardConfig, SamplerConfig, SpeechConfig
from llm.domain import LanguageDomain
from llm.examination import length_controlled, mean_kl, on_comparisons, rank_correlation, win_rate
from llm.reward import TextReward
from llm.roles import Role
from unified_irl import conformance
from unified_irl.batch import Batch
from unified_irl.conformance import check_domain
from unified_irl.errors import UserError
from unified_irl.feedback import Preferences
from unified_irl.feedback_files import load_preferences, save_demonstrations, save_preferences
from unified_irl.implicit import ImplicitReward
from unified_irl.joint import joint_loss
from unified_irl.learner import Learner
from unified_irl.methods import METHODS
from unified_irl.rows import Phase
from unified_irl.trajectories import Trajectories

torch.set_num_threads(1)
ALWAYS = {
    "score", "gold", "greedy_gold", "unseen/score", "unseen/gold", "start_gold", "expert_gold", "win_rate",
    "win_rate_at_equal_length", "kl_to_start", "length", "ended", "demonstration_nll", "demonstration_nll_rise",
    "said_good",
}  # fmt: skip
OF_A_REWARD = {
    "learnt_return", "reward_gold_correlation", "reward_accuracy", "reward_calibration_error",
    "unseen/reward_accuracy", "unseen/reward_calibration_error",
}  # fmt: skip


# What a domain owes


@pytest.mark.parametrize("rank", [0, 4])
def test_it_keeps_every_promise(rank: int) -> None:
    rows = [METHODS["aihf"], METHODS["self-play-aihf"]]
    world = domain(model=replace(TINY, lora=LoRAConfig(rank=rank)))
    assert check_domain(world, rows, somebody_answers=True) == [
        f"{check.__name__} ({row.name})" for row in rows for check in (*conformance.CHECKS, *conformance.ANSWERS)
    ]


def test_other_settings_keep_every_promise() -> None:
    """A discount, rewards at the end, activations computed twice, another climb, and completions of people."""
    world = domain(
        model=replace(TINY, family="llama", gradient_checkpointing=True),
        reward=RewardConfig(level="sequence", bound=3.0, normalise="at first"),
        improve=ImproveConfig(samples=2, algorithm="ppo", kl="k3 penalty", credit="whole"),
        people=replace(settings().people, compared="task"),
    )
    assert check_domain(world, [replace(METHODS["aihf"], gamma=0.9)])


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_at_work(name: str) -> None:
    """Two rounds of each phase; what is said in between and in the end is finite, and something was learnt."""
    world, method = domain(), short(name)
    learner = Learner(world, method, 0)
    rounds = 0
    while not learner.finished:
        metrics = learner.round()
        assert all(math.isfinite(value) for value in metrics.values()), metrics
        rounds += 1
    assert rounds == 2 * len(method.stages)
    final = world.evaluate(learner.policy, learner.learnt_reward)
    assert set(final) == ALWAYS | (OF_A_REWARD if method.reward != "none" else set())
    assert all(math.isfinite(value) for value in final.values()), final
    assert final["kl_to_start"] != 0.0


def state_of(name: str, size: int, rank: int, checkpointing: bool) -> Tensor:
    """All weights after one plain step of a row's loss on 8 rows of unequal weight, so many at a time."""
    world = domain(model=replace(TINY, lora=LoRAConfig(rank=rank), gradient_checkpointing=checkpointing))
    descent = gentle(micro_batch_size=size, max_grad_norm=1.0)
    method = replace(METHODS[name], policy_descent=descent, reward_descent=descent)
    parts = world.build(method)
    shown, compared = world.demonstrations, world.preferences
    assert shown is not None
    assert compared is not None
    weighted = replace(shown.trajectories[:8], weight=torch.arange(1.0, 9.0))
    draw = torch.Generator().manual_seed(0)
    own = parts.policy.sample(world.contexts[weighted.context_id], draw)
    batch = Batch(demonstrations=weighted, own=replace(own, weight=weighted.weight), preferences=compared[:8])
    reward = parts.reward or ImplicitReward(parts.policy, parts.reference, method.beta)
    loss = joint_loss(
        method, method.phases[0], log_prob=parts.policy.log_prob, demonstration_reward=reward, preference_reward=reward
    )
    learner: Any = parts.reward or parts.policy
    learner.descend(loss, batch, batch.normaliser())
    head = [parts.reward.head.weight] if isinstance(parts.reward, TextReward) else []
    role: Role = learner.role
    return torch.cat([value.detach().flatten() for value in (*role.weights().values(), *head)])


@pytest.mark.parametrize(("rank", "checkpointing"), [(0, False), (4, False), (0, True), (4, True)])
@pytest.mark.parametrize("name", ["aihf", "dpo", "bc", "self-play-aihf"])
def test_eight_rows_one_by_one_are_eight_rows_at_once(name: str, rank: int, checkpointing: bool) -> None:
    """Plain steps, since Adam would blow rounding errors up to whole steps."""
    at_once = state_of(name, 0, rank, checkpointing)
    for size in (1, 3):
        pieces = state_of(name, size, rank, checkpointing)
        assert float((pieces - at_once).abs().max()) < 1e-6
    plain = state_of(name, 0, rank, False)
    torch.testing.assert_close(plain, at_once, rtol=0.0, atol=1e-6)


# Who shows and who compares


def test_feedback_is_a_function_of_the_seed_of_the_data() -> None:
    """Runs of any seed share it where it is given; otherwise it is the run's."""

    def rows(seed: int, data_seed: int) -> list[list[list[int]]]:
        world = domain(seed, people=SpeechConfig(num_demonstrations=9, num_preferences=5, data_seed=data_seed))
        shown, compared = world.demonstrations, world.preferences
        assert shown is not None
        assert compared is not None
        return [one.data["token"].tolist() for one in (shown.trajectories, compared.first, compared.second)]

    assert rows(0, -1) == rows(0, -1) == rows(3, 0)
    assert rows(1, -1) != rows(0, -1)


@pytest.mark.parametrize("compared", ["start", "task"])
def test_feedback_is_about_prompts_that_may_be_shown(compared: Any) -> None:
    people = SpeechConfig(
        num_demonstrations=20, num_preferences=30, compared=compared, labeller=LabellerConfig(rationality=math.inf)
    )
    world = domain(people=people)
    shown, preferences = world.demonstrations, world.preferences
    assert shown is not None
    assert preferences is not None
    assert len(shown.validated()) == 20
    assert len(preferences.validated()) == 30
    counts = shown.trajectories.context_id.bincount(minlength=10)
    assert counts.tolist()[6:] == [0, 0, 0, 0]
    assert set(counts.tolist()[:6]) == {3, 4}
    assert int(preferences.first.context_id.max()) < 6
    gold = [TASK.gold(side.context_id, *world.codec.texts(side)) for side in (preferences.first, preferences.second)]
    untied = gold[0] != gold[1]
    assert torch.equal(preferences.label[untied], (gold[0] > gold[1])[untied].float())
    texts = [world.codec.texts(side) for side in (preferences.first, preferences.second)]
    assert all(one != two for one, two in zip(zip(*texts[0], strict=True), zip(*texts[1], strict=True), strict=True))
    assert preferences.makers[0].labeller == "Bradley-Terry, rationality inf"
    assert ("base model" in preferences.makers[0].maker) == (compared == "start")
    seen, unseen = world.fresh
    assert (len(seen), len(unseen)) == (8, 8)
    assert int(unseen.first.context_id.min()) >= 6


def test_a_task_without_feedback_has_none() -> None:
    world = domain(people=SpeechConfig(num_demonstrations=0, num_preferences=0))
    assert world.demonstrations is None
    assert world.preferences is None
    with pytest.raises(UserError, match="learns from demonstrations, but the task holds none"):
        Learner(world, short("aihf"), 0)
    assert "demonstration_nll" not in world.evaluate(world.build(short("bc")).policy, None)


def test_a_labeller_that_skips_all_is_given_up() -> None:
    class Same(Praise):
        def propose(self, prompts: Tensor, draw: torch.Generator) -> list[str]:
            return ["a"] * len(prompts)

    config = settings(people=replace(settings().people, compared="task"))
    with pytest.raises(UserError, match="Of 12 comparisons only 0 were answered after 20 attempts"):
        _ = LanguageDomain(config, 0, Same()).preferences


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: SpeechConfig(labeller=LabellerConfig(myopia=0.9)), "completions are compared as wholes here"),
        (lambda: replace(TINY, compile=True, shard=True), "compile is for whole models on one device"),
        (lambda: settings(model=replace(TINY, shard=True), sampler=SamplerConfig(engine="paged")), "let the engine be"),
    ],
)
def test_settings_that_do_not_go_together(made: Callable[[], object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        made()


def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    row = METHODS["dpo"].with_phases(segment=3)
    with pytest.raises(UserError, match=r"cuts windows of 3 steps, but a completion means nothing without its prompt"):
        domain().build(row)
    world = domain()
    parts = world.build(METHODS["aihf"])
    own = parts.policy.sample(world.contexts, torch.Generator().manual_seed(0))
    assert parts.reward is not None
    phase = Phase(name="ask", preference="bradley-terry", queries=3, practice=3, query="disagreement")
    with pytest.raises(UserError, match="no members that could disagree"):
        world.ask(own, parts.reward, 3, phase, 1.0, torch.Generator().manual_seed(0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device can be used; choose auto or cpu"):
        domain(device="cuda")
    with pytest.raises(UserError, match="language: num_examined is 0; expected 1 or more"):
        LanguageConfig(num_examined=0)


def test_entropy_asks_about_what_the_reward_can_tell_apart_least() -> None:
    """Twelve completions of one prompt, paid by their length: the pairs asked about first are of equal length."""
    world = domain()
    parts = world.build(METHODS["aihf"])
    same = world.contexts[torch.zeros(24, dtype=torch.long)]
    own = parts.policy.sample(same, torch.Generator().manual_seed(0))

    def paid(behaviours: Trajectories) -> Tensor:
        return behaviours.rewarded.float()

    gaps = {}
    for query in ("uniform", "entropy"):
        phase = Phase(name="ask", preference="bradley-terry", queries=5, practice=3, query=query)  # type: ignore[arg-type]
        answers = world.ask(own, paid, 5, phase, 1.0, torch.Generator().manual_seed(1))
        assert answers is not None
        assert len(answers) == 5
        gaps[query] = float((answers.first.mask.sum(1) - answers.second.mask.sum(1)).abs().float().mean())
    assert gaps["entropy"] < gaps["uniform"]


# Feedback files


def test_feedback_files_go_around(tmp_path: Path) -> None:
    world = domain()
    assert world.demonstrations is not None
    assert world.preferences is not None
    save_demonstrations(tmp_path / "d", world.demonstrations)
    save_preferences(tmp_path / "p", world.preferences)
    people = SpeechConfig(demonstrations_file=str(tmp_path / "d"), preferences_file=str(tmp_path / "p"))
    other = domain(5, people=people)
    assert other.demonstrations is not None
    assert other.preferences is not None
    pairs = [
        (world.demonstrations.trajectories, other.demonstrations.trajectories),
        (world.preferences.first, other.preferences.first),
        (world.preferences.second, other.preferences.second),
    ]
    for one, two in pairs:
        assert torch.equal(one.data["token"], two.data["token"])
        assert torch.equal(one.mask, two.mask)
        assert torch.equal(one.terminated, two.terminated)
    assert torch.equal(world.preferences.label, other.preferences.label)
    assert other.preferences.makers == world.preferences.makers
    assert load_preferences(tmp_path / "p").level == "whole"
    learner = Learner(other, short("aihf"), 5)
    assert all(math.isfinite(value) for value in learner.round().values())


Spoil = Callable[[Trajectories], Trajectories]


def holding(**data: Callable[[Tensor], Tensor]) -> Spoil:
    """Rows whose data are made of their tokens."""
    return lambda one: replace(one, data={name: make(one.data["token"]) for name, make in data.items()})


def answering(turn: Callable[[Tensor], Tensor]) -> Spoil:
    return lambda one: replace(one, context_id=turn(one.context_id))


def counting(which: Callable[[Trajectories], Tensor]) -> Spoil:
    return lambda one: replace(one, mask=which(one), rewarded=which(one))


NO_TABLE = "'token' is missing or no table of whole numbers; expected a file that `unified-irl collect praise` wrote"
NO_CONTEXT = "'context_id' must lie between -1 and 9 in this task"
NO_PROMPT = r"row 0 does not begin with the prompt of its context \d\. Was the file made with another seed of the data"
WRONG: dict[str, tuple[Spoil, str]] = {
    "no tokens": (holding(state=lambda token: token), NO_TABLE),
    "fractions": (holding(token=lambda token: token.float()), NO_TABLE),
    "vectors": (holding(token=lambda token: token[..., None]), NO_TABLE),
    "unknown tokens": (
        holding(token=lambda token: token + 9),
        r"tokens run from 9 to \d+, but the model knows 0 to 15\. Was the file made with another tokenizer\?",
    ),
    "negative tokens": (holding(token=lambda token: token - 1), "tokens run from -1 to"),
    "unknown contexts": (answering(lambda ids: ids + 9), NO_CONTEXT),
    "negative contexts": (answering(lambda ids: ids - 9), NO_CONTEXT),
    "other prompts": (answering(lambda ids: (ids + 1) % 10), NO_PROMPT),
    "chosen prompts": (counting(lambda one: torch.ones_like(one.mask)), NO_PROMPT),
    "pieces": (lambda one: one.segment(torch.full((len(one),), 2), 3), NO_PROMPT),
    "too long": (
        lambda one: counting(lambda wide: (torch.arange(80) > 2).expand(len(wide), -1))(one.padded(80)),
        "a row has 80 tokens, but the model's context is 64; remove such rows",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_files_of_something_else_are_refused(what: str, tmp_path: Path) -> None:
    world, (spoil, said) = domain(), WRONG[what]
    assert world.demonstrations is not None
    assert world.preferences is not None
    save_demonstrations(
        tmp_path / "d", replace(world.demonstrations, trajectories=spoil(world.demonstrations.trajectories))
    )
    sides = [spoil(side) for side in (world.preferences.first, world.preferences.second)]
    save_preferences(tmp_path / "p", replace(world.preferences, first=sides[0], second=sides[1]))
    with pytest.raises(UserError, match=said) as refused:
        _ = domain(people=SpeechConfig(demonstrations_file=str(tmp_path / "d"))).demonstrations
    assert str(tmp_path / "d") in str(refused.value)
    with pytest.raises(UserError, match=said):
        _ = domain(people=SpeechConfig(preferences_file=str(tmp_path / "p"))).preferences


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    world = domain()
    assert world.demonstrations is not None
    assert world.preferences is not None
    save_demonstrations(tmp_path / "d", world.demonstrations)
    for file, said in (("d", "holds demonstrations in .*; expected preferences"), ("none", "there is no such file")):
        with pytest.raises(UserError, match=said):
            _ = domain(people=SpeechConfig(preferences_file=str(tmp_path / file))).preferences
    (tmp_path / "d").write_bytes((tmp_path / "d").read_bytes()[:-20])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        _ = domain(people=SpeechConfig(demonstrations_file=str(tmp_path / "d"))).demonstrations


def test_answers_to_no_context_of_the_task_are_taken(tmp_path: Path) -> None:
    """A demonstration of another prompt belongs to context −1, and is learnt from like others."""
    world = domain()
    assert world.demonstrations is not None
    stray = replace(world.demonstrations.trajectories, context_id=torch.full((12,), -1))
    save_demonstrations(tmp_path / "d", replace(world.demonstrations, trajectories=stray))
    other = domain(people=replace(settings().people, demonstrations_file=str(tmp_path / "d")))
    assert all(math.isfinite(value) for value in Learner(other, short("aihf"), 0).round().values())


# Examinations


def test_the_start_is_examined_as_what_it_is() -> None:
    """Nothing was learnt: no divergence, demonstrations as likely as before, and a reward that knows nothing."""
    world = domain(num_examined=4)
    parts = world.build(METHODS["aihf"])
    final = world.evaluate(parts.policy, parts.reward)
    assert set(final) == ALWAYS | OF_A_REWARD
    assert final["kl_to_start"] == pytest.approx(0.0, abs=1e-6)
    assert final["demonstration_nll_rise"] == pytest.approx(0.0, abs=1e-6)
    assert final["reward_accuracy"] == final["unseen/reward_accuracy"] == 0.5
    assert final["learnt_return"] == final["reward_gold_correlation"] == final["reward_calibration_error"] == 0.0
    assert final["expert_gold"] == 5.0
    assert world.evaluate(parts.policy, parts.reward) == final
    shown = world.demonstrations
    assert shown is not None
    with torch.no_grad():
        nll = -float(parts.reference.log_prob(shown.trajectories).sum()) / float(shown.trajectories.mask.sum())
    assert final["demonstration_nll"] == pytest.approx(nll)
    examined = world.examined.tolist()
    assert len(set(examined)) == 8
    assert sorted(examined)[3] < 6 <= sorted(examined)[4]
    assert examined[4:] == sorted(set(examined) & {6, 7, 8, 9}, key=examined.index)


def test_the_scale_runs_from_the_start_to_the_expert() -> None:
    world = domain()
    start, best, first = world.scale
    assert world.score(start, slice(None)) == pytest.approx(0.0, abs=1e-9)
    assert world.score(best, slice(None)) == pytest.approx(1.0)
    assert world.score((start + best) / 2, slice(None)) == pytest.approx(0.5)
    assert torch.equal(first.context_id, world.examined)

    class Hopeless(Praise):
        def expert(self, prompts: Tensor, draw: torch.Generator) -> list[str]:
            return ["bad bad bad bad bad"] * len(prompts)

    hopeless = LanguageDomain(settings(), 0, Hopeless())
    with pytest.raises(UserError, match=r"praise: the expert's true reward of -5 is no better than the start's"):
        hopeless.evaluate(hopeless.build(METHODS["bc"]).policy, None)


def test_what_is_learnt_shows() -> None:
    """Thirty steps on demonstrations of good quality: better than the start, and further from it."""
    world = domain(num_examined=4)
    method = replace(METHODS["bc"], policy_descent=replace(gentle(), optimiser="adam"))
    learner = Learner(world, method, 0)
    for _ in range(30):
        learner.round()
    final = world.evaluate(learner.policy, None)
    assert final["score"] > 0.15
    assert final["win_rate"] > 0.6
    assert final["kl_to_start"] > 1.0
    assert final["demonstration_nll_rise"] < -0.5
    own = learner.policy.sample(world.contexts, torch.Generator().manual_seed(0))
    with torch.no_grad():
        by_hand = (own.behaviour_log_prob - world.start.log_prob(own)).sum(1).mean()
    assert mean_kl(learner.policy, world.start, own) == pytest.approx(float(by_hand), abs=1e-4)  # type: ignore[arg-type]


def test_wins_by_hand() -> None:
    """Won, lost, tied, won: 2½ of 4."""
    assert win_rate(torch.tensor([1.0, 0.0, 2.0, 5.0]), torch.tensor([0.0, 1.0, 2.0, 4.0])) == 0.625


def test_who_wins_by_length_alone_wins_half_at_equal_length() -> None:
    """Longer by 4 words on average, and the longer one wins, always or mostly: four in five or more in all, one in two
    at equal length; a mean over ten examinations of 256 prompts."""
    draw, none = torch.Generator().manual_seed(0), torch.zeros(256)
    for noise in (0.0, 1.0, 3.0):
        rates = []
        for _ in range(10):
            longer = (4 + 3 * torch.randn(256, generator=draw)).round()
            better = longer + noise * torch.logit(torch.rand(256, generator=draw))
            assert win_rate(better, none) > 0.7
            rates.append(length_controlled(better, none, longer))
            assert length_controlled(-better, none, -longer) == pytest.approx(1.0 - rates[-1])
        assert sum(rates) / 10 == pytest.approx(0.5, abs=0.07)


def test_who_wins_whatever_the_length_keeps_the_wins() -> None:
    """Four in five won, independently of who is longer, and by how much on average; all of equal length too."""
    draw = torch.Generator().manual_seed(1)
    own = (torch.rand(2000, generator=draw) < 0.8).double() - 0.5
    for shift in (0.0, 4.0):
        longer = shift + 3 * torch.randn(2000, generator=draw)
        assert length_controlled(own, torch.zeros(2000), longer) == pytest.approx(0.8, abs=0.06)
    assert length_controlled(own, torch.zeros(2000), torch.full((2000,), 3.0)) == win_rate(own, torch.zeros(2000))


@hypothesis_settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 1.0]), st.integers(-50, 50)), min_size=2, max_size=40),
    st.sampled_from([1, 10]),
)
def test_a_win_rate_is_one_whatever_happens(rows: list[tuple[float, int]], times: int) -> None:
    """Wins and lengths that no line separates, or any line does; and swapping the sides swaps the rate."""
    won, longer = (torch.tensor(column, dtype=torch.float64).repeat(times) for column in zip(*rows, strict=True))
    rate = length_controlled(won, torch.zeros_like(won), longer)
    swapped = length_controlled(-won, torch.zeros_like(won), -longer)
    assert 0.0 <= rate <= 1.0
    assert rate + swapped == pytest.approx(1.0, abs=1e-6)


def compared(first: list[float], second: list[float], label: list[float]) -> tuple[Preferences, Any]:
    """Comparisons of completions that a reward pays these returns."""
    world = domain(people=SpeechConfig(num_preferences=len(label)))
    given_ = world.preferences
    assert given_ is not None
    sides = [
        replace(side, data=side.data | {"paid": torch.tensor(paid)[:, None] * (side.mask.cumsum(1) == 1) * side.mask})
        for side, paid in ((given_.first, first), (given_.second, second))
    ]
    return replace(given_, first=sides[0], second=sides[1], label=torch.tensor(label)), lambda some: some.data["paid"]


def test_a_reward_is_held_against_comparisons_by_hand() -> None:
    """Differences 2, −1 and 0, the first always better: right, wrong, and half. The confidences σ(2) = 0.8808, σ(1) =
    0.7311 and ½ miss them by 0.1192, 0.7311 and 0, a mean of 0.2834. At sharpness 2 they are 0.9820 and 0.8808."""
    fresh, reward = compared([3.0, 0.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    assert on_comparisons(reward, fresh, 1.0) == pytest.approx((0.5, 0.2834), abs=1e-4)
    assert on_comparisons(reward, fresh, 2.0) == pytest.approx((0.5, (0.0180 + 0.8808) / 3), abs=1e-4)
    turned, reward = compared([3.0, 0.0, 1.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.5])
    assert on_comparisons(reward, turned, 1.0)[0] == 0.5
    assert on_comparisons(reward, replace(turned, label=torch.tensor([1.0, 0.0, 0.5])), 1.0)[0] == pytest.approx(
        2.5 / 3
    )


def test_confidence_of_one_bin_is_held_against_the_share_that_is_right() -> None:
    """Four differences of 1, three of them right: σ(1) = 0.7311 against 0.75."""
    fresh, reward = compared([1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0])
    assert on_comparisons(reward, fresh, 1.0) == pytest.approx((0.75, 0.75 - 0.7311), abs=1e-4)


def test_ranks_are_compared() -> None:
    one = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert rank_correlation(one, one.exp()) == pytest.approx(1.0)
    assert rank_correlation(one, -one) == pytest.approx(-1.0)
    assert rank_correlation(one, torch.ones(4)) == 0.0


@pytest.mark.slow
def test_compiled_it_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What learns is compiled, and says what it says otherwise; without a compiler there is a sentence."""
    plain, compiled = (domain(model=replace(TINY, compile=compiles)) for compiles in (False, True))
    with counted(torch, "compile", monkeypatch) as calls:
        one, two = (Learner(world, short("aihf"), 0).learn() for world in (plain, compiled))
    assert len(calls) == 2, "the policy and the reward"
    own = one.policy.sample(plain.contexts, torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(two.policy.log_prob(own), one.policy.log_prob(own), atol=1e-4, rtol=1e-4)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"model\.compile needs a C\+\+ compiler"):
        Learner(compiled, short("aihf"), 0)
