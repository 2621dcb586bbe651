"""`backhaul` in processes of its own: the same command line, forked from a server that has imported it already."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

_PRELOAD = [
    "torture.processes",
    "backhaul.cli",
    "backhaul.project",
    "backhaul.runs.run",
    "backhaul.destinations.http",
    "pyarrow.parquet",
    "psycopg",
]


def command(root: str, words: list[str]) -> None:
    """What the process does: one command, its output added to the project's log."""
    log = os.open(Path(root) / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever tortures decides when this one ends
    from backhaul.cli import main

    sys.argv = ["backhaul", *words, "--project", root]
    main(sys.argv[1:])


def server() -> ForkServerContext:
    """Where processes are forked from."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    return context


class Command:
    """One command that is running."""

    def __init__(self, context: ForkServerContext, root: Path, *words: str) -> None:
        self._process: ForkServerProcess = context.Process(target=command, args=(str(root), list(words)))
        self._process.start()

    @property
    def running(self) -> bool:
        return self._process.is_alive()

    def wait(self, seconds: float) -> int | None:
        """Its exit code; None where it still runs."""
        self._process.join(seconds)
        return self._process.exitcode

    def kill(self) -> bool:
        """kill -9. Whether it was still running."""
        self._process.kill()
        self._process.join(10)
        return self._process.exitcode == -signal.SIGKILL

    def stop(self) -> None:
        """SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process.is_alive() and self._process.pid:
            os.kill(self._process.pid, number)


def idle(seconds: float) -> None:
    """Lets time pass."""
    time.sleep(max(seconds, 0.0))
