"""The graph world as a language: a prompt names a goal and a start, a completion the nodes walked to.

Each word of a completion is one decision of the exact world (`envs.walks`), ending there is its stop action, and the
numbers of the prompts are its contexts. So whatever speaks can be measured against exact answers.

Shape legend: B completions, T decisions, H horizon, G goals, N nodes, A actions, W words. V columns of next words: the
words, then ending.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Generator, Tensor

from envs.language.task import Speaker
from envs.language.walks_text_config import WalksTextConfig
from envs.walks.enumerate import every_walk
from envs.walks.feedback import demonstrator
from envs.walks.policy import Walker
from envs.walks.solve import soft_evaluation
from envs.walks.world import World
from unified_irl.errors import UserError
from unified_irl.feed import stream
from unified_irl.trajectories import Contexts, Trajectories

ANYWHERE = "to:anywhere"
MOST_DRAWS = 100
"""Times that a walk is drawn again because it did not stop within the horizon."""
MOST_ROWS = 256
"""Completions that a speaker is asked about at once."""
MOST_WALKS = 10_000
"""Up to this many walks, all walks of the expert are gone through; beyond, it is asked for samples."""
NUM_EXPERT_WALKS = 512
"""How many samples, at least."""


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """Completions as the decisions they are in the exact world."""

    goal_B: Tensor
    node_BT: Tensor
    """Where each decision was made."""
    action_BT: Tensor
    """What was decided, where anything was; −1 for a word that is no neighbour."""
    made_BT: Tensor
    """Whether a decision was made at all: none is after a fault, after ending, at the horizon, or where a completion
    was cut off."""
    node_B: Tensor
    """Where each walk stands in the end."""
    cut_B: Tensor
    """Whether a walk neither ended nor met its end by a fault."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a speaker's next words are worth along its own completions, each row on its own."""

    regret_B: Tensor
    """What the expert's return is expected to exceed the speaker's by (see `WalksText.judge`)."""
    invalid_B: Tensor
    """Probability given to words that are no neighbours, summed over the decisions."""
    num_decisions_B: Tensor


