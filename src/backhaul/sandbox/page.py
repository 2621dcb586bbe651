"""The page of a simulated API: what it holds, what was asked of it, which faults are on. Plain HTML."""

from __future__ import annotations

import html
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import islice
from typing import Any, Protocol

_ROWS, _COLUMNS, _REQUESTS = 25, 12, 15
_STYLE = """
:root { color-scheme: light dark; --line: #8883; --soft: #8881; --good: #2da44e; --bad: #cf222e; --warn: #bf8700 }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2.5rem auto; max-width: 76rem; padding: 0 1.25rem }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.05rem; margin: 2.2rem 0 .5rem }
h2 small, .note { font-weight: 400; opacity: .65 } .note { margin: .2rem 0 }
.tiles { display: flex; flex-wrap: wrap; gap: .75rem; margin-top: 1.5rem }
.tile { background: var(--soft); border: 1px solid var(--line); border-radius: .6rem; padding: .55rem 1rem; min-width: 7rem }
.tile b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums } .tile span { opacity: .7 }
.on { border-radius: 1rem; padding: .1rem .7rem; margin-right: .4rem; color: #fff; background: var(--bad) }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: .6rem }
table { border-collapse: collapse; width: 100%; font-size: .86rem; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .8rem; text-align: left; white-space: nowrap;
  max-width: 18rem; overflow: hidden; text-overflow: ellipsis }
tr:last-child td { border-bottom: 0 } th { font-weight: 600; background: var(--soft) }
.s2 { color: var(--good) } .s4 { color: var(--warn) } .s5, .s0 { color: var(--bad) } code { font-size: .92em }
"""


_STYLE_HASH = b64encode(sha256(_STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""Of the page: it has one style and no script, and is shown in no frame."""


class Logged(Protocol):
    """A row of the request log."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def status(self) -> int: ...
    @property
    def records(self) -> int: ...
    @property
    def at(self) -> float: ...


def render(
    name: str, records: Mapping[str, Mapping[str, Mapping[str, Any]]], requests: Sequence[Logged],
    counts: Mapping[str, int], faults: Mapping[str, Any], notes: Mapping[str, str],
) -> str:  # fmt: skip
    """The page as HTML; `notes` are facts shown beside the counts."""
    on = [f"{key} = {value}" for key, value in faults.items() if value and key != "retry_after"]
    switched = "".join(f"<span class=on>{html.escape(item)}</span>" for item in on) or "none"
    tables = "".join(_records(title, rows) for title, rows in records.items() if rows)
    empty = "<h2>Records</h2><p class=note>It holds nothing yet.</p>"
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<meta http-equiv=refresh content=5><title>{html.escape(name)} sandbox</title><style>{_STYLE}</style>"
        f"<h1>{html.escape(name)} sandbox</h1>"
        "<p class=note>A simulation made from public documents, not the vendor. It forgets everything when it ends.</p>"
        f"<div class=tiles>{_tiles(records, counts, notes)}</div>"
        f"<h2>Faults switched on</h2><p class=note>{switched}</p>{tables or empty}"
        f"<h2>Requests <small>by endpoint</small></h2>{_counts(counts)}"
        f"<h2>Requests <small>the last ones</small></h2>{_last(requests)}"
        "<p class=note>All of it as JSON: <code>GET /_sandbox/state</code>. "
        'Switch faults on: <code>POST /_sandbox/faults</code> with <code>{"error": 0.05}</code>; '
        "<code>{}</code> switches all off.</p></html>"
    )


def _tiles(
    records: Mapping[str, Mapping[str, Any]], counts: Mapping[str, int], notes: Mapping[str, str]
) -> str:
    statuses: Counter[str] = Counter()
    for line, count in counts.items():
        statuses[line.rsplit(" ", 1)[1]] += count
    tiles = {title: f"{len(rows):,}" for title, rows in records.items() if rows}
    tiles["requests"] = f"{sum(counts.values()):,}"
    tiles |= {_status(status): f"{count:,}" for status, count in sorted(statuses.items())} | dict(notes)
    return "".join(
        f"<div class=tile><b>{html.escape(value)}</b><span>{html.escape(title)}</span></div>"
        for title, value in tiles.items()
    )


def _status(status: str) -> str:
    return "reset" if status == "0" else f"HTTP {status}"


def _records(title: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    newest = [{"id": key, **rows[key]} for key in islice(reversed(list(rows)), _ROWS)]
    names = list(islice(dict.fromkeys(name for row in newest for name in row), _COLUMNS))
    lines = [[html.escape(_short(row.get(name))) for name in names] for row in newest]
    shown = f"{len(rows):,}" if len(rows) <= _ROWS else f"{_ROWS} of {len(rows):,}, newest first"
    return f"<h2>{html.escape(title)} <small>{shown}</small></h2>{_table(names, lines)}"


def _counts(counts: Mapping[str, int]) -> str:
    rows = []
    for line in sorted(counts):
        method, path, status = line.split(" ")
        rows.append([method, f"<code>{html.escape(path)}</code>", _coloured(status), f"{counts[line]:,}"])
    return _table(["method", "endpoint", "status", "requests"], rows)


def _last(requests: Sequence[Logged]) -> str:
    rows = [
        [f"{item.at:.2f} s", html.escape(item.method), f"<code>{html.escape(item.path)}</code>",
         _coloured(str(item.status)), f"{item.records:,}"]
        for item in reversed(requests[-_REQUESTS:])
    ]  # fmt: skip
    return _table(["at", "method", "path", "status", "records"], rows)


def _coloured(status: str) -> str:
    return f"<span class=s{status[0]}>{'reset' if status == '0' else status}</span>"


def _table(names: Iterable[str], lines: Sequence[Sequence[str]]) -> str:
    """`lines` are HTML already."""
    if not lines:
        return "<p class=note>None yet.</p>"
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in line)}</tr>" for line in lines)
    return f"<div class=scroll><table><tr>{head}</tr>{body}</table></div>"


def _short(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= 60 else text[:59] + "…"
