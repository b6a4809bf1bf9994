"""What a language run has learnt, as folders of transformers and peft, each with its model card."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.language_runs import LanguageRun, load_language_run
from experiments.summary import origin_of
from llm import export as folders
from llm.table import WrittenTask
from unified_irl.errors import UserError
from unified_irl.methods import METHODS
from unified_irl.serialise import read_json, to_json, write_text


def export(run: Path, place: Path, which: str, form: str, push: str) -> None:
    """Write the folders, and say where they are."""
    learnt = load_language_run(run, which)
    tokenizer, end = learnt.domain.tokenizer, learnt.domain.voices.manner.end
    role, base = learnt.policy.role, learnt.config.task.model.path
    print(learnt.title)
    if form == "adapter":
        if not base:
            raise UserError(
                f"{run} adapts a base model that the task itself taught, which has no name; export the whole policy "
                "(--form merged)."
            )
        policy = _put(place / "adapter", lambda folder: folders.save_adapter(role, base, folder), adapter_card(learnt))
    else:
        policy = _put(
            place / "policy", lambda folder: folders.save_policy(role, tokenizer, end, folder), policy_card(learnt)
        )
    if why := folders.why_no_classifier(learnt.reward):
        shutil.rmtree(place / "reward", ignore_errors=True)
        print(f"no reward: {why}")
    else:
        reward = learnt.reward
        assert reward is not None
        _put(place / "reward", lambda folder: folders.save_reward(reward, tokenizer, end, folder), reward_card(learnt))
    if push:
        _push(policy, push)


def _put(place: Path, save: Callable[[Path], None], card: str) -> Path:
    """A folder is seen whole or not at all."""
    partial = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        save(partial)
        write_text(partial / "README.md", card)
        shutil.rmtree(place, ignore_errors=True)
        partial.rename(place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"{place.name} written to {place}")
    return place


def _push(folder: Path, repository: str) -> None:
    from huggingface_hub import HfApi

    hub = HfApi()
    try:
        hub.create_repo(repository, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder)
    except Exception as error:  # whatever the hub and the way to it may raise
        why = " ".join(str(error).split())[:300]
        raise UserError(f"The policy lies in {folder}, but could not be put into {repository}: {why}") from error
    print(f"policy put into https://huggingface.co/{repository}")


def policy_card(learnt: LanguageRun) -> str:
    use = """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(".")
tokenizer = AutoTokenizer.from_pretrained(".")
"""
    return _card(learnt, "A language model", use, "text-generation")


def adapter_card(learnt: LanguageRun) -> str:
    use = """from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained(".")
"""
    return _card(learnt, "An adapter of a language model", use, "text-generation", "peft")


def reward_card(learnt: LanguageRun) -> str:
    use = """from transformers import AutoModelForSequenceClassification, AutoTokenizer

reward = AutoModelForSequenceClassification.from_pretrained(".")
tokenizer = AutoTokenizer.from_pretrained(".")
"""
    what = "A reward, read off the last token of a prompt and its whole completion,"
    return _card(learnt, what, use, "text-classification")


def _card(learnt: LanguageRun, what: str, use: str, pipeline: str, library: str = "transformers") -> str:
    """What it is, where it comes from, how it does, how to use it. The Python runs as written, in the folder."""
    config, method = learnt.config, learnt.config.method
    base = config.task.model.path or "a small model that was taught the task's own language"
    head = {"library_name": library, "pipeline_tag": pipeline, "tags": ["unified-irl", method.name]}
    if config.task.model.path and not Path(base).exists():
        head["base_model"] = base
    result = read_json(learnt.path / "result.json") if (learnt.path / "result.json").is_file() else {}
    environment = read_json(learnt.path / "environment.json")
    rows = "\n".join(f"| {name} | {value:.4g} |" for name, value in result.get("final", {}).items())
    results = f"## Results of the run\n\n| metric | value |\n| --- | ---: |\n{rows}\n\n" if rows else ""
    summary = METHODS[method.name].summary if method.name in METHODS else method.summary
    return f"""---
{_yaml(head)}---

# {learnt.task}, learnt by {method.name}

{what} learnt by `{method.name}` ({summary}) from {_data(learnt)}, beginning with {base}: round {learnt.round}, the
{learnt.which} checkpoint, of seed {config.seed}; {origin_of(environment)}.

```python
{use}```

{results}## Settings

```json
{json.dumps(to_json(config), indent=1)}
```
"""


def _data(learnt: LanguageRun) -> str:
    task, method = learnt.config.task, learnt.config.method
    if not isinstance(task, WrittenTask):
        return f"the people of the task {learnt.task}"
    kinds = [
        ("demonstrations", method.uses_demonstrations, task.data.demonstrations.files),
        ("preferences", method.uses_preferences, task.data.preferences.files),
    ]
    return " and ".join(
        f"the {kind} of {', '.join(Path(one).name for one in files)}" for kind, uses, files in kinds if uses and files
    )


def _yaml(head: dict[str, Any]) -> str:
    """Names and lists of names, as a model card's head takes them."""
    lines = []
    for name, value in head.items():
        lines += [f"{name}:", *(f"- {one}" for one in value)] if isinstance(value, list) else [f"{name}: {value}"]
    return "".join(f"{line}\n" for line in lines)
