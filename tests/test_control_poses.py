"""How a robot stood, told from what it observed: joints and velocities of recorded episodes come out as they were."""

from __future__ import annotations

import numpy as np
import pytest
from robots import SHORT, seeded

from control.poses import physics_of
from envs.robots.rollout import roll_out
from envs.robots.simulators import Simulator
from envs.robots.table import ROBOTS
from unified_irl.errors import UserError

HIDDEN = {"hopper": 1, "halfcheetah": 1, "walker2d": 1, "swimmer": 2, "ant": 2, "humanoid": 2, "transfer-ant": 2,
          "crippled-ant": 2}  # fmt: skip
"""How many of its positions a robot does not observe: how far it has come."""


@pytest.mark.parametrize("name", [name for name in ROBOTS if name != "pendulum"])
def test_states_are_found_again(name: str) -> None:
    """Positions to 10⁻³ (angles up to whole turns), where the robot has come from its speed: within a tenth of how far
    it came, or 0.1."""
    simulator, draw = Simulator(name), np.random.default_rng(0)

    def act(observations: np.ndarray) -> np.ndarray:
        size = (len(observations), simulator.action_size)
        return draw.uniform(simulator.low, simulator.high, size).astype(np.float32)

    (episode,) = roll_out(act, [simulator], 1, seeded(), with_physics=True)
    assert episode.physics is not None
    found = physics_of(simulator, episode.observations, "")
    num_positions, hidden = simulator.env.unwrapped.model.nq, HIDDEN.get(name, 0)
    there, wanted = found[:, :num_positions], episode.physics[:, :num_positions]
    gap = there[:, hidden:] - wanted[:, hidden:]
    assert np.allclose(np.minimum(np.abs(gap), np.abs(np.abs(gap) - 2 * np.pi)), 0.0, atol=1e-3)
    came, should = (positions[-1, :hidden] - positions[0, :hidden] for positions in (there, wanted))
    assert np.allclose(came, should, atol=0.1 + 0.1 * np.abs(should).max(initial=0.0))
    simulator.close()


def test_what_cannot_be_told_is_a_sentence() -> None:
    simulator = Simulator(SHORT)
    with pytest.raises(UserError, match="do not tell how its joints stood"):
        physics_of(simulator, np.zeros((3, 3), np.float32), "")
    hopper = Simulator("hopper")
    with pytest.raises(UserError, match="'hopper' do not tell"):
        physics_of(hopper, np.full((3, 11), 50.0, np.float32), "")
    hopper.close()
