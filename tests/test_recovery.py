"""Maximum-likelihood inverse RL finds the reward that explains walks nobody showed it."""

from __future__ import annotations

from dataclasses import replace

import torch

from envs.walks.config import WalksConfig
from envs.walks.domain import WalksDomain
from unified_irl.descent_config import DescentConfig
from unified_irl.learner import Learner
from unified_irl.methods import method


def test_five_thousand_demonstrations_carry_over_to_pairs_never_demonstrated():
    """60 nodes, temperature 0.1, a network reward: KL below 0.02 nats per decision where nothing was shown."""
    torch.set_num_threads(1)
    rounds = 150
    row = replace(
        method("ml-irl").with_phases(rounds=rounds, policy_updates=20),
        reward_descent=DescentConfig(learning_rate=0.02, schedule="cosine", total_steps=rounds),
    )
    config = WalksConfig(num_nodes=60, horizon=20, num_demonstrations=5000, num_preferences=64, reward_width=64)
    domain = WalksDomain(config, seed=0)
    assert domain.demonstrations is not None
    shown = set(domain.demonstrations.trajectories.context_id.tolist())
    assert not shown & set(domain.unseen.ids.tolist())
    learner = Learner(domain, row, seed=0)
    while not learner.finished:
        learner.round()
    scores = domain.evaluate(learner.policy, learner.learnt_reward)
    assert scores["unseen/kl_expert_uniform"] > 0.5
    assert scores["unseen/kl_expert"] < 0.02
    assert scores["unseen/advantage_correlation"] > 0.95
