"""Runs the command line as a user does, in a process of its own or, where that is enough, in this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from backhaul.cli import main

_TERMINAL = ("COLUMNS", "FORCE_COLOR", "NO_COLOR")
START = [sys.executable, "-c", "from backhaul.cli import main; main()"]


@dataclass(frozen=True)
class Said:
    """What one call printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Call = Callable[..., Said]


def environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _TERMINAL}
    return {**kept, **variables}


@pytest.fixture
def process(tmp_path: Path) -> Call:
    """`process("run", "--json", cwd=…)`: the real program."""

    def call(*words: str, cwd: Path = tmp_path, stdin: str = "", **variables: str) -> Said:
        done = subprocess.run(
            [*START, *words],
            cwd=cwd,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment(**variables),
        )
        return Said(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Call]:
    """`call("plan")` in this process, in the folder tmp_path."""
    monkeypatch.chdir(tmp_path)
    for name in _TERMINAL:
        monkeypatch.delenv(name, raising=False)

    def run(*words: str, stdin: str = "") -> Said:
        done = CliRunner().invoke(main, list(words), input=stdin, prog_name="backhaul")
        return Said(done.exit_code, done.stdout, done.stderr)

    yield run
