"""A row of a dataset as a demonstration or a comparison, whatever its columns are called. No tensor library here.

Known are the standard layouts (prompt and completion, prompt and chosen and rejected, messages; strings or
conversations; the prompt written out or shared by both sides) and those of the papers' datasets, which are of these
kinds: Anthropic's HH, TL;DR, UltraFeedback-binarized, UltraChat, and SPIN's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Message = tuple[str, str]
"""Who speaks, and what is said."""
Conversation = tuple[Message, ...]
Prompt = str | Conversation
Reply = str | Conversation

ROLES = ("system", "user", "assistant", "tool")
TURN = "\n\nAssistant:"
"""What comes before an answer where a conversation is written as one text, as in HH."""


@dataclass(frozen=True)
class Shown:
    """A demonstration: what was asked, and what somebody answered."""

    prompt: Prompt
    reply: Reply


@dataclass(frozen=True)
class Compared:
    """Two answers to one prompt, the better one first."""

    prompt: Prompt
    chosen: Reply
    rejected: Reply


class Unfit(Exception):
    """A row that cannot be used, in half a sentence that follows the row's number."""


SHOWN_LAYOUTS = "prompt and completion; messages; real (SPIN's layout); a comparison; or text"
COMPARED_LAYOUTS = "prompt, chosen and rejected; or chosen and rejected that begin with the same prompt"


def shown(row: Mapping[str, Any]) -> Shown:
    """The demonstration that a row holds."""
    if "chosen" in row and "rejected" in row:  # of a comparison the better answer
        pair = compared(row)
        return Shown(pair.prompt, pair.chosen)
    if "completion" in row:
        prompt, reply = (_said(row, name) for name in ("prompt", "completion"))
        if isinstance(prompt, str) != isinstance(reply, str):
            raise Unfit("has a prompt and a completion of different kinds; expected two texts or two lists of messages")
        return _asked(prompt, reply)
    for name in ("messages", "real"):
        if name in row:
            return _answered(_conversation(row, name), name)
    if "text" in row:
        return Shown("", _text(row, "text"))
    raise Unfit(f"has the columns {_names(row)}; expected {SHOWN_LAYOUTS}")


def compared(row: Mapping[str, Any]) -> Compared:
    """The comparison that a row holds."""
    if "chosen" not in row or "rejected" not in row:
        raise Unfit(f"has the columns {_names(row)}; expected {COMPARED_LAYOUTS}")
    chosen, rejected = (_said(row, name) for name in ("chosen", "rejected"))
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise Unfit("has a text on one side and messages on the other; expected both alike")
    if isinstance(chosen, str) and isinstance(rejected, str):
        prompt = _said(row, "prompt") if "prompt" in row else shared_text(chosen, rejected)
        if not isinstance(prompt, str):
            raise Unfit("has messages as its prompt and texts as its answers; expected all of one kind")
        if "prompt" not in row:
            chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
        sides: tuple[Reply, Reply] = (chosen, rejected)
    else:
        assert not isinstance(chosen, str)
        assert not isinstance(rejected, str)
        prompt, sides = _turns(row, chosen, rejected)
    if sides[0] == sides[1]:
        raise Unfit("compares an answer with itself")
    return Compared(prompt, *sides)


def asked(row: Mapping[str, Any]) -> Prompt:
    """The prompt that a row holds, whatever else it holds."""
    if "prompt" in row and not {"completion", "messages", "chosen"} & row.keys():
        return _said(row, "prompt")
    return shown(row).prompt


