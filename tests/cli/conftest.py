"""Runs the command line as a user does, in a process of its own or, where that is enough, in this one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cli_program import START, TERMINAL, Call, Said, environment
from click.testing import CliRunner
from tests.waiting import HANGS

from backhaul.cli import main


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
            timeout=HANGS,
            check=False,
            env=environment(**variables),
        )
        return Said(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """`call("plan")` in this process, in the folder tmp_path."""
    monkeypatch.chdir(tmp_path)
    for name in TERMINAL:
        monkeypatch.delenv(name, raising=False)

    def run(*words: str, stdin: str = "") -> Said:
        done = CliRunner().invoke(main, list(words), input=stdin, prog_name="backhaul")
        return Said(done.exit_code, done.stdout, done.stderr)

    return run
