"""What the verbs share: positional words, flags from a dataclass, and the command as it was typed."""

from __future__ import annotations

import sys
from typing import Any, TypeVar

from unified_irl.errors import UserError

Config = TypeVar("Config")


def typed() -> list[str]:
    """The command as a person would type it again."""
    return ["unified-irl", *sys.argv[1:]]


def split_words(arguments: list[str], names: tuple[str, ...], verb: str) -> tuple[list[str], list[str]]:
    """The leading positional words and the rest; `--help` instead of a missing word explains the verb."""
    words = arguments[: len(names)]
    given = [word for word in words if not word.startswith("-")]
    if len(given) == len(names):
        return given, arguments[len(names) :]
    shown = f"unified-irl {verb} {' '.join(name.upper() for name in names)}"
    if "-h" in arguments or "--help" in arguments:
        print(f"usage: {shown} [flags]\n\nThe flags are shown by: {shown} --help, with the names filled in.")
        raise SystemExit(0)
    raise UserError(f"'{verb}' needs {names[len(given)].upper()}: {shown} [flags].")


def flags(type_: type[Config] | Any, arguments: list[str], prog: str, default: Config | None = None) -> Config:
    """The config that the flags describe; each field's docstring is its help."""
    import tyro

    given: dict[str, Any] = {} if default is None else {"default": default}
    config: Config = tyro.cli(type_, args=arguments, prog=f"unified-irl {prog}", **given)
    return config


def refuse(arguments: list[str], shown: str) -> None:
    """For verbs without flags: help is the usage line, anything else is a mistake."""
    if "-h" in arguments or "--help" in arguments:
        print(f"usage: unified-irl {shown}")
        raise SystemExit(0)
    if arguments:
        raise UserError(f"'{' '.join(arguments)}' is not understood here; expected: unified-irl {shown}.")
