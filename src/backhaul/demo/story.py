"""The demo's steps: every one but the making of its data is a real `backhaul` command in a real project."""

from __future__ import annotations

import json as json_text
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from backhaul.demo.files import PROPERTIES, create_product_database, write_project
from backhaul.demo.warehouse import ACCOUNTS, build, change
from backhaul.errors import RunError, UsageError

_START = 20.0
"""Seconds that the simulated CRM may take to come up."""
_EXPECTED = (0, 3)
"""A run that ends with rejected records is what the demo is about."""


def run(
    folder: Path | None = None, *, json: bool = False, quiet: bool = False, accounts: int = ACCOUNTS
) -> int:
    """Runs the demo in a folder (default: a new temporary one). Returns 0 when every step ended as told.

    Raises:
        UsageError: the folder is not empty.
        RunError: a step failed.
    """
    folder = Path(tempfile.mkdtemp(prefix="backhaul-demo-")) if folder is None else folder.absolute()
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty", hint="give the demo a folder of its own")
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with _crm(folder) as url:
        story = Story(folder, url, loud=not (json or quiet))
        story.prepare(accounts)
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

    def __init__(self, folder: Path, crm: str, *, loud: bool) -> None:
        self.folder, self.crm, self.loud = folder, crm, loud
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

    def prepare(self, accounts: int) -> None:
        self.tell(f"A company: {accounts:,} accounts and their contacts, modelled in a DuckDB warehouse.",
                  "Some rows are dirty, as rows are: a malformed e-mail, a missing one, one used twice, "
                  "a job title of 70,000 letters.")  # fmt: skip
        build(self.folder / "warehouse.duckdb", accounts)
        write_project(self.folder, self.crm)
        create_product_database(self.folder / "product.db")
        for name, (kind, widget, options) in PROPERTIES.items():
            _post(f"{self.crm}/crm/v3/properties/contacts", {
                "name": name, "label": name, "type": kind, "fieldType": widget, "groupName": "contactinformation",
                "options": [{"label": option.title(), "value": option} for option in options],
            })  # fmt: skip
        self.tell(
            "Two syncs: contacts to a CRM (HubSpot, simulated with its real limits), scores to the product's own database."
        )
        self.do("check")

    def first_sync(self) -> None:
        self.tell(
            "First sync. The CRM takes 100 records a request and 100 requests in 10 seconds; nothing is sent twice or too fast."
        )
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
        self.tell("Does the CRM hold what it acknowledged? Read back, and compare.")
        self.do("verify", "contacts", "--sample", "50")
        self.do("status")

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
            "[dim]  The simulated CRM ends with the demo; `backhaul sandbox hubspot` starts a new one.[/]\n"
        )
        return self.steps


@contextmanager
def _crm(folder: Path) -> Iterator[str]:
    """The simulated CRM, in a process of its own."""
    log = folder / "sandbox.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "backhaul", "sandbox", "hubspot", "--port", "0"],
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
    raise RunError("the simulated CRM did not start", hint=f"see {log}")


def _post(url: str, body: object) -> None:
    request = urllib.request.Request(  # noqa: S310 - 127.0.0.1
        url,
        json_text.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": "Bearer local-sandbox-token"},
    )
    with urllib.request.urlopen(request, timeout=10):  # noqa: S310
        return
