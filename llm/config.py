"""What can be set about a language model and how it is taught. No tensor library here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from envs.labeller import LabellerConfig
from unified_irl.errors import UserError

Family = Literal["gpt-neox", "llama", "mistral", "qwen"]
Size = Literal["seconds", "minutes", "hour", "gpu-day"]


def _at_least(part: str, config: object, **bounds: float) -> None:
    for name, least in bounds.items():
        value = getattr(config, name)
        if not value >= least:
            raise UserError(f"{part}: {name} is {value}; expected {least:g} or more.")


@dataclass(frozen=True, kw_only=True)
class LoRAConfig:
    """Adapters of low rank on the linear layers of one shared base."""

    rank: int = 0
    """Rank of the adapters; 0 trains all weights, and every role is a model of its own."""
    alpha: float = 0.0
    """Scale of what an adapter adds, times 1/rank; 0 takes twice the rank."""

    def __post_init__(self) -> None:
        _at_least("lora", self, rank=0, alpha=0)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The language model."""

    path: str = ""
    """A folder, or a name on the hub, of any causal language model of transformers; empty trains a small one on the
    task's corpus first."""
    allow_download: bool = False
    """Ask the hub for a model that is not on this machine."""
    trust_remote_code: bool = False
    """Run code that lies beside a model's weights. Never unless you have read it."""
    family: Family = "gpt-neox"
    """Architecture of the small one."""
    size: Size = "minutes"
    """How large it is and how long it is taught, from seconds on a CPU to a day on a GPU; the next ones refine it."""
    layers: int = 0
    """Blocks; 0 goes by the size."""
    width: int = 0
    """Hidden units; 0 goes by the size."""
    heads: int = 0
    """Attention heads; 0 goes by the size."""
    documents: int = 0
    """Documents of the corpus; 0 goes by the size."""
    passes: int = 0
    """Passes over them; 0 goes by the size."""
    base_seed: int = 0
    """Seed of the small one's weights, corpus and training; runs of any seed share it."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of products, and of a base that stays as it is; weights that learn are kept in float32, since bfloat16
    would round their small steps away, and log-probabilities are summed in float32."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them."""
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    """Adapters instead of whole models."""
    compile: bool = False
    """Compile the passes of what learns (torch.compile), but not its sampling. On CPU cores it gains nothing."""
    shard: bool = False
    """Where several processes share a run, each keeps its part of weights and optimiser states (FSDP2), and not all."""

    def __post_init__(self) -> None:
        _at_least("model", self, layers=0, width=0, heads=0, documents=0, passes=0, base_seed=0)
        if self.heads and self.width and self.width % self.heads:
            raise UserError(f"model: width {self.width} cannot be shared by {self.heads} heads; choose a multiple.")
        if self.shard and self.lora.rank:
            raise UserError(
                "model: shard is for whole models, but lora.rank asks for adapters, of which every process keeps all, "
                "as it does of the one base below them; leave one of the two out."
            )
        if self.compile and (self.lora.rank or self.shard):
            raise UserError(
                "model: compile is for whole models on one device, but lora.rank or shard is set; leave one of the two "
                "out."
            )


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """An explicit reward: the language model's own body with one number read off every hidden state."""

    level: Literal["token", "sequence"] = "token"
    """Where it pays: at every token, or at the last token of a completion alone."""
    bound: float = 0.0
    """What it says lies within ± this, by a tanh; 0 leaves it free."""
    train: Literal["all", "head"] = "all"
    """What learns: body (or its adapter) and head, or the head alone."""
    given: str = ""
    """A reward to climb that is not learnt: a classifier of transformers with one label and a tokenizer of its own, or
    a function as module:function. Paid token by token, a token gets what the judge's number changed by with it. Nothing
    may teach it: let reward_steps of the phases be 0."""
    normalise: Literal["never", "at first"] = "never"
    """Shift and scale what the policy climbs by what the reward said of the first samples it was asked about. The
    numbers are kept from then on: scaled anew each time, a reward that has collapsed would look as lively as ever."""

    def __post_init__(self) -> None:
        _at_least("reward", self, bound=0)