def _turns(row: Mapping[str, Any], chosen: Conversation, rejected: Conversation) -> tuple[Prompt, tuple[Reply, Reply]]:
    """The prompt of two conversations: the one given, or the messages that they share."""
    given = row.get("prompt")
    if isinstance(given, list | tuple) or (given is not None and not isinstance(given, str)):
        prompt = _conversation(row, "prompt")
        if chosen[: len(prompt)] == prompt and rejected[: len(prompt)] == prompt and len(chosen) > len(prompt):
            chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
        sides = (chosen, rejected)
    else:
        same = 0
        while same < min(len(chosen), len(rejected)) and chosen[same] == rejected[same]:
            same += 1
        while same and chosen[same - 1][0] == "assistant":
            same -= 1
        prompt, sides = chosen[:same], (chosen[same:], rejected[same:])
        if not prompt and isinstance(given, str) and given:
            prompt = (("user", _whole(given)),)
    for side in sides:
        if not side or side[-1][0] != "assistant":
            raise Unfit("has a side that does not end with a message of the assistant")
    if not prompt:
        raise Unfit("has two conversations that share no beginning, and no prompt")
    return prompt, sides


def shared_text(first: str, second: str) -> str:
    """The prompt that two texts begin with: up to the last answer of a conversation written as text, otherwise as far
    as they agree, and no word is cut."""
    same = next(
        (k for k, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
    turn = first.rfind(TURN, 0, same + 1)
    if turn >= 0 and turn + len(TURN) <= same:
        return first[: turn + len(TURN)]
    while same and not (first[same - 1].isspace()):
        same -= 1
    return first[:same].rstrip()


def _asked(prompt: Prompt, reply: Reply) -> Shown:
    if not isinstance(reply, str) and reply[-1][0] != "assistant":
        raise Unfit("has a completion that does not end with a message of the assistant")
    return Shown(prompt, reply)


def _answered(messages: Conversation, name: str) -> Shown:
    """A conversation's last answer, and all that came before it."""
    last = len(messages)
    while last and messages[last - 1][0] != "assistant":
        last -= 1
    if last < 2:
        raise Unfit(f"has {name} in which no assistant answers anybody")
    return Shown(messages[: last - 1], messages[last - 1 : last])


def _said(row: Mapping[str, Any], name: str) -> str | Conversation:
    if name not in row:
        raise Unfit(f"has no {name}; expected {COMPARED_LAYOUTS if 'chosen' in row else SHOWN_LAYOUTS}")
    value = row[name]
    return _text(row, name) if isinstance(value, str) or value is None else _conversation(row, name)


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if not isinstance(value, str):
        raise Unfit(f"has {_kind(value)} as its {name}; expected a text")
    return _whole(value)


def _whole(text: str) -> str:
    """JSON can hold halves of characters, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = ascii(text[error.start])[1:-1]
        raise Unfit(f"has a text with half a character ({half}) in it; expected Unicode") from error
    return text


def _conversation(row: Mapping[str, Any], name: str) -> Conversation:
    value = row[name]
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise Unfit(f"has {_kind(value)} as its {name}; expected a text or a list of messages")
    return tuple(_message(one, name) for one in value)


def _message(value: Any, name: str) -> Message:
    if not isinstance(value, Mapping) or not isinstance(value.get("role"), str):
        raise Unfit(f"has {_kind(value)} among its {name}; expected messages, each with a role and a content")
    if not isinstance(value.get("content"), str):
        raise Unfit(f"has a message of {value['role']} with {_kind(value.get('content'))} as content; expected a text")
    if value["role"] not in ROLES:
        raise Unfit(f"has a message of '{value['role']}'; expected one of {', '.join(ROLES)}")
    return value["role"], _whole(value["content"])


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, Sequence) and not isinstance(value, str) and not value:
        return "an empty list"
    return {
        bool: "a truth value",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "a table",
    }.get(type(value), f"a {type(value).__name__}")


def _names(row: Mapping[str, Any]) -> str:
    return ", ".join(map(str, row)) or "of no name"


def as_messages(conversation: Conversation) -> list[dict[str, str]]:
    """As chat templates take them."""
    return [{"role": role, "content": content} for role, content in conversation]


def as_json(said: Prompt | Reply) -> str | list[dict[str, str]]:
    """As files of rows hold it: a text, or messages."""
    return said if isinstance(said, str) else as_messages(said)
