"""A language model of your own: any causal model of transformers in a local folder, on a task with a true reward."""

from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

from experiments import cli
from experiments.tiny import make

if __name__ == "__main__":
    with TemporaryDirectory() as place, chdir(place):
        make(Path("tiny"), "gpt-neox", rows=20, seed=0)  # stands for the folder of a model of yours
        steps = "--method.phases.0.rounds 25 --method.policy-descent.learning-rate 1e-2 --run.evaluate-every 0"
        cli.run(f"train walks-text bc --out mine --task.model.path tiny/model --task.num-examined 32 {steps}".split())
        cli.run(["export", "mine", "exported"])
        print(*sorted(path.name for path in Path("exported/policy").iterdir()))  # a folder of transformers again
