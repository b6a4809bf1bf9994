"""The reward that a policy already is."""

from __future__ import annotations

import torch
from torch import Tensor

from unified_irl.contracts import Sampler
from unified_irl.trajectories import Trajectories


class ImplicitReward:
    """r_t = β (log π(a_t|s_t) − log π_ref(a_t|s_t)), for any policy of any domain.

    Where π is optimal for a reward R with KL weight β, the dynamics are deterministic and τ is a whole behaviour,
    Σ γ^t r_t = R(τ) − V(s_0): the same reward up to a constant per context, which neither a pairwise difference nor
    demonstrations against own samples of one context can see. On a segment the value where it ends stays in the sum: a
    comparison of segments is then one of regrets (contrastive preference learning), not DPO.
    """

    def __init__(self, policy: Sampler, reference: Sampler, beta: float) -> None:
        self.policy = policy
        self.reference = reference
        self.beta = beta

    def __call__(self, trajectories: Trajectories) -> Tensor:
        """float[B, T], differentiable in the policy alone."""
        with torch.no_grad():
            reference_BT = self.reference.log_prob(trajectories)
        return self.beta * (self.policy.log_prob(trajectories) - reference_BT)
