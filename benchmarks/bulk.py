"""`python -m benchmarks.bulk [ROWS …]`: a first sync of the demo's contacts to the simulated Salesforce by Bulk API 2.0, and the peak
memory of the process that sends it. It is flat where more rows take no more. `--write FILE` puts the table into a page."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from backhaul.demo.files import create_product_database, make_fields, write_project
from backhaul.demo.warehouse import build
from backhaul.sandbox.kit import simulation
from benchmarks.__main__ import replace
from benchmarks.limits import served
from benchmarks.measure import BACKHAUL, Failed

_HEAD = """\
| rows | jobs and other requests | seconds | peak memory |
| --- | --- | --- | --- |
"""


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
        report = json.loads(child.stdout.read())["runs"][0]
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if report["delivered"] < rows * 0.99:  # some of the demo's rows are made to be refused
            raise Failed(f"{rows:,} rows: {report}")
    seconds, peak = report["seconds"]["total"], usage.ru_maxrss / 1024
    return f"| {rows:,} | {report['requests']:,} | {seconds:.0f} | {peak:,.0f} MiB |"


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
