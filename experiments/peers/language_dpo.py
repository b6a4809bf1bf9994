"""Steps of `dpo` as a run of that method takes them, on pairs and a model that lie in files."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import torch
import transformers
from serving import options, serve
from transformers import AutoModelForCausalLM

from llm.codec import joined
from llm.config import ImproveConfig, ModelConfig
from llm.models import prepared
from llm.policy import LanguagePolicy
from llm.references import Remembering
from llm.roles import Whole
from llm.sampler import Completions
from llm.speech import Manner
from unified_irl.batch import Batch
from unified_irl.descent_config import DescentConfig
from unified_irl.feedback import Preferences, Provenance
from unified_irl.implicit import ImplicitReward
from unified_irl.joint import joint_loss
from unified_irl.methods import method
from unified_irl.trajectories import Contexts, Trajectories


def table(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    return padded, torch.tensor([len(row) for row in rows])


def side(prompts: list[list[int]], completions: list[list[int]]) -> Trajectories:
    (asked, start), (token, length) = table(prompts), table(completions)
    contexts = Contexts(ids=torch.arange(len(prompts)), data={"token": asked, "length": start})
    ended = torch.ones(len(prompts), dtype=torch.bool)
    return joined(contexts, Completions(token, length, ended, torch.zeros(token.shape)))


def preferences(file: Path) -> Preferences:
    """The pairs of the file, the chosen one first."""
    pairs: dict[str, list[list[int]]] = json.loads(file.read_text())
    num_pairs = len(pairs["prompt"])
    return Preferences(
        first=side(pairs["prompt"], pairs["chosen"]),
        second=side(pairs["prompt"], pairs["rejected"]),
        label=torch.ones(num_pairs),
        margin=torch.zeros(num_pairs),
        maker=torch.zeros(num_pairs, dtype=torch.long),
        makers=(Provenance(maker="chance"),),
    )


def stepper(told: dict[str, Any]) -> Callable[[], float]:
    """A step on the next batch, which says its loss."""
    model = AutoModelForCausalLM.from_pretrained(told["model"], dtype=torch.float32, attn_implementation="sdpa")
    model = prepared(model, ModelConfig(dtype=told["products"])).to(told["device"])
    manner = Manner(end=2, max_tokens=1, rows=1, tokens_per_pass=16384)
    descent = DescentConfig(learning_rate=told["learning_rate"], max_grad_norm=1.0)
    reference = Remembering(Whole(copy.deepcopy(model).requires_grad_(False)), manner)
    policy = LanguagePolicy(Whole(model), manner, descent, ImproveConfig())
    row, pairs, size = method("dpo"), preferences(Path(told["pairs"])), told["batch"]
    reward = ImplicitReward(policy, reference, told["beta"])
    loss = joint_loss(row, row.phases[0], log_prob=policy.log_prob, demonstration_reward=None, preference_reward=reward)
    for one in (pairs.first, pairs.second):
        reference.log_prob(one)
    num_batches = len(pairs) // size
    turn = count()

    def step() -> float:
        begin = next(turn) % num_batches * size
        batch = Batch(preferences=pairs[torch.arange(begin, begin + size)])
        return float(policy.descend(loss, batch, batch.normaliser())["loss"])

    return step


def main() -> None:
    told = options()
    torch.set_num_threads(told["first_threads"])
    step = stepper(told)
    losses = [step() for _ in range(told["losses"])]

    def advance() -> int:
        step()
        return int(told["batch"])

    serve(advance, {"torch": torch.__version__, "transformers": transformers.__version__, "losses": losses})


if __name__ == "__main__":
    main()