@dataclass(frozen=True, kw_only=True)
class ImproveConfig:
    """The inner step: how the policy climbs a reward."""

    algorithm: Literal["rloo", "grpo", "ppo"] = "rloo"
    """REINFORCE against the mean of the other samples of a prompt; the same divided by the prompt's spread; several
    steps per sample with clipped ratios."""
    samples: int = 4
    """Completions of each prompt."""
    credit: Literal["to go", "whole"] = "to go"
    """A token answers for the rewards from it on, or for those of its whole completion."""
    kl: Literal["k1 in reward", "k3 penalty"] = "k1 in reward"
    """How the divergence from the reference counts: its unbiased estimate log π/π_ref within the reward, or the
    low-variance π_ref/π − 1 − log π_ref/π as a penalty whose own gradient is taken. k1 is reported in any case."""
    missing_end: float = 0.0
    """Taken off the last token of a completion that was cut off before it ended."""
    clip: float = 0.2
    """How far a ratio may move before its gradient stops (ppo)."""
    epochs: int = 2
    """Steps on the same samples (ppo)."""
    learning_rate: float = 0.0
    """Step size of the climb; 0 takes that of the policy's other steps."""

    def __post_init__(self) -> None:
        _at_least("improve", self, samples=1, missing_end=0, epochs=1, learning_rate=0)
        if self.samples < 2:
            raise UserError(f"improve: samples is {self.samples}; expected 2 or more, to be compared with each other.")
        if not 0.0 < self.clip < 1.0:
            raise UserError(f"improve: clip is {self.clip}; expected above 0 and below 1.")


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How completions are made."""

    engine: Literal["native", "paged"] = "native"
    """Our own, or transformers' continuous batching (for GPUs)."""
    rows: int = 256
    """Completions at a time."""
    max_tokens: int = 0
    """Tokens of a completion, its end included; 0 goes by the task."""

    def __post_init__(self) -> None:
        _at_least("sampler", self, rows=1, max_tokens=0)


@dataclass(frozen=True, kw_only=True)
class SpeechConfig:
    """Who shows and who compares."""

    num_demonstrations: int = 200
    """Completions shown."""
    demonstrations_file: str = ""
    """A file of demonstrations to learn from instead, as `collect` writes it."""
    num_preferences: int = 200
    """Comparisons made."""
    preferences_file: str = ""
    """A file of preferences to learn from instead, as `collect` writes it."""
    compared: Literal["task", "start"] = "start"
    """Whose completions are compared: those of the task's people of mixed quality, or samples of the base model."""
    labeller: LabellerConfig = field(default_factory=LabellerConfig)
    """Who compares."""
    data_seed: int = -1
    """Seed of the task, its prompts and the feedback; -1 takes the run's."""

    def __post_init__(self) -> None:
        _at_least("people", self, num_demonstrations=0, num_preferences=0)
        if self.labeller.myopia != 1.0:
            raise UserError(
                f"people: labeller.myopia is {self.labeller.myopia}, but completions are compared as wholes here, with "
                "no steps to forget; let it be 1."
            )


@dataclass(frozen=True, kw_only=True)
class LanguageConfig:
    """A model that learns."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """The language model."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """The explicit reward."""
    improve: ImproveConfig = field(default_factory=ImproveConfig)
    """How the policy climbs it."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    """How completions are made."""
    num_examined: int = 128
    """Prompts of each kind in an examination."""
    tokens_per_pass: int = 16384
    """Tokens of one pass through the model where no gradient is taken."""
    cache: str = ""
    """Where base models, tokens and log-probabilities of fixed data are kept; by default the user's cache directory."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model lives."""

    def __post_init__(self) -> None:
        _at_least("language", self, num_examined=1, tokens_per_pass=1)
        if self.model.shard and self.sampler.engine == "paged":
            raise UserError("model.shard and sampler.engine paged do not go together; let the engine be native.")


@dataclass(frozen=True, kw_only=True)
class PeopledConfig(LanguageConfig):
    """The same in a task that has people of its own."""

    people: SpeechConfig = field(default_factory=SpeechConfig)
    """Demonstrations and comparisons."""
    num_fresh: int = 256
    """Fresh comparisons on which a learnt reward is examined."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least("language", self, num_fresh=0)
