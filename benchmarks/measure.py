"""Child processes with their wall time and peak memory, the HTTP sink, and a throw-away PostgreSQL server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BACKHAUL = str(Path(sys.executable).parent / "backhaul")


class Failed(Exception):
    """A process that was to be measured did not do what it should; says what it said."""


@dataclass(frozen=True)
class Took:
    """One process from start to exit: seconds by the wall, peak resident memory in bytes, what it printed."""

    seconds: float
    peak: int
    output: str

    def json(self) -> Any:
        return json.loads(self.output)


def timed(*command: str) -> Took:
    """Runs a command to its end. This process stays small, because a child's peak counts what it was forked from."""
    began = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=_installed())
    assert child.stdout is not None
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise Failed(f"{' '.join(command)} ended with {child.returncode}: {output[-2000:]}")
    return Took(seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), output)


def _installed() -> dict[str, str]:
    """The environment, but for what would compile our modules anew in every process: an installed package is compiled."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def run_sync(project: Path, *command: str) -> tuple[Took, dict[str, Any]]:
    """`backhaul run --json` of a project with one sync: the process, and its RUN. `command`: in place of `backhaul`."""
    took = timed(*(command or (BACKHAUL,)), "run", "--project", str(project), "--json", "--quiet")
    report: dict[str, Any] = took.json()["runs"][0]
    if report["status"] != "succeeded":
        raise Failed(f"the run ended {report['status']}: {report['error']}")
    return took, report


def run_together(projects: list[Path]) -> None:
    """`backhaul run` of several projects at once, to their ends."""
    command = [BACKHAUL, "run", "--json", "--quiet", "--project"]
    children = [
        subprocess.Popen([*command, str(project)], stdout=subprocess.DEVNULL, env=_installed())
        for project in projects
    ]
    for child, project in zip(children, projects, strict=True):
        if child.wait():
            raise Failed(f"the run of {project.name} ended with {child.returncode}")


def bare(name: str, *arguments: object) -> tuple[Took, dict[str, Any]]:
    """One of the statements of benchmarks.bare, in a process of its own: the process, and what it reports."""
    took = timed(sys.executable, "-m", "benchmarks.bare", name, *map(str, arguments))
    return took, took.json()


def middle(values: list[Took]) -> tuple[float, int]:
    """Median seconds, highest peak."""
    return median(took.seconds for took in values), max(took.peak for took in values)


class Sink:
    """The HTTP sink in its own process."""

    def __init__(self, url: str) -> None:
        self.url = url

    def times(self) -> list[float]:
        """When each request came, in seconds."""
        with urllib.request.urlopen(f"{self.url}/times") as answer:
            return list(json.load(answer))

    def requests(self) -> int:
        with urllib.request.urlopen(f"{self.url}/count") as answer:
            return int(json.load(answer)["requests"])


@contextmanager
def sink() -> Iterator[Sink]:
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.sink"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert child.stdout is not None
        yield Sink(child.stdout.readline().strip())
    finally:
        child.terminate()
        child.wait()


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """The DSN of a PostgreSQL server with its usual durability."""
    script = ROOT / "scripts" / "postgres"
    folder.mkdir()
    started = subprocess.run([script, "start", folder], stdout=subprocess.PIPE, text=True)
    try:
        if started.returncode:
            raise Failed("PostgreSQL could not be started (scripts/postgres)")
        yield started.stdout.strip()
    finally:
        subprocess.run([script, "stop", folder], stdout=subprocess.DEVNULL)
