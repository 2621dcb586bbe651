"""`python -m benchmarks.bulk [ROWS …]`: a first sync of the demo's contacts to the simulated Salesforce by Bulk API 2.0, and the
memory of the process that sends it: on the way, and at most. It is flat where it is alike on the way. Linux only. `--write FILE` puts the
table into a page."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from backhaul.demo.files import create_product_database, make_fields, write_project
from backhaul.demo.warehouse import build
from backhaul.sandbox.kit import simulation
from benchmarks.__main__ import replace
from benchmarks.limits import served
from benchmarks.measure import BACKHAUL, Failed

_HEAD = """\
| rows | jobs and other requests | seconds | MiB with a tenth of it sent, half, nine tenths | MiB at most |
| --- | --- | --- | --- | --- |
"""
_EVERY = 0.25
"""Seconds from one look at the memory to the next."""


class Memory:
    """Resident memory of a process as it goes, in MiB, until `end`."""

    def __init__(self, pid: int) -> None:
        self._seen: list[tuple[float, float]] = []
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, args=(Path(f"/proc/{pid}/statm"),))
        self._watch.start()

    def _look(self, file: Path) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not self._over.wait(_EVERY):
            self._seen.append((time.monotonic(), int(file.read_text().split()[1]) * page / 2**20))

    def end(self) -> None:
        self._over.set()
        self._watch.join()

    def at(self, moment: float) -> float:
        """What was seen last before a moment of the monotonic clock."""
        return max((seen for seen in self._seen if seen[0] <= moment), default=self._seen[0])[1]


def measured(rows: int) -> str:
    """One first sync as a line of the table."""
    sample = simulation("salesforce").sample
    assert sample is not None
    with tempfile.TemporaryDirectory(prefix="backhaul-bulk-") as folder, served("salesforce") as url:
        project = Path(folder)
        create_product_database(project / "product.db")
        write_project(project, sample, url)
        (project / "syncs" / "scores.yml").unlink()
        asyncio.run(make_fields(project, sample))
        build(project / "warehouse.duckdb", rows)
        command = [BACKHAUL, "run", "--project", folder, "--json"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        memory = Memory(child.pid)
        output = child.stdout.read()
        ended = time.monotonic()
        memory.end()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        report = json.loads(output)["runs"][0]
        if report["delivered"] < rows * 0.99:  # some of the demo's rows are made to be refused
            raise Failed(f"{rows:,} rows: {report}")
    seconds = report["seconds"]
    sent = ended - seconds["settle"]
    seen = ", ".join(f"{memory.at(sent - seconds['deliver'] * left):,.0f}" for left in (0.9, 0.5, 0.1))
    return f"| {rows:,} | {report['requests']:,} | {seconds['total']:.0f} | {seen} | {usage.ru_maxrss / 1024:,.0f} |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bulk", description=__doc__)
    parser.add_argument("rows", nargs="*", type=int, default=[250_000, 1_000_000])
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this file")
    given = parser.parse_args()
    lines = []
    for rows in given.rows:
        lines.append(measured(rows))
        print(lines[-1], file=sys.stderr, flush=True)
    text = _HEAD + "\n".join(lines) + "\n"
    print(text)
    if given.write:
        replace(given.write, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
