"""Algorithm 1: let the policy climb the reward a little; then raise the reward of what people did over what the policy
did, and of what they preferred over what they did not. Where the reward is implicit the two steps are one."""

from __future__ import annotations

from collections import deque

import torch

from unified_irl import feed
from unified_irl.batch import Batch
from unified_irl.contracts import Domain, LossFunction, Metrics, Policy, Reward, RewardFunction, Sampler, State
from unified_irl.errors import UserError
from unified_irl.feedback import Demonstrations, Preferences, Provenance
from unified_irl.implicit import ImplicitReward
from unified_irl.joint import joint_loss
from unified_irl.plateau import Plateau
from unified_irl.rows import WATCHED, Method, Phase, Reference
from unified_irl.trajectories import Trajectories


class Learner:
    """One method at work in one domain: call `round()` until `finished`; between rounds its state can be saved."""

    def __init__(self, domain: Domain, method: Method, seed: int) -> None:
        self.domain, self.method, self.seed = domain, method, seed
        self.demonstrations, self.preferences, self.set_aside = _data(domain, method, seed)
        parts = domain.build(method)
        self.policy, self.reward = parts.policy, parts.reward
        self.given, self.window = parts.reference, parts.window
        self.references: dict[Reference, Sampler] = {"start": self.given, "previous": self.given}
        self.own: deque[Trajectories] = deque()
        self.asked: Preferences | None = None
        self.plateau = Plateau()
        self.stage = self.round_of_stage = self.num_rounds = 0

    @property
    def phase(self) -> Phase:
        return self.method.stages[self.stage]

    @property
    def finished(self) -> bool:
        return self.stage == len(self.method.stages)

    @property
    def most_rounds(self) -> int:
        """How many rounds there will be at most, those already over included."""
        return self.num_rounds - self.round_of_stage + sum(phase.rounds for phase in self.method.stages[self.stage :])

    @property
    def learnt_reward(self) -> RewardFunction | None:
        """The reward as learnt so far: explicit, or implicit against the start."""
        return self.reward_against("start")

    def reward_against(self, reference: Reference) -> RewardFunction | None:
        """The reward that a term looks at; only an implicit one depends on a reference."""
        if self.method.reward == "implicit":
            return ImplicitReward(self.policy, self.references[reference], self.method.beta)
        return self.reward

    def learn(self) -> Learner:
        """All rounds that are left, without checkpoints or examinations; itself, when it is done."""
        while not self.finished:
            self.round()
        return self

    def round(self) -> Metrics:
        """One round of the current phase."""
        phase = self.phase
        if self.round_of_stage % phase.refresh_every == 0 and "previous" in phase.references:
            self.references["previous"] = self.policy.frozen()
        shown = self.shown(phase)
        metrics, own = self.act(phase, shown)
        if own is not None and (phase.needs_own_samples or phase.queries):
            own = self._remembered(own, phase)
            metrics |= self._ask(phase, own)
        metrics |= self.descend(phase, shown, own)
        self._advance(phase, metrics)
        return metrics

    def shown(self, phase: Phase) -> Trajectories | None:
        """The demonstrations that this round covers."""
        if self.demonstrations is None or not phase.learns_demonstrations:
            return None
        return feed.prompts(self.demonstrations, phase, self.seed, self.stage, self.round_of_stage)

    def act(self, phase: Phase, shown: Trajectories | None) -> tuple[Metrics, Trajectories | None]:
        """The policy climbs the explicit reward, or just acts; either way what it did is at hand."""
        if not phase.policy_updates and not phase.needs_own_samples and not phase.queries:
            return {}, None
        contexts = feed.contexts(self.domain.contexts, shown, phase, self.seed, self.stage, self.round_of_stage)
        draw = feed.stream(self.seed, "own", self.stage, self.round_of_stage)
        if not phase.policy_updates:
            return {}, self.policy.sample(contexts, draw)
        assert self.reward is not None
        return self.policy.improve(
            self.reward,
            self.references["start"],
            self.method.beta,
            self.method.gamma,
            contexts,
            phase.policy_updates,
            draw,
        )

    def _ask(self, phase: Phase, own: Trajectories) -> Metrics:
        """Let people compare what the policy did; their answers join the comparisons to learn from."""
        if not phase.queries:
            return {}
        num_asked = 0 if self.asked is None else len(self.asked)
        count = min(phase.queries, phase.query_until - num_asked) if phase.query_until else phase.queries
        reward = self.reward_against(phase.preference_reference)
        assert reward is not None
        if count > 0:
            draw = feed.stream(self.seed, "queries", self.stage, self.round_of_stage)
            self.asked = _joined(self.asked, self.domain.ask(own, reward, count, phase, self.method.gamma, draw))
        return {"num_asked": 0.0 if self.asked is None else float(len(self.asked))}

    def descend(self, phase: Phase, shown: Trajectories | None, own: Trajectories | None) -> Metrics:
        """Descend the joint loss on this round's demonstrations, own samples and comparisons."""
        compared = _joined(self.asked, self.preferences) if phase.learns_preferences else None
        if shown is None and compared is None:
            return {}
        clock = (self.seed, self.stage, self.round_of_stage)
        if shown is not None and own is not None and phase.needs_own_samples:
            if phase.needs_pairs or not bool(torch.isin(shown.context_id, own.context_id).all()):
                shown, own = feed.aligned(shown, own, *clock)
            else:
                own = feed.weighed(shown, own)
        else:
            own = None
        loss = self._loss(phase)
        learning = self._learning(phase)
        steps = [
            learning.descend(loss, batch, batch.normaliser(), phase.step_size)
            for batch in feed.batches(shown, own, compared, phase, *clock, self.window)
        ]
        metrics = {name: sum(float(step[name]) for step in steps) / len(steps) for name in steps[0]}
        if self.set_aside is not None and phase.until == "held-out preferences":
            aside = Batch(preferences=self.set_aside)
            metrics["held_out_preference_loss"] = float(
                learning.measure(loss, aside, aside.normaliser())["preference_loss"]
            )
        return metrics

    def _remembered(self, own: Trajectories, phase: Phase) -> Trajectories:
        """This round's own samples and those of the rounds that the phase remembers."""
        together = Trajectories.cat([*self.own, own]) if self.own else own
        self.own.append(own)
        while len(self.own) >= phase.own_memory:
            self.own.popleft()
        return together

    def _loss(self, phase: Phase) -> LossFunction:
        return joint_loss(
            self.method,
            phase,
            log_prob=self.policy.log_prob,
            demonstration_reward=self.reward_against(phase.demonstration_reference),
            preference_reward=self.reward_against(phase.preference_reference),
        )

    def _learning(self, phase: Phase) -> Policy | Reward:
        """What the phase's losses move."""
        return self.policy if self.reward is None or phase.clones else self.reward

    def moved(self, phase: Phase) -> dict[str, Policy | Reward]:
        """What is put back to its best when a phase ends early; a policy that only climbs keeps what it reached."""
        learning = {"learning": self._learning(phase)} if phase.reward_steps else {}
        return learning | ({"policy": self.policy} if learning and phase.policy_updates else {})

    def _advance(self, phase: Phase, metrics: Metrics) -> None:
        """Count the round; leave the phase after its last one, or when what it waits for has stopped falling."""
        self.round_of_stage += 1
        self.num_rounds += 1
        over = self.round_of_stage >= phase.rounds
        if phase.until in WATCHED:
            moved = self.moved(phase)
            self.plateau.saw(metrics[WATCHED[phase.until]], phase.tolerance, moved)
            over = over or self.plateau.rounds_since >= phase.patience
            for name in moved if over else ():
                moved[name].load_state_dict(self.plateau.best[name])
        if over:
            self._leave(phase)

    def _leave(self, phase: Phase) -> None:
        """The last word of a phase is the policy's: it climbs the reward as the last descent left it."""
        if phase.policy_updates and phase.reward_steps:
            self.act(phase, self.shown(phase))
        self.enter_next_stage()

    def enter_next_stage(self) -> None:
        """What a stage ends with is what the next one begins with; a clone is what all others are measured from."""
        self.stage, self.round_of_stage = self.stage + 1, 0
        self.plateau = Plateau()
        self.own.clear()
        if self.stage == 1 and self.method.init == "clone":
            self.references = dict.fromkeys(self.references, self.policy.frozen())

    def state_dict(self) -> State:
        """All that the next round depends on, besides the data, the method and the seed."""
        return {
            "policy": self.policy.state_dict(),
            "reward": None if self.reward is None else self.reward.state_dict(),
            "references": {
                name: None if reference is self.given else reference.state_dict()
                for name, reference in self.references.items()
            },
            "own": [own.state_dict() for own in self.own],
            "asked": None if self.asked is None else _state_of(self.asked),
            "plateau": self.plateau.state_dict(),
            "counters": {"stage": self.stage, "round_of_stage": self.round_of_stage, "num_rounds": self.num_rounds},
        }

    def load_state_dict(self, state: State) -> None:
        self.policy.load_state_dict(state["policy"])
        if self.reward is not None:
            self.reward.load_state_dict(state["reward"])
        for name in self.references:
            saved = state["references"][name]
            self.references[name] = self.given if saved is None else self.policy.frozen()
            if saved is not None:
                self.references[name].load_state_dict(saved)
        self.own = deque(Trajectories(**own) for own in state["own"])
        self.asked = None if state.get("asked") is None else _preferences(state["asked"])
        self.plateau.load_state_dict(state["plateau"])
        self.stage, self.round_of_stage = state["counters"]["stage"], state["counters"]["round_of_stage"]
        self.num_rounds = state["counters"]["num_rounds"]


