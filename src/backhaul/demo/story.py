"""The demo's steps: every one but the making of its data is a real `backhaul` command in a real project."""

from __future__ import annotations

import json as json_text
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from backhaul.demo.files import create_product_database, write_project
from backhaul.demo.warehouse import build, change
from backhaul.destinations.kit import Destination
from backhaul.errors import RunError, UsageError
from backhaul.project import load
from backhaul.sandbox.kit import Sample, Sandbox, simulation
from backhaul.types import Op

_START = 20.0
"""Seconds that the simulated CRM may take to come up."""
_EXPECTED = (0, 3)
"""A run that ends with rejected records is what the demo is about."""


def run(
    folder: Path | None = None, *, destination: str = "hubspot", json: bool = False, quiet: bool = False, rows: int | None = None,
) -> int:  # fmt: skip
    """Runs the demo in a folder (default: a new temporary one) with a simulated `destination`. `rows`: accounts in the
    warehouse, by default as many as the destination's limits take in half a minute. Returns 0 when every step ended as told.

    Raises:
        UsageError: the folder is not empty; there is no such simulation.
        RunError: a step failed.
    """
    simulated = simulation(destination)
    sample = simulated.sample
    if sample is None:
        raise UsageError(
            f"the demo cannot show {destination}", hint=f"`backhaul sandbox {destination}` serves it"
        )
    folder = Path(tempfile.mkdtemp(prefix="backhaul-demo-")) if folder is None else folder.absolute()
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty", hint="give the demo a folder of its own")
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with _remote(folder, destination) as url:
        story = Story(folder, simulated, sample, rows or sample.rows, url, loud=not (json or quiet))
        story.prepare()
        story.first_sync()
        story.a_day_later()
        story.look_back()
        told = story.end(time.monotonic() - began)
    if json:
        seconds = round(time.monotonic() - began, 1)
        sys.stdout.write(json_text.dumps({"folder": str(folder), "seconds": seconds, "steps": told}) + "\n")
    return 0


class Story:
    """Tells and does one step after the other."""

    def __init__(
        self, folder: Path, simulated: type[Sandbox], sample: Sample, rows: int, url: str, *, loud: bool
    ) -> None:
        self.folder, self.rows, self.url, self.loud = folder, rows, url, loud
        self.name, self.sample = simulated.name, sample
        self.steps: list[dict[str, object]] = []
        from rich.console import Console

        self.console = Console(highlight=False, quiet=not loud, soft_wrap=True)

    def tell(self, title: str, text: str = "") -> None:
        self.console.print(f"\n[bold cyan]{title}[/]")
        if text:
            self.console.print(text)

    def do(self, *command: str, expected: Sequence[int] = (0,)) -> None:
        """Runs `backhaul COMMAND` in the project, as a user would see it."""
        self.console.print(f"[dim]$[/] [bold]backhaul {' '.join(command)}[/]")
        if self.loud:
            sys.stdout.flush()
        output = None if self.loud else subprocess.DEVNULL
        ended = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "backhaul", *command], cwd=self.folder, stdout=output, check=False
        )
        self.steps.append({"command": f"backhaul {' '.join(command)}", "exit": ended.returncode})
        if ended.returncode not in expected:
            raise RunError(f"the demo's `backhaul {' '.join(command)}` ended with {ended.returncode}",
                           hint=f"its project is in {self.folder}")  # fmt: skip

    def prepare(self) -> None:
        self.tell(f"A company: {self.rows:,} accounts and their contacts, modelled in a DuckDB warehouse.",
                  "Some rows are dirty, as rows are: a malformed e-mail, a missing one, one used twice, "
                  "a job title of 70,000 letters.")  # fmt: skip
        build(self.folder / "warehouse.duckdb", self.rows)
        write_project(self.folder, self.sample, self.url)
        create_product_database(self.folder / "product.db")
        self.tell(
            f"Two syncs: contacts to {self.name} (simulated, with its real limits), scores to the product's own database."
        )
        self.do("check")

    def first_sync(self) -> None:
        self.tell(f"First sync. {self._limits()}; nothing is sent twice or too fast.")
        self.do("run", expected=_EXPECTED)

    def a_day_later(self) -> None:
        self.tell(
            "A day later 1% of the accounts changed, three left, and someone mended one e-mail. What would a run do?"
        )
        change(self.folder / "warehouse.duckdb")
        self.do("plan")
        self.tell("Only that is sent.")
        self.do("run", expected=_EXPECTED)

    def look_back(self) -> None:
        self.tell(
            "Nothing is lost: what was refused is kept, with its reason, and is sent again when its row changes."
        )
        self.do("dead-letters", "list")
        if self._kind().read is not Destination.read:
            self.tell(f"Does {self.name} hold what it acknowledged? Read back, and compare.")
            self.do("verify", "contacts", "--sample", "50")
        self.do("status")

    def _kind(self) -> type[Destination[Any]]:
        with load(self.folder) as project:
            return project.workspace.destination_class("crm")

    def _limits(self) -> str:
        """What the destination takes of such a sync, in words."""
        with load(self.folder) as project:
            destination = project.workspace.undelivering("crm")
        limits = destination.batch_limits(self.sample.object, Op(self.sample.mode), self.rows)
        records = f"{limits.records:,} records" if limits and limits.records > 1 else "one record"
        said = f"{self.name} takes {records} at a time"
        short = [rate for rate in destination.limits if rate.per <= 60 and not rate.endpoint]
        if not short:
            return said
        per = "a second" if short[0].per == 1 else f"in {short[0].per:g} seconds"
        requests = "one request" if short[0].count == 1 else f"{short[0].count:,} requests"
        return f"{said} and {requests} {per}"

    def end(self, seconds: float) -> list[dict[str, object]]:
        self.tell(f"That was all, in {seconds:.0f} seconds. To look around:")
        for command, why in {
            f"cd {self.folder}": "the project: three YAML files and a model",
            "cat syncs/contacts.yml": "a sync",
            "backhaul records contacts --status rejected": "every record has a status",
            "backhaul runs": "every run has a report",
            "backhaul init my-project": "your own",
        }.items():
            self.console.print(f"  {command:<48} [dim]{why}[/]")
        self.console.print(
            f"[dim]  The simulated {self.name} ends with the demo; `backhaul sandbox {self.sample.type}` starts a new one.[/]\n"
        )
        return self.steps


@contextmanager
def _remote(folder: Path, name: str) -> Iterator[str]:
    """The simulated destination, in a process of its own."""
    log = folder / "sandbox.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "backhaul", "sandbox", name, "--port", "0"],
            stdout=output, stderr=subprocess.STDOUT, cwd=folder, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    try:
        yield _address(process, log)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text(errors="replace"))
        if found:
            return found[0]
        time.sleep(0.05)
    raise RunError("the simulated destination did not start", hint=f"see {log}")
