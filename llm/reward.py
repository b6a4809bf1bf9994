"""An explicit reward of language: the body of a language model and one number read off every hidden state.

Which tokens count is said by the behaviours, never guessed from padding.

Shape legend: B behaviours, T columns, D hidden units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from llm.config import RewardConfig
from llm.roles import Role, hidden_states
from llm.speech import in_passes, lengths
from unified_irl import parallel
from unified_irl.batch import Batch, Normaliser
from unified_irl.contracts import LossFunction, State
from unified_irl.descent import Descent
from unified_irl.descent_config import DescentConfig
from unified_irl.errors import UserError
from unified_irl.trajectories import Trajectories

FLAT = 1e-6
"""A spread below which there is nothing to scale by."""


class Scale:
    """How what a reward says is shifted and scaled: never, or by what it said of the first samples of it."""

    def __init__(self, normalise: Literal["never", "at first"]) -> None:
        self.normalise = normalise
        self.shift_scale: tuple[float, float] | None = None

    def __call__(self, said_BT: Tensor, rewarded_BT: Tensor) -> Tensor:
        """The shift is shared by the places of a completion that pay."""
        if self.normalise == "never":
            return said_BT
        if self.shift_scale is None:
            return_B = said_BT.sum(1)
            spread = float(return_B.std())
            self.shift_scale = (float(return_B.mean()), spread if spread > FLAT else 1.0)
        shift, scale = self.shift_scale
        rewarded_BT = rewarded_BT.to(said_BT.device)
        return (said_BT - shift / rewarded_BT.sum(1, keepdim=True) * rewarded_BT) / scale

    def state_dict(self) -> State:
        return {"shift_scale": None if self.shift_scale is None else list(self.shift_scale)}

    def load_state_dict(self, state: State) -> None:
        given = state["shift_scale"]
        self.shift_scale = None if given is None else (given[0], given[1])


class Head(nn.Linear):
    """One number for every hidden state: a sum of products, not a matrix product, which would be taken in half
    precision where the body's are."""

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        said_BT: Tensor = (hidden_BTD.float() * self.weight[0]).sum(-1)
        return said_BT if self.bias is None else said_BT + self.bias


class TextReward:
    """r(prompt, completion up to a token) for every token, or for the last one alone."""

    def __init__(self, role: Role, config: RewardConfig, descent: DescentConfig, tokens_per_pass: int) -> None:
        self.role, self.config, self.tokens_per_pass = role, config, tokens_per_pass
        width = role.model.config.hidden_size
        # Of whole completions only differences count, and no constant could be learnt.
        self.head = Head(width, 1, bias=config.level == "token", device=role.model.device)
        with torch.no_grad():  # it begins as the zero function, so that the first policy is the reference
            for parameter in self.head.parameters():
                parameter.zero_()
        role.adopt(self.head)
        body = role.parameters() if config.train == "all" else []
        self.descent = Descent([*self.head.parameters(), *body], descent)
        self.scale = Scale(config.normalise)

    def __call__(self, behaviours: Trajectories) -> Tensor:
        with self.role.active():
            if torch.is_grad_enabled():
                return self._rewards(behaviours)
            return in_passes(self._rewards, behaviours, self.tokens_per_pass, self.role.model.device)

    def _rewards(self, behaviours: Trajectories) -> Tensor:
        if bool(behaviours.start_step.any()):
            raise UserError(
                "A reward of language reads a completion from its prompt on, and a segment from within has lost that; "
                "let phase.segment be 0."
            )
        length_B = lengths(behaviours)
        longest = int(length_B.max())
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.train == "all"):
            hidden_BTD = hidden_states(self.role, behaviours.data["token"][:, :longest])
        said_BT = self.head(hidden_BTD)
        if self.config.bound:
            said_BT = self.config.bound * torch.tanh(said_BT / self.config.bound)
        pays_BT = behaviours.rewarded[:, :longest]
        if self.config.level == "sequence":
            pays_BT = pays_BT & (torch.arange(longest, device=pays_BT.device) == length_B[:, None] - 1)
        return nn.functional.pad(said_BT * pays_BT, (0, behaviours.num_steps - longest))

    def for_policy(self) -> Callable[[Trajectories], Tensor]:
        """As the inner step asks for it: of whole completions, detached, scaled if the settings say so."""

        @torch.no_grad()
        def ask(behaviours: Trajectories) -> Tensor:
            return self.scale(self(behaviours), behaviours.rewarded)

        return ask

    def descend(
        self, loss: LossFunction, batch: Batch, normaliser: Normaliser, step_size: float = 1.0
    ) -> dict[str, Tensor]:
        with self.role.active():
            return self.descent.descend(loss, batch, normaliser, step_size)

    @torch.no_grad()
    def measure(self, loss: LossFunction, batch: Batch, normaliser: Normaliser) -> dict[str, Tensor]:
        with self.role.active():
            return self.descent.measure(loss, batch, normaliser)

    def state_dict(self) -> State:
        return {
            "weights": self.role.weights(),
            "head": {name: parallel.whole(value.detach()) for name, value in self.head.named_parameters()},
            "descent": self.descent.state_dict(),
            "scale": self.scale.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        self.role.load(state["weights"])
        with torch.no_grad():
            for name, value in self.head.named_parameters():
                value.copy_(parallel.share_of(state["head"][name], value))
        self.descent.load_state_dict(state["descent"])
        self.scale.load_state_dict(state["scale"])
