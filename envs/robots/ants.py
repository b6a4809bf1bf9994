"""Two ants between which a learnt reward is carried over: a healthy one, and one with two crippled legs.

After the pair of ML-IRL (Zeng et al., 2022), which goes back to AIRL (Fu et al., 2018). The bodies are Gymnasium's ant
with weaker motors; friction, noise at the start and the measure of velocity are Gymnasium's too.

Gymnasium knows them by this module: gymnasium.make("envs.robots.ants:unified-irl/CrippledAnt-v0").
"""

from __future__ import annotations

import gymnasium
import mujoco
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.utils import EzPickle

HORIZON = 500
GEAR = 30.0
CRIPPLED_GEAR = 1.0
CRIPPLED_LEGS = ("3", "4")
"""The back legs, by the number that Gymnasium's model gives their joints."""
LYING_BELOW = 0.2
"""Height of the torso below which the ant has fallen."""


class TransferAnt(AntEnv):
    """Forward velocity − 0.01 ‖a‖² − 0.0005 ‖contact forces‖² − 1 while it lies. Nothing ends its episodes early."""

    def __init__(
        self, *, crippled: bool = False, render_mode: str | None = None, width: int = 480, height: int = 480
    ) -> None:
        self._crippled = crippled  # read while the parent builds the model
        super().__init__(
            ctrl_cost_weight=0.01,
            contact_cost_weight=0.5e-3,
            terminate_when_unhealthy=False,
            render_mode=render_mode,
            width=width,
            height=height,
        )
        EzPickle.__init__(self, crippled=crippled, render_mode=render_mode, width=width, height=height)

    @property
    def healthy_reward(self) -> float:
        """What Gymnasium's ant earns for being healthy, this one pays for having fallen."""
        return -1.0 if self.data.qpos[2] < LYING_BELOW else 0.0

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        model = ant(self.fullpath, crippled=self._crippled)
        screen = model.vis.global_
        screen.offwidth, screen.offheight = max(screen.offwidth, self.width), max(screen.offheight, self.height)
        return model, mujoco.MjData(model)


def ant(path: str, crippled: bool) -> mujoco.MjModel:
    """Gymnasium's ant with weaker motors and, where it is crippled, back legs of half the length without strength."""
    spec = mujoco.MjSpec.from_file(path)
    for motor in spec.actuators:
        is_weak = crippled and motor.target.split("_")[-1] in CRIPPLED_LEGS
        motor.gear[0] = CRIPPLED_GEAR if is_weak else GEAR
    for leg in CRIPPLED_LEGS if crippled else ():
        thigh = spec.body(f"aux_{leg}")
        shin = thigh.bodies[0]
        shin.pos = shin.pos / 2
        for segment in (thigh.geoms[0], shin.geoms[0]):
            segment.fromto = segment.fromto / 2
    return spec.compile()


for _name, _crippled in (("TransferAnt", False), ("CrippledAnt", True)):
    gymnasium.register(
        id=f"unified-irl/{_name}-v0",
        entry_point="envs.robots.ants:TransferAnt",
        max_episode_steps=HORIZON,
        kwargs={"crippled": _crippled},
    )
