"""`python -m benchmarks`: measures and prints a Markdown table."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.cases import CASES, Row, Settings
from benchmarks.measure import Failed

MARK, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"


def main() -> int:
    given = _arguments()
    rows: list[Row] = []
    load = os.getloadavg()[0]
    for name in given.only or CASES:
        with tempfile.TemporaryDirectory(prefix="backhaul-bench-", dir=given.dir) as folder:
            Path(folder).chmod(0o755)  # the user that PostgreSQL runs as has to get in
            try:
                for row in CASES[name](Settings(Path(folder), given.rows, given.repeat)):
                    rows.append(row)
                    print(line(row), file=sys.stderr, flush=True)
            except Failed as failure:
                print(f"{name}: {failure}", file=sys.stderr)
                rows.append(Row(name, "failed", "", "", 0, False))
    text = table(rows, given.repeat, load)
    print(text)
    if given.write:
        replace(given.write, text)
    return 0 if all(row.ok for row in rows) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=CASES, help="only this case; may be repeated")
    parser.add_argument(
        "--rows", type=int, default=5_000_000, help="rows of the large cases; the others scale with it"
    )
    parser.add_argument("--repeat", type=int, default=5, help="runs of each; the median counts")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help=f"put the table between {MARK} and {END} in this file"
    )
    parser.add_argument("--dir", type=Path, help="where the data are made and removed again; needs 10 GB")
    return parser.parse_args()


def line(row: Row) -> str:
    peak = f"{row.peak >> 20:,} MiB" if row.peak else ""
    return f"| {row.what} | {row.measured} | {row.bound} | {row.ratio} | {peak} | {'yes' if row.ok else '**no**'} |"


def table(rows: list[Row], repeat: int, load: float) -> str:
    """The table, and under it where and with what it was made."""
    head = [
        "| what | measured | bound or rival | ratio | peak memory | kept |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    made = (
        f"`make bench`, {datetime.now(UTC):%Y-%m-%d}: whole processes from start to exit, medians of {repeat} (memory: one run), "
        f"ten columns; {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, DuckDB {version('duckdb')}, "
        f"load average {load:.1f} before the first."
    )
    return "\n".join([*head, *map(line, rows), "", made])


def replace(path: Path, text: str) -> None:
    before, _, rest = path.read_text().partition(MARK)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"{path} has no {MARK} and {END} to write between")
    path.write_text(f"{before}{MARK}\n{text}\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
