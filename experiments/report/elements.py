"""HTML by function calls. Text is escaped unless it was made here, so that no completion or error can be a tag."""

from __future__ import annotations

from html import escape

VOID = {"input", "meta"}


class Markup(str):
    """Text that is HTML already."""


def element(name: str, /, *inside: str | None, **attributes: object) -> Markup:
    """`element("td", text, data_task="hopper", class_="wide")`. True is an attribute without value; None and False are
    none at all."""
    given = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    body = joined(*inside)
    return Markup(f"<{name}{given}>" if name in VOID else f"<{name}{given}>{body}</{name}>")


def joined(*parts: str | None) -> Markup:
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts if part is not None))
