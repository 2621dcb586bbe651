"""backhaul status, runs and verify."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from backhaul.cli import show
from backhaul.cli.failures import OK, UNFINISHED
from backhaul.cli.session import Command, Session, pass_session, sync_argument, syncs_argument

if TYPE_CHECKING:
    from backhaul.verification.verify import Verified


_WIDE = 120
"""Columns of a terminal from which on the history says why records were refused."""


@click.command(cls=Command)
@syncs_argument()
@pass_session
def status(session: Session, names: tuple[str, ...]) -> None:
    """Shows the health of each sync, and what comes next.

    Its last run, and its records by status. Use it to see at a glance whether destinations hold what they
    should.

    \b
    Examples:
      backhaul status
      backhaul status 'crm_*'
    """
    project = session.project()
    found = project.status(names)
    for health in found:
        health["next"] = next_step(health)
    orphaned = {} if names else project.orphans()
    if session.json:
        session.emit({"syncs": found, "orphans": orphaned})
    elif not found:
        session.say("no syncs yet: put a file under syncs/")
    else:
        _show_status(session, found)
    for name, where in orphaned.items():
        session.say(f"\n{show.orphan(name, where)}")


def next_step(health: dict[str, Any]) -> str:
    """The command that most likely comes next, or nothing."""
    name, last, records = health["sync"], health["last_run"], health["records"]
    if health["running"]:
        return ""
    if last is None:
        return f"backhaul plan {name}"
    if last["status"] == "held":
        return f"backhaul run {name} --plan {last['plan']}" if last.get("plan") else f"backhaul plan {name}"
    if last["status"] == "failed":
        return f"backhaul runs {name}"
    if records["quarantined"]:
        return f"backhaul records {name} --status quarantined"
    if records["rejected"]:
        return f"backhaul dead-letters list --sync {name}"
    return (
        show.rest(name, last.get("undo"))
        if records["pending"] or records["unknown"] or last["status"] == "deferred"
        else ""
    )


def _open_records(health: dict[str, Any]) -> list[str]:
    """What is to be said of records that are not simply sent again."""
    from backhaul.next_steps import SENTENCES, Step

    name, records = health["sync"], health["records"]
    said = []
    if records["unknown"] and not health["running"]:
        step = Step(health["unknown_next"])
        decide = f": `backhaul settle {name} KEY` or `--all`" if step is Step.DECIDE else ""
        said.append(
            f"{records['unknown']:,} unknown: a request left and its answer is missing; {SENTENCES[step]}{decide} "
            "(docs/next-steps.md)"
        )
    if records["quarantined"]:
        said.append(
            f"{records['quarantined']:,} quarantined: the destination holds several records for one key; remove the duplicates "
            f"there, then `backhaul settle {name} KEY --delivered` (docs/next-steps.md)"
        )
    return said


def _show_status(session: Session, found: list[dict[str, Any]]) -> None:
    from backhaul.cli.show import ago, prose, reasons_of, status_text, table, text

    shown = table("sync", "to", "last run", "status", "records")
    for health in found:
        last = health["last_run"] or {}
        state = "running" if health["running"] else last.get("status", "never ran")
        counts = " · ".join(
            f"{count:,} {name.replace('_', ' ')}" for name, count in health["records"].items() if count
        )
        to, when = f"{health['destination']} {health['object']}", ago(last.get("started_at"))
        shown.add_row(
            text(health["sync"], "bold"), text(to), when, status_text(state), prose(counts or "none")
        )
    session.draw(shown)
    for health in found:
        if health["kept"]:
            said = f"these are the records of {health['account']}; also kept: {', '.join(health['kept'])}"
            session.say(f"\n{health['sync']}: {said}")
        last = health["last_run"] or {}
        if last.get("error"):
            session.say(f"\n{health['sync']}: {session.redact(last['error'])}")
        refused = reasons_of(last.get("refused") or [])
        if refused and not last.get("error"):
            session.say(f"\n{health['sync']}: refused in the last run")
        for reason in refused:
            session.say(f"  {session.redact(reason)}")
        for said in [*last.get("notices", []), *_open_records(health)]:
            session.say(f"\n{health['sync']}: {said}")
        if health["next"]:
            between = "" if last.get("error") else "\n"
            session.say(f"{between}next: {click.style(health['next'], fg='cyan')}")


@click.command(cls=Command)
@click.argument("sync", required=False, metavar="[SYNC]")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, metavar="N", help="So many."
)
@pass_session
def runs(session: Session, sync: str | None, limit: int) -> None:
    """Shows the history, the newest runs first.

    \b
    Examples:
      backhaul runs
      backhaul runs contacts --limit 5
    """
    project = session.project()
    if sync is None:
        found = project.runs(None, limit)
    else:
        each = [project.runs(one.name, limit) for one in session.syncs(project, [sync])]
        found = sorted(
            (run for some in each for run in some), key=lambda run: run["started_at"], reverse=True
        )[:limit]
    if session.json:
        session.emit({"runs": found})
    elif not found:
        session.say("nothing has run yet; next: backhaul plan")
    else:
        _show_runs(session, found)


def _show_runs(session: Session, found: list[dict[str, Any]]) -> None:
    from backhaul.cli.show import ago, prose, status_text, table, text

    reasons = session.console().width >= _WIDE
    shown = table("run", "sync", "started", "status", "what")
    for run in found:
        status, started = status_text(run["status"]), ago(run["started_at"])
        shown.add_row(
            text(run["id"]), text(run["sync"]), started, status, prose(session.redact(_what(run, reasons)))
        )
    session.draw(shown)


def _what(run: dict[str, Any], reasons: bool) -> str:
    """What a run did, in a few words; of one that did not end well, why."""
    from backhaul.cli.show import duration, reasons_of

    counts = {"changed": sum(run.get("changes", {}).values())}
    counts |= {name: run.get(name, 0) for name in ("delivered", "rejected", "deferred", "unknown")}
    parts = [f"{count:,} {name}" for name, count in counts.items() if count]
    took = duration(run["seconds"]["total"]) if "seconds" in run else ""
    why = [] if run["error"] or not reasons else reasons_of(run.get("refused") or [], 1)
    return " · ".join(part for part in (run["error"], *parts, took, *why) if part)


@click.command(cls=Command)
@sync_argument()
@click.option(
    "--sample", type=click.IntRange(1), default=10, show_default=True, metavar="N", help="So many, at random."
)
@click.option("--all", "everything", is_flag=True, help="Read back every record that was ever acknowledged.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), metavar="N", help="Chooses the same sample again.")
@pass_session
def verify(session: Session, sync: str, sample: int, everything: bool, seed: int | None) -> int:
    """Reads records back from the destination and compares.

    A record that differs is sent again by the next run. Use it when in doubt whether someone else wrote to
    the destination. Exits with 3 where something differs, or where --all finds records that are not acknowledged.

    \b
    Examples:
      backhaul verify contacts
      backhaul verify contacts --sample 500 --seed 1
      backhaul verify contacts --all
    """
    project = session.project()
    count = None if everything else sample
    found = {
        one.name: project.verify(one.name, count=count, seed=seed) for one in session.syncs(project, [sync])
    }
    if session.json:
        session.emit(
            {"verified": [{"sync": name, **verified_json(verified)} for name, verified in found.items()]}
        )
    else:
        for name, verified in found.items():
            _show_verified(session, name, verified)
    undone = (verified.mismatches or (everything and verified.open) for verified in found.values())
    return UNFINISHED if any(undone) else OK


def verified_json(verified: Verified) -> dict[str, Any]:
    """`{checked, mismatches: [{key, missing, fields: {name: [acknowledged, held]}}], respelled, not_acknowledged}`."""
    mismatches = [
        {"key": one.key, "missing": one.missing, "fields": one.fields} for one in verified.mismatches
    ]
    respelled = [{"key": one.key, "fields": one.fields} for one in verified.respelled]
    return {
        "checked": verified.checked,
        "mismatches": mismatches,
        "respelled": respelled,
        "not_acknowledged": verified.open,
    }


def _show_verified(session: Session, name: str, verified: Verified) -> None:
    from backhaul.cli.show import key_text, records, table, text, value_text
    from backhaul.verification.spellings import describe_spellings

    if not verified.checked:
        session.say(f"{name}: nothing to compare, as nothing was acknowledged; next: backhaul run {name}")
        return
    wrong = len(verified.mismatches)
    verdict = (
        click.style(f"{wrong:,} differ", fg="red")
        if wrong
        else click.style("all as acknowledged", fg="green")
    )
    say = session.warn if wrong else session.say
    say(f"{name}: {records(verified.checked)} read back, {verdict}")
    if verified.open:
        where = f"backhaul records {name} --status unknown"
        session.warn(f"{name}: {records(verified.open)} not acknowledged as they are: {where}")
    if verified.respelled:
        session.say(describe_spellings(name, verified))
    if not wrong or session.quiet:
        return
    shown = table("key", "field", "acknowledged", "held now")
    for one in verified.mismatches[:50]:
        if one.missing:
            shown.add_row(key_text(one.key), "", "", text("not there", "red"))
        for field, (acknowledged, held) in one.fields.items():
            shown.add_row(
                key_text(one.key), text(field), value_text(acknowledged), text(value_text(held), "red")
            )
    session.draw(shown)
    session.say(f"the next run sends them again: backhaul run {name}")
