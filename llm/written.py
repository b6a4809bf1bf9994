"""Learning from what people wrote: files and datasets as a domain, where no task knows the truth.

Prompts are told apart by their tokens. Some are set aside with all that answers them, and examinations look at those.
"""

from __future__ import annotations

import sys
from functools import cached_property
from statistics import fmean
from typing import cast

import torch
from torch import Generator, Tensor
from transformers import PreTrainedTokenizerFast

from envs.labeller import label
from llm import examination, feedback
from llm.base import cache_folder
from llm.data.asked import ANSWERED, Asked
from llm.data.chat import Scribe, Spoken
from llm.data.prepared import Preparation
from llm.data.records import Prompt, Reply
from llm.data.rows import Answers, Prompts, Rows
from llm.judges import Judge, judge_called
from llm.models import check_head, context_length, load
from llm.sampler import check_sampler
from llm.speech import Speech
from llm.table import WrittenTask
from llm.voices import Voiced, Voices, device_of, manner_of
from unified_irl import parallel
from unified_irl.contracts import Metrics, RewardFunction, Sampler
from unified_irl.errors import UserError
from unified_irl.feed import stream
from unified_irl.feedback import Demonstrations, Preferences, Provenance
from unified_irl.methods import Phase
from unified_irl.trajectories import Contexts, Trajectories

WHOLE = 2**24
"""Data of so many tokens, padding included, are kept as one table; of more, rows are read where they are needed."""


