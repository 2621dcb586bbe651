"""pydantic's errors in the words of the file: place, key, nearest valid key. Quotes no value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from backhaul.config.documents import Document, Where
from backhaul.config.shape import at, keys, nearest
from backhaul.errors import Problem

_SCHEDULER = "start `backhaul run` from cron or another scheduler"
_WATCH = "watch the exit code of `backhaul run`, or `backhaul status --json`"
NOT_YET = {
    "schedule": _SCHEDULER, "cron": _SCHEDULER, "timezone": _SCHEDULER, "after": _SCHEDULER, "serve": _SCHEDULER,
    "alerts": _WATCH, "sla": _WATCH, "webhook": _SCHEDULER,
    "tags": "name the syncs, or use a glob", "owner": None, "environment": None, "dbt": None, "streams": None, "stream": None,
    "pushdown": None, "consent": None, "write_back": None, "on_conflict": None, "externally_owned": None, "retries": None,
    "max_query_cost": None,
}  # fmt: skip
"""Keys of later releases, and what to do until then."""


def explain(
    error: ValidationError, document: Document, prefix: Where, model: type[BaseModel]
) -> Iterator[tuple[Where, Problem]]:
    """One problem for each error, with its place in the document. `prefix` is where `model` begins."""
    seen: set[tuple[Where, str]] = set()
    for detail in error.errors(include_url=False, include_context=True, include_input=False):
        inner = tuple(part for part in detail["loc"] if part != "[key]")
        where = (*prefix, *inner)
        message, hint = _words(str(detail["type"]), str(detail["msg"]), inner, where, document, model)
        if (where, message) not in seen:
            seen.add((where, message))
            yield where, document.problem(where, message, hint)


def _words(
    kind: str, said: str, inner: Where, where: Where, document: Document, model: type[BaseModel]
) -> tuple[str, str | None]:
    if kind == "extra_forbidden" and inner[-1] in NOT_YET:
        return f"`{_shown(inner)}` is not available yet", NOT_YET[str(inner[-1])]
    if kind == "extra_forbidden":
        known = _known(model, inner[:-1])
        hint = nearest(str(inner[-1]), known) or (f"the keys here are {', '.join(known)}" if known else None)
        return f"unknown key `{_shown(inner)}`", hint
    if kind == "missing":
        return f"the key `{_shown(inner)}` is missing", None
    said = said.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    said = said.replace("Input should be", "expected").replace("valid dictionary", "mapping of `key: value`")
    shown = _shown(document.resolve(where)[len(where) - len(inner) :])
    return (f"`{shown}`: {said[:1].lower()}{said[1:]}" if shown else said), None


def _known(model: type[BaseModel], where: Where) -> Sequence[str]:
    found: list[Any] = at(model, where)
    return [key for one in found if isinstance(one, type) and issubclass(one, BaseModel) for key in keys(one)]


def _shown(where: Where) -> str:
    text = ".".join(str(part) for part in where)
    return text if len(text) <= 120 else text[:60] + "…" + text[-20:]
