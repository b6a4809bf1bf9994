"""The language tasks by name, each with its settings. No tensor library here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from envs.labeller import LabellerConfig
from envs.language.instructions_config import InstructionsConfig
from envs.language.reviews_config import ReviewsConfig
from envs.language.walks_text_config import WalksTextConfig
from llm.config import LanguageConfig, PeopledConfig
from llm.data.config import DataConfig

if TYPE_CHECKING:
    from llm.domain import LanguageDomain


@dataclass(frozen=True, kw_only=True)
class WalksTextTask(PeopledConfig):
    """Walks on a graph, written down."""

    world: WalksTextConfig = field(default_factory=WalksTextConfig)
    """The task itself."""


@dataclass(frozen=True, kw_only=True)
class ReviewsTask(PeopledConfig):
    """Reviews of products."""

    world: ReviewsConfig = field(default_factory=ReviewsConfig)
    """The task itself."""


@dataclass(frozen=True, kw_only=True)
class InstructionsTask(PeopledConfig):
    """Operations on short lists."""

    world: InstructionsConfig = field(default_factory=InstructionsConfig)
    """The task itself."""


@dataclass(frozen=True, kw_only=True)
class WrittenTask(LanguageConfig):
    """A model of transformers, and what people wrote."""

    data: DataConfig = field(default_factory=DataConfig)
    """What is learnt from."""
    judge: str = ""
    """Who judges examinations, and answers where a method asks about its own samples: a classifier of transformers with
    one label (its folder, or its name on the hub), or a function of your own as module:function. Its tokenizer need not
    be the model's."""
    labeller: LabellerConfig = field(default_factory=LabellerConfig)
    """How the judge chooses where it is asked."""


TASKS: dict[str, type[PeopledConfig]] = {
    "walks-text": WalksTextTask,
    "reviews": ReviewsTask,
    "instructions": InstructionsTask,
}
SUMMARIES = {
    "walks-text": "the graph world as a language: exact divergence from the expert, exact regret",
    "reviews": "reviews in a controlled style, under a true reward that a proxy can over-optimise",
    "instructions": "operations on short lists; demonstrations and comparisons cover different ones",
}


def build(config: PeopledConfig, seed: int) -> LanguageDomain:
    """The domain of a task's settings."""
    from llm.domain import LanguageDomain, data_seed_of

    data_seed = data_seed_of(config, seed)
    if isinstance(config, WalksTextTask):
        from envs.language.walks_text import WalksText

        return LanguageDomain(config, seed, WalksText(config.world, data_seed))
    if isinstance(config, ReviewsTask):
        from envs.language.reviews import Reviews

        return LanguageDomain(config, seed, Reviews(config.world, data_seed))
    assert isinstance(config, InstructionsTask)
    from envs.language.instructions import Instructions

    return LanguageDomain(config, seed, Instructions(config.world, data_seed))
