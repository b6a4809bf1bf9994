"""The command line. Each verb is a file of this folder with the same name; this one only finds it.

Nothing heavy is imported before a verb needs it, so that help appears at once.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys

from unified_irl.errors import UserError, unknown_name

VERBS: dict[str, str] = {
    "methods": "the table of methods",
    "tiny": "a tiny model and files in well-known layouts",
    "tasks": "the table of tasks",
    "train": "train TASK METHOD [flags]: learn, in a run directory",
    "forecast": "forecast TASK METHOD [flags]: how long a run will take, and how much memory",
    "resume": "resume RUN: go on with a run where it was killed",
    "evaluate": "evaluate RUN: examine what a run has learnt",
    "export": "export RUN DIRECTORY: the policy and the reward of a robot's run, for other libraries",
    "video": "video RUN: a film of what a robot has learnt",
    "label": "label TASK|RUN|FILE: a page on which a person compares, or demonstrates",
    "samples": "samples RUN: a page of what a language model says after its training, and before",
    "chat": "chat RUN: talk in the terminal to what a language model has learnt",
    "score": "score JUDGE FILE: how well a reward tells better answers from worse ones",
    "harness": "harness MODEL: lm-evaluation-harness on an exported language model",
    "frontier": "frontier DIRECTORY: true reward against divergence from the start, and against the learnt reward",
    "transfer": "transfer RUN: a fresh policy climbs the learnt reward, there or in another task",
    "experts": "experts TASK: train the policies and demonstrations that come with a robot task",
    "collect": "collect TASK DIRECTORY: write a task's demonstrations and preferences to files",
    "compare": "compare methods × tasks × seeds, with intervals",
    "report": "report DIRECTORY …: comparisons as one page, with films and completions",
    "papers": "the claims of the papers, and what was measured here of each",
    "science": "science NAME: the claims of the theory, measured in the exact world",
    "bench": "bench NAME: speed, against what the arithmetic needs and others reach; suites of methods",
    "demo": "a comparison of a minute, with plots",
    "doctor": "is everything in place? versions, devices, names, caches, one tiny run",
}


def usage() -> str:
    width = max(map(len, VERBS))
    rows = "\n".join(f"  {verb:{width}}  {what}" for verb, what in VERBS.items())
    return (
        "usage: unified-irl VERB [arguments]\n\n"
        "Learn rewards and policies from what people do and what they prefer.\n\n"
        f"{rows}\n\nEach verb explains itself: unified-irl VERB --help"
    )


def run(arguments: list[str]) -> int:
    """The exit code of one command."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        raise unknown_name("verb", verb, VERBS)
    code: int | None = importlib.import_module(f"experiments.verbs.{verb}").main(rest)
    return code or 0


def main() -> None:
    """The console script: a person's mistake is one sentence and exit code 2, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # where a β cannot be written, the rest still is
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except UserError as error:
        code = _say(f"error: {error}", 2)
    except KeyboardInterrupt:
        code = _say("interrupted; `resume` or the same command goes on from the last checkpoint", 130)
    except BrokenPipeError:  # whoever read our output has left; the rest of it goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    except OSError as error:
        code = _say(f"error: {error.filename or 'The system'}: {error.strerror or error}. Mend that, and try again.", 2)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "allocate" not in str(error):  # torch has no class for it on the CPU
            raise
        code = _say(f"error: Not enough memory: {error}. Choose a smaller task, horizon or batch.", 2)
    sys.exit(code)


def _say(sentence: str, code: int) -> int:
    print(sentence, file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
