"""A language task as a domain: its feedback, what it builds for a method, and how it examines what was learnt."""

from __future__ import annotations

from functools import cached_property
from typing import TypeVar

import torch
from torch import Generator, Tensor
from transformers import PreTrainedTokenizerFast

from envs.language.people import among, judge
from envs.language.task import LanguageTask
from llm import examination, feedback
from llm.base import base_model, cache_folder
from llm.config import PeopledConfig
from llm.data.chat import Spoken
from llm.data.records import Prompt, Reply, Unfit
from llm.examination import WordSpeaker
from llm.models import context_length
from llm.speech import Speech, lengths
from llm.voices import Voiced, Voices, device_of, manner_of
from unified_irl.contracts import Metrics, RewardFunction, Sampler
from unified_irl.errors import UserError
from unified_irl.feed import stream
from unified_irl.feedback import Demonstrations, Preferences
from unified_irl.feedback_files import load_demonstrations, load_preferences
from unified_irl.methods import Phase
from unified_irl.trajectories import Contexts, Trajectories

Feedback = TypeVar("Feedback", Demonstrations, Preferences)


class LanguageDomain(Voiced):
    """Contexts are the task's prompts; some of them are kept for examinations."""

    def __init__(self, config: PeopledConfig, seed: int, task: LanguageTask) -> None:
        """The task is that of the data's seed, `data_seed_of(config, seed)`."""
        self.config, self.seed, self.task = config, seed, task
        self.data_seed = data_seed_of(config, seed)
        self.cache = cache_folder(config.cache)
        device = device_of(config)
        base, self.codec = base_model(config.model, task, self.cache, device)
        manner = manner_of(config, self.codec.end, task.max_words + 1)
        self.voices = Voices(
            config, seed, base, lambda: base_model(config.model, task, self.cache, device)[0], manner, self.cache
        )
        self.contexts: Contexts = self.codec.contexts(task.prompts)

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        return self.codec.tokenizer

    def answers(self, own: Trajectories) -> list[tuple[Prompt, Reply]]:
        self.check_asked(own)
        asked = [self.task.prompts[one] for one in own.context_id.tolist()]
        return list(zip(asked, self.codec.texts(own)[0], strict=True))

    def set_aside(self, count: int, draw: Generator) -> Contexts:
        """Some of the prompts that nobody demonstrates."""
        apart = torch.arange(self.task.num_shown, len(self.contexts))
        return self.contexts[apart[torch.randperm(len(apart), generator=draw)[:count]]]

    arbiter = "true reward"
    """What `truth` tells."""

    def truth(self, own: Trajectories) -> list[float] | None:
        """The true reward of answers."""
        return self._gold(own).tolist()

    def asked_tokens(self, asked: Prompt) -> list[int]:
        """A prompt as this world spells it."""
        assert isinstance(asked, str)
        return self.codec.prompt(asked)

    def spelt(self, asked: Prompt, answered: Reply) -> Spoken:
        """A prompt and an answer as this world spells them."""
        if not isinstance(asked, str) or not isinstance(answered, str):
            raise Unfit("is a conversation, but this task knows plain texts")
        prompt, answer = self.codec.prompt(asked), self.codec.completion(answered.strip())
        return Spoken([*prompt, *answer], [(len(prompt), len(prompt) + len(answer))])

    @cached_property
    def demonstrations(self) -> Demonstrations | None:
        people = self.config.people
        if people.demonstrations_file:
            return self._known(load_demonstrations(people.demonstrations_file), people.demonstrations_file)
        if not people.num_demonstrations:
            return None
        draw = stream(self.data_seed, "demonstrations")
        return feedback.demonstrate(self.task, self.codec, self.contexts, people.num_demonstrations, draw)

    @cached_property
    def preferences(self) -> Preferences | None:
        people = self.config.people
        if people.preferences_file:
            return self._known(load_preferences(people.preferences_file), people.preferences_file)
        if not people.num_preferences:
            return None
        return self._compared(among(self.task, "comparable"), people.num_preferences, "preferences")

    def _compared(self, prompts: Tensor, count: int, what: str) -> Preferences:
        people = self.config.people
        from_task = people.compared == "task"
        say = feedback.proposed(self.task) if from_task else self._said_at_first
        who = f"{self.task.name}: {'people of mixed quality' if from_task else 'samples of the base model'}"
        draw = stream(self.data_seed, what)
        return feedback.compare(self.task, self.codec, self.contexts, prompts, count, say, who, people, draw)

    def _said_at_first(self, prompts: Tensor, draw: Generator) -> feedback.Texts:
        return self.codec.texts(self.start.sample(self.contexts[prompts], draw))

    def _known(self, given: Feedback, where: str) -> Feedback:
        """Feedback from a file, or a sentence on why it is not of this task's tokens."""
        sides = [given.trajectories] if isinstance(given, Demonstrations) else [given.first, given.second]
        for side in sides:
            token = side.data.get("token")
            if token is None or token.dtype != torch.int64 or token.shape != side.mask.shape:
                raise UserError(f"{where}: 'token' is missing or no table of whole numbers; expected a file that "
                                f"`unified-irl collect {self.task.name}` wrote.")  # fmt: skip
            if int(token.min()) < 0 or int(token.max()) >= self.voices.base.config.vocab_size:
                raise UserError(
                    f"{where}: tokens run from {int(token.min())} to {int(token.max())}, but the model knows 0 to "
                    f"{self.voices.base.config.vocab_size - 1}. Was the file made with another tokenizer?"
                )
            if int(side.context_id.min()) < -1 or int(side.context_id.max()) >= len(self.contexts):
                raise UserError(f"{where}: 'context_id' must lie between -1 and {len(self.contexts) - 1} in this task.")
            if (longest := int(lengths(side).max())) > (room := context_length(self.voices.base)):
                raise UserError(
                    f"{where}: a row has {longest} tokens, but the model's context is {room}; remove such rows."
                )
            if len(wrong := (~self._answered(side)).nonzero()):
                raise UserError(
                    f"{where}: row {int(wrong[0])} does not begin with the prompt of its context "
                    f"{int(side.context_id[wrong[0]])}. Was the file made with another seed of the data, or with other "
                    "settings of the task?"
                )
        return given

    def _answered(self, side: Trajectories) -> Tensor:
        """bool[B]: the row begins with the prompt of its context, where that is one of the task's."""
        asked = self.contexts[side.context_id.clamp(min=0)]
        width = max(side.num_steps, int(asked.data["length"].max()))
        side = side.padded(width)
        prompt_BT = torch.nn.functional.pad(asked.data["token"], (0, width))[:, :width]
        inside_BT = torch.arange(width) < asked.data["length"][:, None]
        same_BT = (side.data["token"] == prompt_BT) & ~side.mask
        return (side.context_id < 0) | (same_BT | ~inside_BT).all(1)

    def ask(
        self, own: Trajectories, reward: RewardFunction, count: int, phase: Phase, gamma: float, generator: Generator
    ) -> Preferences | None:
        labeller = self.config.people.labeller
        texts, ended = self.codec.texts(own)

        def choose(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
            sides = [([texts[k] for k in side.tolist()], [ended[k] for k in side.tolist()]) for side in (first, second)]
            return judge(self.task, own.context_id[first], *sides, labeller, generator)

        said = list(zip(texts, ended, strict=True))
        return feedback.ask(own, said, choose, reward, count, phase, gamma, labeller, generator)

    @cached_property
    def examined(self) -> Tensor:
        """long[P]: prompts for examinations, first such as may be demonstrated, then such as were kept apart."""
        draw, count, num_shown = stream(self.data_seed, "examined"), self.config.num_examined, self.task.num_shown
        apart = torch.randperm(len(self.task.prompts) - num_shown, generator=draw)[:count]
        return torch.cat([torch.randperm(num_shown, generator=draw)[:count], num_shown + apart])

    @cached_property
    def fresh(self) -> tuple[Preferences, Preferences]:
        """Comparisons that nobody learns from: on prompts that may be shown, and on the others."""
        apart = torch.arange(self.task.num_shown, len(self.task.prompts))
        count = self.config.num_fresh
        return (
            self._compared(among(self.task, "comparable"), count, "fresh"),
            self._compared(apart, count, "fresh, unseen"),
        )

    @cached_property
    def scale(self) -> tuple[Tensor, Tensor, Trajectories]:
        """The true rewards of the start's and the expert's completions of the examined prompts, and the former."""
        draw = stream(self.data_seed, "scale")
        first = self.start.sample(self.contexts[self.examined], draw)
        expert = self.task.expert(self.examined, draw)
        best = self.task.gold(self.examined, expert, [True] * len(expert))
        return self._gold(first), best, first

    def _gold(self, own: Trajectories) -> Tensor:
        return self.task.gold(own.context_id, *self.codec.texts(own))

    @torch.no_grad()
    def evaluate(self, policy: Sampler, reward: RewardFunction | None) -> Metrics:
        """True rewards sampled and greedy, on the scale from the start (0) to the expert (1); wins against the start;
        divergence from it; and how far a learnt reward agrees with people and with the truth."""
        assert isinstance(policy, Speech)
        prompts = self.contexts[self.examined]
        own = policy.sample(prompts, stream(self.seed, "examination"))
        gold, start, best = self._gold(own), *self.scale[:2]
        unseen = self.examined >= self.task.num_shown
        length = own.mask.sum(1)
        metrics = {
            "score": self.score(gold, slice(None)),
            "gold": float(gold.mean()),
            "greedy_gold": float(self._gold(policy.greedy(prompts)).mean()),
            "unseen/score": self.score(gold, unseen),
            "unseen/gold": float(gold[unseen].mean()),
            "start_gold": float(start.mean()),
            "expert_gold": float(best.mean()),
            "win_rate": examination.win_rate(gold, start),
            "win_rate_at_equal_length": examination.length_controlled(gold, start, length - self.scale[2].mask.sum(1)),
            "kl_to_start": examination.mean_kl(policy, self.start, own),
            "length": float(length.float().mean()),
            "ended": float(own.terminated.float().mean()),
        }
        if self.demonstrations is not None:
            metrics |= self._likelihood(policy, self.demonstrations.trajectories)
        if reward is not None:
            metrics |= self._rewarded(reward, own, gold)
        columns = examination.word_columns(self.codec, self.task.words)
        if columns is not None:
            speaker = WordSpeaker(policy, self.codec, self.contexts, columns)
            metrics |= self.task.examine(speaker, self.examined, *self.codec.texts(own))
        return metrics

    def score(self, gold: Tensor, which: Tensor | slice) -> float:
        start, best = (float(one[which].mean()) for one in self.scale[:2])
        if not start < best:
            raise UserError(
                f"{self.task.name}: the expert's true reward of {best:g} is no better than the start's {start:g}, so "
                "there is nothing to learn; teach the base model less, or choose other settings of the task."
            )
        return (float(gold[which].mean()) - start) / (best - start)

    def _likelihood(self, policy: Speech, shown: Trajectories) -> Metrics:
        """Of the demonstrations, per decision; where it falls below the start's, self-play is forgetting them."""
        count = float(shown.mask.sum())
        now, before = (-float(one.log_prob(shown).sum()) / count for one in (policy, self.start))
        return {"demonstration_nll": now, "demonstration_nll_rise": now - before}

    def _rewarded(self, reward: RewardFunction, own: Trajectories, gold: Tensor) -> Metrics:
        learnt = reward(own).cpu()
        return_B = (learnt * own.rewarded).sum(1)
        metrics = {
            "learnt_return": float(return_B.mean()),
            "reward_gold_correlation": examination.rank_correlation(return_B, gold),
        }
        if self.config.num_fresh:
            for prefix, fresh in zip(("", "unseen/"), self.fresh, strict=True):
                accuracy, error = examination.on_comparisons(reward, fresh, self.sharpness)
                metrics |= {f"{prefix}reward_accuracy": accuracy, f"{prefix}reward_calibration_error": error}
        return metrics


def data_seed_of(config: PeopledConfig, seed: int) -> int:
    return seed if config.people.data_seed < 0 else config.people.data_seed
