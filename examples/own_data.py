"""Data of your own: two JSONL files, what people wrote and what they preferred, and direct-aihf from both."""

import json
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

from experiments import cli
from experiments.tiny import make

PROMPTS = [
    f"{who} asks for {what}:" for who in ("ann", "bob", "eve", "tom") for what in ("tea", "milk", "bread", "salt")
]
DEMONSTRATIONS = [{"prompt": prompt, "completion": " here you are."} for prompt in PROMPTS]
PREFERENCES = [{"prompt": prompt, "chosen": " with pleasure.", "rejected": " go away."} for prompt in PROMPTS]

if __name__ == "__main__":
    with TemporaryDirectory() as place, chdir(place):
        for name, rows in (("demonstrations", DEMONSTRATIONS), ("preferences", PREFERENCES)):
            Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        make(Path("tiny"), "llama", rows=20, seed=0)  # stands for the folder of a model of yours
        files = "--model tiny/model --demonstrations demonstrations.jsonl --preferences preferences.jsonl"
        steps = "--method.phases.0.rounds 40 --method.phases.0.step-size 1 --method.policy-descent.learning-rate 1e-2"
        cli.run(f"train hf direct-aihf --out polite {files} {steps} --task.data.completion-tokens 16".split())
