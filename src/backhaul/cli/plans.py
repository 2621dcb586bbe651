"""Draws a plan: counts, old and new values, guards, cost, and the command that delivers it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from backhaul.cli import show
from backhaul.cli.session import Session
from backhaul.runs.undo import REASONS

if TYPE_CHECKING:
    from rich.table import Table

    from backhaul.runs.report import PlanReport

_MARKS = {"create": ("+", "green"), "update": ("~", "yellow"), "delete": ("-", "red")}
_FIELDS = {"create": 8, "update": 12, "delete": 2}
"""Fields of one record in the sample."""
_RECORDS = {"create": 3, "update": 5, "delete": 3}
"""Records of the sample."""
_REASONS = 8
"""Reasons of refusals."""


def draw(session: Session, plan: PlanReport) -> None:
    """One plan on stdout."""
    total = sum(plan.changes.values())
    if plan.undo is not None:
        session.say(f"undo of run {plan.undo['run']}")
    kind = (
        "to put back"
        if plan.undo is not None
        else "changed since the last run"
        if plan.incremental
        else "in the model"
    )
    session.say(
        f"{click.style(plan.sync, bold=True)} → {plan.destination} {plan.object}   {plan.rows:,} rows {kind}"
    )
    session.say(f"  {_counts(plan)}")
    for reason in [
        *([show.first(plan.account, plan.kept)] if plan.first and total else []),
        *show.reasons(plan.reasons, plan.remapped),
    ]:
        session.say(f"  {reason}")
    for notice in [
        *plan.notices,
        *show.schema_changes(plan.schema_changes),
        *show.suppressed(plan.suppressed),
    ]:
        session.say(f"  {notice}")
    if plan.sample:
        session.say()
        chosen = [change for op, most in _RECORDS.items() for change in _of(plan.sample, op)[:most]]
        width = session.console().width
        session.draw(_sample(chosen, width))
        if total > len(chosen):
            session.say(f"  … {total - len(chosen):,} more like these")
    _refusals(session, plan)
    _guards(session, plan)
    _left_out(session, plan)
    _cost(session, plan, total)
    if plan.undo is not None and total:
        session.say(
            "  fix the model or the mapping before the next normal run: it sends the model's values again"
        )


def _left_out(session: Session, plan: PlanReport) -> None:
    for why, left in (plan.undo or {}).get("left_out", {}).items():
        keys = ", ".join(show.key_text(key).plain for key in left["keys"])
        more = ", …" if left["count"] > len(left["keys"]) else ""
        session.say(f"  left out: {show.records(left['count'])} {REASONS[why]} ({keys}{more})")


def _of(sample: list[dict[str, Any]], op: str) -> list[dict[str, Any]]:
    return [change for change in sample if change["op"] == op]


def _counts(plan: PlanReport) -> str:
    parts = [
        click.style(f"{mark} {plan.changes[op]:,} {op}", fg=colour)
        for op, (mark, colour) in _MARKS.items()
        if plan.changes[op]
    ]
    if plan.refused:
        parts.append(click.style(f"! {plan.refused:,} refused", fg="red"))
    if not parts and plan.undo is not None:
        return "nothing to put back"
    if parts:
        return "   ".join(parts)
    open_records = {name: count for name, count in plan.records.items() if count and name != "acknowledged"}
    if not open_records:
        return "nothing to send: the destination has acknowledged every row"
    said = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in open_records.items())
    return f"nothing to send; not acknowledged: {said}"


def _sample(changes: list[dict[str, Any]], width: int) -> Table:
    """Old and new values, cut so that the table is no wider than `width`."""
    longest = _longest(changes, width)
    drawn = show.table("", "key", "field", "old", "", "new")
    for change in changes:
        mark, colour = _MARKS[change["op"]]
        key, fields = show.key_text(change["key"]), list(change["fields"].items())
        most = _FIELDS[change["op"]]
        for number, (name, (old, new)) in enumerate(fields[:most]):
            first = number == 0
            drawn.add_row(
                show.text(f"  {mark}" if first else "", colour),
                key if first else "",
                show.text(name),
                *_values(change["op"], show.value_text(old, longest), show.value_text(new, longest)),
            )
        if len(fields) > most:
            drawn.add_row("", "", show.text(f"… {len(fields) - most} more", "dim"), "", "", "")
        if not fields:
            drawn.add_row(show.text(f"  {mark}", colour), key, "", "", "", "")
    return drawn


def _longest(changes: list[dict[str, Any]], width: int) -> int:
    """Characters for one value: what mark, key, field, arrow and the spaces between columns leave."""
    keys = max(len(show.key_text(change["key"]).plain) for change in changes)
    fields = max((len(name) for change in changes for name in change["fields"]), default=0)
    left = width - keys - max(fields, len("field")) - len("  +  " + "  " + "  " + "  " + "→  ")
    both = any(change["op"] == "update" for change in changes)
    return max(12, min(show.LONGEST, left // 2 if both else left - len("old")))


def _values(op: str, old: str, new: str) -> tuple[Any, Any, Any]:
    """The cells old, arrow, new: a create has no old value, a delete no new one."""
    before = "" if op == "create" else show.text(old, "red" if op == "delete" else "dim")
    after = "" if op == "delete" else show.text(new, "green")
    return before, "→" if op == "update" else "", after


def _refusals(session: Session, plan: PlanReport) -> None:
    if not plan.refused:
        return
    refused = f"{show.records(plan.refused)} refused by the mapping, kept as dead letters:"
    session.say(click.style(f"\n  {refused}", fg="red"))
    for one in plan.refusals[:_REASONS]:
        some = ", ".join(show.key_text(key).plain for key in one["keys"])
        keys = f"{some}, …" if one["count"] > len(one["keys"]) else some
        session.say(f"  ! {one['count']:,} × {one['field']}: {session.redact(one['message'])} ({keys})")
    if rest := sum(one["count"] for one in plan.refusals[_REASONS:]):
        session.say(f"  … {rest:,} more for {len(plan.refusals) - _REASONS} other reasons")


def _guards(session: Session, plan: PlanReport) -> None:
    if plan.guards:
        session.say()
    for guard in plan.guards:
        mark = click.style("✓", fg="green") if guard["ok"] else click.style("✗", fg="red")
        said = f"{guard['name']}{'' if guard['ok'] else ' tripped'}: {guard['message']}"
        session.say(f"  {mark} {said if guard['ok'] else click.style(said, fg='red', bold=True)}")


def _tripped(plan: PlanReport) -> str:
    names = [guard["name"] for guard in plan.guards if not guard["ok"]]
    return f"{', '.join(names)} tripped"


def _cost(session: Session, plan: PlanReport, total: int) -> None:
    held = not all(guard["ok"] for guard in plan.guards)
    if total:
        count, seconds = int(plan.estimate["requests"]), plan.estimate["seconds"]
        about = f", about {show.duration(seconds)} at the destination's limits" if seconds >= 0.1 else ""
        session.say(f"\n  costs {count:,} request{'' if count == 1 else 's'}{about}")
    if held:
        session.say(
            click.style(f"  a run would be held ({_tripped(plan)}) until you deliver this plan", fg="red")
        )
    if total or plan.refused:
        session.say(
            f"  deliver exactly this: {click.style(f'backhaul run {plan.sync} --plan {plan.id}', fg='cyan')}"
        )
