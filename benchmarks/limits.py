"""`python -m benchmarks.limits [NAME …]`: how much of a destination's limit a first sync uses.

Each destination is its simulation, with the vendor's limits and 20 ms a request; the sync is the demo's, with enough records for
three windows or ten seconds. Counted are the requests that came in within whole windows from the first write on. The table
goes into docs/limits.md with `--write`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backhaul.demo.files import create_product_database, write_project
from backhaul.demo.warehouse import build
from backhaul.project import load
from backhaul.sandbox.kit import Sample, simulation
from backhaul.types import Rate
from benchmarks.__main__ import replace
from benchmarks.measure import BACKHAUL, Failed

LATENCY = 0.02
"""Seconds before every answer."""
_WINDOWS, _SECONDS = 3, 10.0
_OF_JOBS = {"zendesk": 0.4}
"""The part of the requests that hand records over, where the others ask what became of them."""
_SHOWN = {
    "braze": "POST /users/track", "customerio": "POST /api/v2/batch", "hubspot": "", "intercom": "",
    "iterable": "POST /api/users/bulkUpdate", "klaviyo": "POST /api/profile-bulk-import-jobs", "marketo": "", "slack": "",
    "zendesk": "",
}  # fmt: skip
"""Destinations, and how the requests begin that the limit counts, where it does not count all."""
_HEAD = """\
| destination | limit | records | seconds | used of whole windows | most in a window | throttled |
| --- | --- | --- | --- | --- | --- | --- |
"""


@dataclass(frozen=True)
class Used:
    """What a run made of a limit. `part`: requests of all whole windows by what they allow; `most`: in any window."""

    name: str
    rate: Rate
    records: int
    seconds: float
    part: float
    most: int
    throttled: int

    @property
    def line(self) -> str:
        return (
            f"| {self.name} | {self.rate.count:,} in {self.rate.per:g} s | {self.records:,} | {self.seconds:.0f} | {self.part:.0%} "
            f"| {self.most:,} of {self.rate.count:,} | {self.throttled} |"
        )


def measured(name: str) -> Used:
    """Runs one first sync."""
    simulated = simulation(name)
    sample = simulated.sample
    assert sample is not None
    with tempfile.TemporaryDirectory(prefix="backhaul-limits-") as folder, served(name) as url:
        project = Path(folder)
        rate, records = _prepared(project, sample, url)
        command = [BACKHAUL, "run", "--project", folder, "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        report = json.loads(done.stdout)["runs"][0]
        if report["delivered"] < records * 0.99:  # some of the demo's rows are made to be refused
            raise Failed(f"{name}: {report}")
        with urllib.request.urlopen(f"{url}/_sandbox/state") as answer:
            log = json.load(answer)["requests"]
    log = [item for item in log if f"{item['method']} {item['path']}".startswith(_SHOWN[name])]
    return _used(simulated.name, rate, records, log)


def _prepared(project: Path, sample: Sample, url: str) -> tuple[Rate, int]:
    """Writes a project with the one sync; gives the limit that holds it up, and how many records were made."""
    create_product_database(project / "product.db")
    write_project(project, sample, url)
    (project / "syncs" / "scores.yml").unlink()
    with load(project) as loaded:
        spec = loaded.workspace.destination_class("crm").spec
    short = [rate for rate in spec.limits if not rate.endpoint and rate.per < 3_600]
    rate = min(short, key=lambda rate: rate.count / rate.per)
    windows = max(_WINDOWS, math.ceil(_SECONDS / rate.per)) + 0.2
    windows *= _OF_JOBS.get(sample.type, 1)
    records = int(rate.count * max(limits.records for limits in spec.batch.values()) * windows)
    build(project / "warehouse.duckdb", records)
    return rate, records


def _used(name: str, rate: Rate, records: int, log: list[dict[str, Any]]) -> Used:
    began = min(item["at"] for item in log if item["records"])
    times = sorted(item["at"] for item in log if item["at"] >= began)
    whole = max(int((times[-1] - began) // rate.per), 1)
    counted = sum(at < began + whole * rate.per for at in times)
    most, low = 0, 0
    for high, at in enumerate(times):
        while times[low] <= at - rate.per:
            low += 1
        most = max(most, high - low + 1)
    throttled = sum(item["status"] == 429 for item in log)
    return Used(name, rate, records, times[-1] - began, counted / (whole * rate.count), most, throttled)


@contextmanager
def served(name: str) -> Iterator[str]:
    """The simulation, in a process of its own."""
    process = subprocess.Popen(
        [BACKHAUL, "sandbox", name, "--port", "0"],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        if found is None:
            raise Failed(f"the simulated {name} did not start")
        switches = json.dumps({"latency": LATENCY}).encode()
        urllib.request.urlopen(f"{found[0]}/_sandbox/faults", switches).close()
        yield found[0]
    finally:
        process.terminate()
        process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limits", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one of {', '.join(_SHOWN)}; all where none is given"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this file")
    given = parser.parse_args()
    lines = []
    for name in given.names or _SHOWN:
        lines.append(measured(name).line)
        print(lines[-1], file=sys.stderr, flush=True)
    text = _HEAD + "\n".join(lines) + "\n"
    print(text)
    if given.write:
        replace(given.write, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
