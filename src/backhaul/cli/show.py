"""Values, keys, times and tables as people read them. rich is imported when something is drawn."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from backhaul.words import in_one_line, printable

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from backhaul.runs.report import RunReport

LONGEST = 48
"""Characters of one value in a table."""
STATUS_COLOURS = {
    "succeeded": "green",
    "acknowledged": "green",
    "partial": "yellow",
    "deferred": "yellow",
    "pending": "yellow",
    "unknown": "yellow",
    "running": "cyan",
    "held": "magenta",
    "failed": "red",
    "skipped": "yellow",
    "rejected": "red",
}


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """An open table; where room is short, the last column gives way."""
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in columns:
        justify: Literal["left", "right"] = "right" if name in right else "left"
        drawn.add_column(name, justify=justify, no_wrap=name != columns[-1], overflow="ellipsis")
    return drawn


def text(value: str, style: str = "") -> Text:
    """One line of plain text: nothing in it is taken for markup or for a command to the terminal."""
    from rich.text import Text

    return Text(printable(value).replace("\n", "⏎"), style=style, no_wrap=True, overflow="ellipsis")


def prose(value: str) -> Text:
    """Plain text that may take several lines."""
    from rich.text import Text

    return Text(printable(value))


def status_text(status: str) -> Text:
    return text(status, STATUS_COLOURS.get(status, ""))


def value_text(value: Any, longest: int = LONGEST) -> str:
    """One value in one line, texts in quotes, cut rather than wrapped."""
    import orjson

    if value is None:
        return "null"
    shown = f"'{value}'" if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    shown = printable(shown).replace("\n", "⏎")
    return shown if len(shown) <= longest else f"{shown[: longest - 2]}…{shown[-1]}"


def key_text(key: Any) -> Text:
    """A key: one value, or the values of a composite one."""
    if isinstance(key, list) and len(key) == 1:
        key = key[0]
    if isinstance(key, list):
        return text(", ".join(part if isinstance(part, str) else value_text(part) for part in key))
    return text(key if isinstance(key, str) else value_text(key))


def pairs_text(fields: dict[str, Any]) -> Text:
    """`name=value name=value …` of a record."""
    return text("  ".join(f"{name}={value_text(value)}" for name, value in fields.items()))


def ago(stamp: str | None) -> str:
    """A stored time as `3 min ago`."""
    if not stamp:
        return ""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(stamp)).total_seconds()
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {name} ago"
    return "just now"


def duration(seconds: float) -> str:
    """`1.2 s`, `3.5 min`, `2.1 h`, `4 days`."""
    for size, name in ((2 * 86400, "days"), (5400, "h"), (90, "min")):
        if seconds >= size:
            return f"{seconds / {'days': 86400, 'h': 3600, 'min': 60}[name]:.1f} {name}"
    return f"{seconds:.1f} s"


def rest(sync: str, undone: str | None) -> str:
    """The command that goes on where a run left changes. A normal run after an undo would send the model's values again,
    so the rest of an undo is planned by `undo`: what was put back already is not in that plan."""
    return f"backhaul undo {undone}" if undone else f"backhaul run {sync}"


def records(count: int) -> str:
    """`1 record`, `2,000 records`."""
    return f"{count:,} record{'' if count == 1 else 's'}"


REASONS = {
    "mapping": "because the mapping changed",
    "unknown": "because the destination may not hold them",
    "reset": "because they were reset",
}
_REPLACED = {
    "replaced": "which the destination cannot change: each is deleted and created again",
    "left_behind": "which the destination cannot change: each is created again, and the record under the old one stays",
}


def reasons(found: dict[str, int], remapped: dict[str, int]) -> list[str]:
    """`resends 41,200 because the mapping of tier changed`, a line for each reason."""
    lines = [
        f"resends {count:,} {REASONS.get(name, name)}"
        for name, count in found.items()
        if count and name != "mapping" and name not in _REPLACED
    ]
    for name, what in _REPLACED.items():
        if count := found.get(name, 0):
            lines.append(f"{records(count)} {'has' if count == 1 else 'have'} a new identifier, {what}")
    return [*_mapping(found.get("mapping", 0), remapped), *lines]


def _mapping(count: int, remapped: dict[str, int]) -> list[str]:
    if not remapped:
        return [f"resends {count:,} {REASONS['mapping']}"] if count else []
    if len(remapped) == 1:
        return [f"resends {count:,} because the mapping of {name} changed" for name in remapped]
    parts = ", ".join(
        f"{name} {caused:,}" for name, caused in sorted(remapped.items(), key=lambda one: -one[1])[:8]
    )
    more = f" and {len(remapped) - 8} more" if len(remapped) > 8 else ""
    return [f"resends {count:,} because the mapping changed of {len(remapped)} fields: {parts}{more}"]


def suppressed(count: int) -> list[str]:
    """The notice that rows were left out because they were forgotten."""
    return (
        [f"{records(count)} of the model not sent: forgotten (backhaul forget SYNC --list)"] if count else []
    )


def refused(report: RunReport) -> list[str]:
    """How many were refused, why records were not taken, and what to do about the commonest refusal; how many dead letters are
    kept no more."""
    notes = []
    if report.rejected:
        were = "was" if report.rejected == 1 else "were"
        notes.append(
            f"{records(report.rejected)} {were} refused: backhaul dead-letters list --sync {report.sync}"
        )
    notes += reasons_of(report.refused)
    if report.refused and report.refused[0]["status"] == "rejected":
        notes.append(in_one_line(f"to do: {report.refused[0]['fix']}"))
    if report.expired:
        letters = "1 dead letter is" if report.expired == 1 else f"{report.expired:,} dead letters are"
        notes.append(f"{letters} kept no more: not sent until the value changes")
    return notes


def reasons_of(found: list[dict[str, Any]], most: int = 3) -> list[str]:
    """The destination's words, a line for each common reason, with how many records it is about."""
    lines = []
    for one in found[:most]:
        count = f"{one['count']:,}" if one["status"] == "rejected" else f"{one['count']:,} {one['status']}"
        about = " ".join(part for part in (one["code"], one["field"]) if part)
        message = one["message"].removeprefix(f"{one['field']}: ")
        lines.append(in_one_line(f"{count} × {about}: {message}" if about else f"{count} × {message}"))
    return lines


def orphan(name: str, where: list[str]) -> str:
    """What to do about the state of a sync that no file declares."""
    return (
        f"the state holds sync {name} ({'; '.join(where)}), which no file declares; if it has another name now: "
        f"`backhaul rename {name} NEW` gives its records to NEW"
    )


def first(account: str, kept: list[str]) -> str:
    """What a first run is of, where the sync has ledgers elsewhere."""
    if not kept:
        return FIRST
    return f"first run for {account}; the ledger of {' and of '.join(kept)} is kept"


FIRST = "first sync: if the destination holds these records already, see `backhaul baseline`"


def schema_changes(found: list[str]) -> list[str]:
    """`the model changed: column city (VARCHAR) is new`, a line for each of the first few."""
    more = [f"and {len(found) - 5} more: backhaul schema-changes SYNC"] if len(found) > 5 else []
    return [printable(f"the model changed: {one}") for one in found[:5]] + more