class WalksText:
    """The language task whose every answer is known."""

    name = "walks-text"

    def __init__(self, config: WalksTextConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        self.world = World(config.walks, seed)
        graph, pairs = self.world.graph, self.world.pairs
        nodes, goals = (tuple(f"n{node}" for node in ones) for ones in (range(config.num_nodes), graph.goal_G.tolist()))
        self.words = (*nodes, *(f"to:{goal}" for goal in goals), ANYWHERE)
        whole = zip(pairs.data["goal"].tolist(), pairs.data["start"].tolist(), strict=True)
        self.prompts = tuple(f"to:{goals[goal]} {nodes[start]}" for goal, start in whole)
        self.num_shown = min(len(pairs) - 1, max(1, round(config.demonstrated_share * len(pairs))))
        self.max_words = config.horizon
        self._demonstrator = demonstrator(self.world)
        self._compared = [Walker(graph, self.world.soft_optimal(one)) for one in config.compared_temperatures]
        self._number = {word: number for number, word in enumerate(self.words)}
        self.end = len(self.words)
        """The column of ending."""
        # A node's number is its word's, and one more column takes what is no word and no action.
        _, num_nodes, num_actions = graph.shape
        moves_or_end_NA = torch.where(graph.next_NA < num_nodes, graph.next_NA, self.end)
        self.column_NA = torch.where(graph.possible_NA, moves_or_end_NA, self.end + 1)
        action_NV = torch.full((num_nodes, self.end + 2), -1)
        action_NV.scatter_(1, self.column_NA, torch.arange(num_actions).expand(num_nodes, -1))
        action_NV[:, self.end + 1] = -1
        self._action_NV = action_NV

    def corpus(self, count: int, draw: Generator) -> list[str]:
        """Walks by the uniform walker, who stops as readily as it takes any one edge, from random starts. Some carry
        the goal where they ended; one that was cut off, or ended where no goal can be, never does."""
        start = torch.randint(self.config.num_nodes, (count,), generator=draw)
        anyone = Contexts(ids=torch.arange(count), data={"start": start, "goal": torch.zeros_like(start)})
        walks = Walker(self.world.graph, self.world.uniform_HGNA).sample(anyone, draw)
        labelled = (torch.rand(count, generator=draw) < self.config.labelled_share) & walks.terminated
        documents = []
        for first, completion, known in zip(start.tolist(), self.say(walks), labelled.tolist(), strict=True):
            told = [self.words[first], *completion.split()]
            goal = f"to:{told[-1]}" if known else ANYWHERE
            documents.append(" ".join([goal if goal in self._number else ANYWHERE, *told]))
        return documents

    def gold(self, prompts: Tensor, completions: Sequence[str], ended: Sequence[bool]) -> Tensor:
        """float64[B]: the exact world's undiscounted true return. A word that is no neighbour pays `invalid_reward`,
        and nothing after it counts; a completion that was cut off is not paid for stopping."""
        told = self.read(prompts, completions, ended)
        pays_BT = self.world.reward_GNA[told.goal_B[:, None], told.node_BT, told.action_BT.clamp(min=0)]
        pays_BT = torch.where(told.action_BT >= 0, pays_BT, self.config.invalid_reward)
        return (pays_BT * told.made_BT).sum(1)

    def felt(self, prompts: Tensor, completions: Sequence[str], ended: Sequence[bool]) -> Tensor:
        """float64[B]: the true return, and something for every word."""
        length = torch.tensor([len(said.split()) for said in completions], dtype=torch.float64)
        return self.gold(prompts, completions, ended) + self.config.length_bias * length

    def demonstrate(self, prompts: Tensor, draw: Generator) -> list[str]:
        """Walks by the configured demonstrator that stopped within the horizon: one that did not is drawn again, so
        these are walks of the demonstrator given that it stops."""
        return self._stopped([self._demonstrator], prompts, draw, "the demonstrator")

    def expert(self, prompts: Tensor, draw: Generator) -> list[str]:
        """Walks by the soft-optimal walker, given that it stops within the horizon."""
        return self._stopped([self.world.expert], prompts, draw, "the expert")

    def propose(self, prompts: Tensor, draw: Generator) -> list[str]:
        """Walks by random ones of the compared walkers, given that these stop within the horizon."""
        return self._stopped(self._compared, prompts, draw, "a compared walker")

    def _stopped(self, walkers: list[Walker], prompts: Tensor, draw: Generator, who: str) -> list[str]:
        """Who walks is drawn once per prompt, so that those who seldom stop are not heard less."""
        walker_B = torch.randint(len(walkers), (len(prompts),), generator=draw)
        completions, missing = [""] * len(prompts), torch.arange(len(prompts))
        for _ in range(MOST_DRAWS):
            contexts = self.world.pairs[prompts[missing]]
            walks = Trajectories.cat([walker.sample(contexts, draw) for walker in walkers])
            walks = walks[walker_B[missing] * len(missing) + torch.arange(len(missing))]
            for row, completion in zip(missing.tolist(), self.say(walks), strict=True):
                completions[row] = completion
            missing = missing[walks.truncated]
            if len(missing) == 0:
                return completions
        raise UserError(
            f"walks-text: {len(missing)} of {len(prompts)} walks by {who} did not stop within the horizon of "
            f"{self.max_words} words in {MOST_DRAWS} tries; expected a walker that stops. Raise the horizon, or lower "
            "its temperature, its slips or num_neighbours."
        )

    def say(self, walks: Trajectories) -> list[str]:
        """The completion that each walk is; it is ended where the walk terminated."""
        there_BT = self.world.graph.next_NA[walks.data["node"], walks.data["action"]]
        moves_BT = walks.mask & (there_BT < self.config.num_nodes)
        return [
            " ".join(self.words[node] for node, moves in zip(nodes, moved, strict=True) if moves)
            for nodes, moved in zip(there_BT.tolist(), moves_BT.tolist(), strict=True)
        ]

    def read(self, prompts: Tensor, completions: Sequence[str], ended: Sequence[bool]) -> Decisions:
        """What completions of the given prompts decide. Whatever is said after the horizon is not heard, ending
        included: the exact world has no decision there."""
        graph, horizon = self.world.graph, self.max_words
        said = [completion.split()[:horizon] for completion in completions]
        column_BT = torch.full((len(said), min(max(map(len, said), default=0) + 1, horizon)), -1)
        for row, (told, ends) in enumerate(zip(said, ended, strict=True)):
            columns = [self._number.get(word, self.end + 1) for word in told]
            if ends and len(told) < horizon:
                columns.append(self.end)
            column_BT[row, : len(columns)] = torch.tensor(columns, dtype=torch.long)
        node = self.world.pairs.data["start"][prompts]
        walking, over = torch.ones_like(node, dtype=torch.bool), torch.zeros_like(node, dtype=torch.bool)
        nodes, actions, made = [], [], []
        for column in column_BT.T:
            made.append(walking & (column >= 0))
            nodes.append(node)
            actions.append(self._action_NV[node, column.clamp(min=0)])
            there = torch.where(actions[-1] >= 0, graph.next_NA[node, actions[-1]], len(graph.next_NA))
            walking = made[-1] & (there < len(graph.next_NA))
            over = over | (made[-1] & ~walking)
            node = torch.where(walking, there, node)
        return Decisions(
            goal_B=self.world.pairs.data["goal"][prompts],
            node_BT=torch.stack(nodes, 1),
            action_BT=torch.stack(actions, 1),
            made_BT=torch.stack(made, 1),
            node_B=node,
            cut_B=~over,
        )

    @torch.no_grad()
    def examine(
        self, speaker: Speaker, prompts: Tensor, completions: Sequence[str], ended: Sequence[bool]
    ) -> dict[str, float]:
        """The divergence from the expert along the expert's walks, the regret of the plain true return, the mean
        probability of a word that is no neighbour, and the mean true return, all of the given prompts. The expert's own
        regret is 0 and not the least possible: it is soft-optimal, and a bolder walker's regret is negative.
        """
        judged = self.judge(speaker, prompts, completions, ended)
        return {
            "kl_expert": self.kl_expert(speaker, prompts),
            "regret": float(judged.regret_B.mean()),
            "invalid_mass": float(judged.invalid_B.sum() / judged.num_decisions_B.sum().clamp(min=1)),
            "true_return": float(self.gold(prompts, completions, ended).mean()),
        }

    @torch.no_grad()
    def judge(self, speaker: Speaker, prompts: Tensor, completions: Sequence[str], ended: Sequence[bool]) -> Judged:
        """The regret of whoever made these completions, from the whole distribution of its next words.

        Let Q, V be the expert's values of the plain return at a step, V_H = 0 at the horizon H, and Q =
        `invalid_reward` for every word that is no neighbour, since nothing follows it. A walk that decides a_0 …
        a_{n−1} at s_0 … s_{n−1} is paid r_t = Q_t(s_t, a_t) − V_{t+1}(s_{t+1}), with V = 0 once it has ended or is at
        fault. Its return telescopes:

            Σ_{t<n} r_t = V_0(s_0) + Σ_{t<n} (Q_t − V_t)(s_t, a_t) − V_n(s_n)

        The last term is 0 for a walk that ended, was at fault, or was cut off at the horizon, after exactly H
        decisions; where a completion was cut off earlier, it is what the expert would have made of the rest. In the
        expectation over the speaker π's walks, (Q − V)(s_t, a_t) can be replaced by its mean over what π might have
        said after h_t:

            J(π_E) − J(π) = −E_{h∼π}[Σ_{t<n} Σ_a π(a|h_t) (Q_t − V_t)(s_t, a) − V_n(s_n)]

        One row is one term of this expectation. It holds for any speaker, however it uses the words before, and has no
        variance at all for the expert.
        """
        q_HGNA, value_HGN = self._values
        parts = []
        for told, log_BTV in self._heard(speaker, prompts, completions, ended):
            step_T, goal_B1 = torch.arange(told.node_BT.shape[1]), told.goal_B[:, None]
            action_BTV = self._action_NV[told.node_BT][..., : self.end + 1]
            q_BTV = q_HGNA[step_T, goal_B1, told.node_BT].gather(-1, action_BTV.clamp(min=0))
            q_BTV = torch.where(action_BTV >= 0, q_BTV, self.config.invalid_reward)
            gain_BTV = log_BTV.exp() * (q_BTV - value_HGN[step_T, goal_B1, told.node_BT][..., None])
            gain_BT = torch.where(told.made_BT, gain_BTV.sum(-1), 0.0)
            invalid_BT = torch.where(told.made_BT, (log_BTV.exp() * (action_BTV < 0)).sum(-1), 0.0)
            count_B = told.made_BT.sum(1)
            rest_B = value_HGN[count_B, told.goal_B, told.node_B] * told.cut_B
            parts.append((rest_B - gain_BT.sum(1), invalid_BT.sum(1), count_B))
        regret_B, invalid_B, count_B = (torch.cat(part) for part in zip(*parts, strict=True))
        return Judged(regret_B=regret_B, invalid_B=invalid_B, num_decisions_B=count_B)

    @torch.no_grad()
    def kl_expert(self, speaker: Speaker, prompts: Tensor) -> float:
        """Mean KL(π_E ‖ π) per decision, in nats, along the expert's walks from the given prompts: all of them where
        they are few, otherwise the same samples at every call. At each decision the sum over words is exact."""
        ids, count = prompts.unique(return_counts=True)
        if self.num_walks(self.world.pairs[ids]) <= MOST_WALKS:
            walks = every_walk(self.world.graph, self.max_words, self.world.pairs[ids], self.world.expert)
            weight_B = walks.weight * count[torch.searchsorted(ids, walks.context_id)]
        else:
            contexts = self.world.pairs[prompts.repeat(math.ceil(NUM_EXPERT_WALKS / len(prompts)))]
            walks = self.world.expert.sample(contexts, stream(self.seed, "the expert's walks"))
            weight_B = walks.weight
        sums = []
        for told, log_BTV in self._heard(speaker, walks.context_id, self.say(walks), walks.terminated.tolist()):
            step_T = torch.arange(told.node_BT.shape[1])
            expert_BTA = self.world.expert.log_policy_HGNA[step_T, told.goal_B[:, None], told.node_BT]
            speaker_BTA = log_BTV.gather(-1, self.column_NA[told.node_BT].clamp(max=self.end))
            # 0 log 0 is 0, also where the speaker rules a word out
            kl_BTA = torch.where(expert_BTA.exp() > 0, expert_BTA.exp() * (expert_BTA - speaker_BTA), 0.0)
            sums.append(torch.where(told.made_BT, kl_BTA.sum(-1), 0.0).sum(1))
        return float((weight_B * torch.cat(sums)).sum() / (weight_B * walks.mask.sum(1)).sum())

    def num_walks(self, contexts: Contexts) -> float:
        """How many walks there are from these contexts."""
        graph = self.world.graph
        ways_N = torch.ones(len(graph.next_NA), dtype=torch.float64)
        for _ in range(self.max_words):
            ways_N = (torch.cat([ways_N, ways_N.new_ones(1)])[graph.next_NA] * graph.possible_NA).sum(1)
        return float(ways_N[contexts.data["start"]].sum())

    @cached_property
    def _values(self) -> tuple[Tensor, Tensor]:
        """Q [H, G, N, A] and V [H + 1, G, N] of the expert's plain true return."""
        world = self.world
        log_policy = world.expert.log_policy_HGNA
        q_HGNA, _ = soft_evaluation(world.graph, log_policy, world.reward_GNA[None], world.uniform_HGNA, 0.0, 1.0)
        value_HGN = (log_policy.exp() * q_HGNA).sum(-1)
        return q_HGNA, torch.cat([value_HGN, torch.zeros_like(value_HGN[:1])])

    def _heard(
        self, speaker: Speaker, prompts: Tensor, completions: Sequence[str], ended: Sequence[bool]
    ) -> Iterator[tuple[Decisions, Tensor]]:
        """A few completions at a time: their decisions, and the speaker's log-probabilities [B, T, V] at each."""
        for first in range(0, len(prompts), MOST_ROWS):
            some = slice(first, first + MOST_ROWS)
            told = self.read(prompts[some], completions[some], ended[some])
            log_BTV = speaker.log_next(prompts[some], completions[some])[:, : told.made_BT.shape[1]]
            yield told, log_BTV.cpu().double()