class WrittenDomain(Voiced):
    """Contexts are the prompts of the data, but for those set aside."""

    def __init__(self, config: WrittenTask, seed: int) -> None:
        data = config.data
        if not config.model.path:
            raise UserError("Name a model: --model takes a folder, or the name of a causal language model on the hub.")
        if not (data.demonstrations.files or data.preferences.files):
            raise UserError(
                "There is nothing to learn from: name files or datasets with --demonstrations, --preferences or both."
            )
        self.config, self.seed = config, seed
        self.data_seed = seed if data.data_seed < 0 else data.data_seed
        self.cache = cache_folder(config.cache)
        base, tokenizer = load(config.model)
        check_head(base, config.model.path)
        check_sampler(base, config.model.path)
        self.scribe = Scribe(tokenizer, data.chat_template_file)
        self.rows = self._prepared(context_length(base))
        manner = manner_of(config, _end(self.rows), data.completion_tokens)
        self.voices = Voices(config, seed, base, lambda: load(config.model)[0], manner, self.cache)
        self.asked = Asked(self.rows, data.held_out, self.data_seed)

    def _prepared(self, room: int) -> dict[str, Rows]:
        preparation = Preparation(self.config.data, self.scribe, room, self.data_seed, self.cache)
        found = {}
        for kind in (*ANSWERED, "prompts"):
            if (prepared := preparation.prepared(kind)) is not None:
                found[kind] = prepared.rows
                if parallel.world().is_first:
                    print("\n".join(prepared.report), file=sys.stderr, flush=True)
        return found

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        return self.scribe.tokenizer

    def asked_tokens(self, asked: Prompt) -> list[int]:
        """A prompt as this world spells it."""
        return self.scribe.prompt(asked)

    def spelt(self, asked: Prompt, answered: Reply) -> Spoken:
        """A prompt and an answer as this world spells them."""
        return self.scribe.spoken(asked, answered)

    @cached_property
    def contexts(self) -> Prompts:
        return self.asked.prompts.part(0, self.asked.num_learnt)

    @cached_property
    def examined(self) -> Contexts:
        """Some of the prompts that were set aside."""
        begin = self.asked.num_learnt
        return self.asked.prompts[begin : begin + self.config.num_examined]

    @cached_property
    def demonstrations(self) -> Demonstrations | None:
        return self._shown(aside=False)

    @cached_property
    def preferences(self) -> Preferences | None:
        return self._compared(aside=False)

    def _shown(self, *, aside: bool) -> Demonstrations | None:
        if "demonstrations" not in self.rows:
            return None
        answers = self.asked.answers("demonstrations", aside=aside)
        return Demonstrations(
            trajectories=_whole_if_small(answers),
            maker=torch.zeros(len(answers), dtype=torch.long),
            makers=(Provenance(maker="people", source=" ".join(self.config.data.demonstrations.files)),),
        )

    def _compared(self, *, aside: bool) -> Preferences | None:
        if "preferences" not in self.rows:
            return None
        sides = (slice(0, None, 2), slice(1, None, 2))
        chosen, rejected = (self.asked.answers("preferences", aside=aside, side=side) for side in sides)
        count = len(chosen)
        return Preferences(
            first=_whole_if_small(chosen),
            second=_whole_if_small(rejected),
            label=torch.ones(count),
            margin=torch.zeros(count),
            maker=torch.zeros(count, dtype=torch.long),
            makers=(
                Provenance(maker="people", labeller="people", source=" ".join(self.config.data.preferences.files)),
            ),
        )

    def ask(
        self, own: Trajectories, reward: RewardFunction, count: int, phase: Phase, gamma: float, generator: Generator
    ) -> Preferences | None:
        judge, labeller = self.judge, self.config.labeller
        if judge is None:
            raise UserError(
                f"phase '{phase.name}' asks about what the policy says, but this task has nobody to ask: name a judge "
                "(--task.judge), or let queries be 0."
            )
        answers = self.answers(own)

        def choose(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
            felt = [torch.tensor(judge([answers[k] for k in side.tolist()])).double() for side in (first, second)]
            labels, answered = label(*felt, labeller, generator)
            return labels.float(), answered

        return feedback.ask(own, answers, choose, reward, count, phase, gamma, labeller, generator)

    @cached_property
    def judge(self) -> Judge | None:
        """Who judges what the policy says, where the settings name somebody."""
        name = self.config.judge or self.config.reward.given
        return judge_called(name, self.config.data.allow_download, device_of(self.config)) if name else None

    def answers(self, own: Trajectories) -> list[tuple[Prompt, Reply]]:
        self.check_asked(own)
        asked = self.asked.prompts.texts(own.context_id)
        said = self.tokenizer.batch_decode(
            [row[mask][: -1 if over else None] for row, mask, over in
             zip(own.data["token"], own.mask, own.terminated.tolist(), strict=True)]
        )  # fmt: skip
        return [
            (one, text if isinstance(one, str) else (("assistant", text),))
            for one, text in zip(asked, said, strict=True)
        ]

    def set_aside(self, count: int, draw: Generator) -> Contexts:
        """Some of the prompts that examinations look at."""
        begin, end = self.asked.num_learnt, len(self.asked.prompts)
        return self.asked.prompts[begin + torch.randperm(end - begin, generator=draw)[:count]]

    arbiter = "judge"
    """Whom `truth` asks."""

    def truth(self, own: Trajectories) -> list[float] | None:
        """What the judge says of answers, where there is one."""
        return None if self.judge is None else self.judge(self.answers(own))

    @cached_property
    def aside(self) -> tuple[Demonstrations | None, Preferences | None]:
        """What examinations look at: answers to prompts that were set aside."""
        return self._shown(aside=True), self._compared(aside=True)

    @torch.no_grad()
    def evaluate(self, policy: Sampler, reward: RewardFunction | None) -> Metrics:
        """How the policy answers prompts that were set aside; how likely it finds people's answers to them, and whether
        it and a learnt reward prefer what people preferred. The score is 0 at the start: wins against it before the
        judge, where there is one; otherwise the gain in likelihood of demonstrations, or in choices between answers."""
        assert isinstance(policy, Speech)
        own = policy.sample(self.examined, stream(self.seed, "examination"))
        metrics = {
            "kl_to_start": examination.mean_kl(policy, self.start, own),
            "length": float(own.mask.sum(1).float().mean()),
            "ended": float(own.terminated.float().mean()),
        }
        scores = []
        if self.judge is not None:
            judged, before = self.judge(self.answers(own)), self._judged_at_first
            wins = examination.win_rate(torch.tensor(judged), torch.tensor(before))
            metrics |= {"judged": fmean(judged), "start_judged": fmean(before), "win_rate": wins}
            scores.append(2.0 * wins - 1.0)
        shown, compared = self.aside
        if shown is not None:
            now, before = (_nll(one, self._some(shown.trajectories)) for one in (policy, self.start))
            metrics |= {"demonstration_nll": now, "demonstration_nll_rise": now - before}
            scores.append(1.0 - now / before)
        if compared is not None:
            sides = [self._some(side) for side in (compared.first, compared.second)]
            gains = [(policy.log_prob(side) - self.start.log_prob(side)).sum(1) for side in sides]
            metrics["policy_accuracy"] = float((0.5 + 0.5 * (gains[0] - gains[1]).sign()).mean())
            scores.append(2.0 * metrics["policy_accuracy"] - 1.0)
            if reward is not None:
                accuracy, error = examination.on_comparisons(reward, compared[: len(sides[0])], self.sharpness)
                metrics |= {"reward_accuracy": accuracy, "reward_calibration_error": error}
        if reward is not None:
            metrics["learnt_return"] = float((reward(own).cpu() * own.rewarded).sum(1).mean())
        return {"score": scores[0], **metrics}

    @cached_property
    def _judged_at_first(self) -> list[float]:
        """What the judge says of the start's answers to the same prompts."""
        assert self.judge is not None
        own = self.start.sample(self.examined, stream(self.data_seed, "scale"))
        return self.judge(self.answers(own))

    def _some(self, behaviours: Trajectories) -> Trajectories:
        """As many as an examination looks at."""
        return behaviours[: self.config.num_examined]


def _end(rows: dict[str, Rows]) -> int:
    """The token that ends answers."""
    ends = set.union(*(rows[kind].ends() for kind in ANSWERED if kind in rows))
    if len(ends) > 1:
        raise UserError(
            f"Answers end in different ways (tokens {', '.join(map(str, sorted(ends)))}): some sources hold "
            "conversations and others plain texts. Give all of them in one form."
        )
    return ends.pop()


def _whole_if_small(answers: Answers) -> Trajectories:
    """As one table; or, where that would fill the memory, as rows that are read when they are asked for."""
    longest = int(answers.rows.length_R[answers.row_B].max())
    return answers[:] if len(answers) * longest <= WHOLE else cast(Trajectories, answers)


def _nll(policy: Speech, shown: Trajectories) -> float:
    """Per decision."""
    return -float(policy.log_prob(shown).sum()) / float(shown.mask.sum())