def _data(
    domain: Domain, method: Method, seed: int
) -> tuple[Demonstrations | None, Preferences | None, Preferences | None]:
    """What the method learns from, and the comparisons it sets aside. Data it gives no weight to are never touched."""
    demonstrations = domain.demonstrations if method.uses_demonstrations else None
    preferences = domain.preferences if method.uses_preferences else None
    for kind, needs, data in (
        ("demonstrations", method.uses_demonstrations, demonstrations),
        ("preferences", method.uses_preferences and not method.asks_first, preferences),
    ):
        if needs and (data is None or len(data) == 0):
            raise UserError(
                f"Method '{method.name}' learns from {kind}, but the task holds none; "
                "give it some, or choose a method that does without (see the table of methods)."
            )
    if preferences is None or not any(phase.until == "held-out preferences" for phase in method.stages):
        return demonstrations, preferences, None
    return demonstrations, *feed.held_out(preferences, method.held_out, seed)


def _joined(asked: Preferences | None, more: Preferences | None) -> Preferences | None:
    """All comparisons there are. Those asked for go first: the steps of a file may hold more than the policy's own."""
    parts = [part for part in (asked, more) if part is not None and len(part)]
    if len(parts) < 2:
        return parts[0] if parts else None
    if parts[0].level != parts[1].level:
        raise UserError(
            f"The task holds comparisons of level '{parts[1].level}' and asks for those of level '{parts[0].level}'; "
            "they cannot be learnt from together. Let it ask at the level of its comparisons, or let queries be 0."
        )
    return Preferences.cat(parts)


def _state_of(asked: Preferences) -> State:
    sides = {"first": asked.first.state_dict(), "second": asked.second.state_dict()}
    return {**vars(asked), **sides, "makers": [dict(vars(one)) for one in asked.makers]}


def _preferences(state: State) -> Preferences:
    sides = {name: Trajectories(**state[name]) for name in ("first", "second")}
    return Preferences(**{**state, **sides, "makers": tuple(Provenance(**one) for one in state["makers"])})
