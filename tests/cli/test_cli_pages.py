"""The pages that a new user copies from: their blocks run as printed, one after the other, in an empty folder."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import pytest
from cli_program import environment

from backhaul.sandbox.kit import Faults

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"```(sh|yaml)\n(.*?)```", re.DOTALL)
_FOLDER = re.compile(r"\B/tmp/\w+")
"""Where a page makes its project."""
_SET_UP = "scripts/setup && . .venv/bin/activate\n"
"""The tests' own environment takes its place."""


def blocks(page: str, heading: str) -> list[tuple[str, str]]:
    """(language, text) of each block in a section, which ends at the next heading of its level."""
    section = (ROOT / page).read_text(encoding="utf-8").split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return _BLOCK.findall(section)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def variables() -> dict[str, str]:
    return environment(
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", PYTHONUNBUFFERED="1"
    )


def shell(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", text], cwd=folder, env=variables(), capture_output=True, text=True, check=False)  # fmt: skip


@contextmanager
def serving(command: str, folder: Path) -> Iterator[None]:
    """What a page tells you to leave running in another terminal."""
    process = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=folder, env=variables(), stdout=subprocess.PIPE, text=True)  # fmt: skip
    try:
        assert process.stdout is not None
        assert "sandbox at http" in process.stdout.readline()
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate()


def write_file(text: str, folder: Path) -> None:
    """A YAML block stands under the name in its first line."""
    path = folder / text.splitlines()[0].removeprefix("# ")
    path.write_text(text)


def ends(commands: str, folder: Path) -> dict[str, tuple[int, str]]:
    """Each `backhaul` command of a block -> how it ended, and what it printed."""
    found = {}
    for line in commands.splitlines():
        done = shell(line, folder)
        found[line.split("  ")[0].strip()] = (done.returncode, done.stdout + done.stderr)
    return found


def test_the_readme(tmp_path: Path) -> None:
    port = str(free_port())
    parts = [
        (kind, _FOLDER.sub(str(tmp_path), text.replace("8100", port)))
        for kind, text in blocks("README.md", "A project")
    ]
    (_, first), (_, project), (_, sync), (_, sandbox), (_, commands) = parts
    assert first.startswith(_SET_UP)
    made = shell(first.removeprefix(_SET_UP), tmp_path)
    assert made.returncode == 0, made.stderr
    write_file(project, tmp_path)
    write_file(sync, tmp_path)
    with serving(sandbox.strip(), tmp_path):
        ended = ends(commands, tmp_path)
    assert {name: code for name, (code, _) in ended.items()} == {
        "backhaul check": 0,
        "backhaul plan": 0,
        "backhaul run": 3,
        "backhaul records contacts --status rejected": 0,
    }, ended
    assert "1,000 create" in ended["backhaul plan"][1]
    assert "999 delivered" in ended["backhaul run"][1]
    assert "1 rejected" in ended["backhaul run"][1]


def test_the_quickstart(tmp_path: Path) -> None:
    parts = [
        (kind, _FOLDER.sub(str(tmp_path), text))
        for page in ("A project of your own", "What became of every record")
        for kind, text in blocks("docs/quickstart.md", page)
    ]
    for kind, text in parts:
        if kind == "yaml":
            write_file(text, tmp_path)
            continue
        done = shell(f"set -e\n{text.removeprefix(_SET_UP)}", tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("fault", [item.name for item in fields(Faults)])
def test_the_quickstart_names_every_fault(fault: str) -> None:
    section = (ROOT / "docs/quickstart.md").read_text(encoding="utf-8").split("\n## Try failures\n", 1)[1]
    assert f"`{fault}`" in section.split("```")[2]
