"""A method of your own: a row. It clones, then asks for comparisons while a joint reward is learnt and climbed."""

from pathlib import Path
from tempfile import TemporaryDirectory

from experiments.train import default_config, train
from unified_irl import METHODS, Method, Phase

METHODS["curious-aihf"] = Method(
    name="curious-aihf",
    summary="aihf from a clone that asks what it can tell apart least",
    reward="explicit",
    init="clone",
    phases=(
        Phase(
            name="joint",
            demonstration="linear",
            preference="bradley-terry",
            queries=4,
            query="entropy",
            policy_updates=1,
            rounds=60,
        ),
    ),
)

if __name__ == "__main__":
    with TemporaryDirectory() as place:
        for name in ("bc", "curious-aihf"):
            result = train("walks", default_config("walks", name), Path(place) / name, ["own_method.py"])
            print(f"{name}: {result['final']['score']:.3f}")  # 0: the start, 1: the expert
