"""Shell completion: commands, options, and the names of syncs from file names alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_program import Call


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "syncs").mkdir()
    (tmp_path / "backhaul.yml").write_text("this: [is not read")
    for name in ("contacts", "companies", "scores"):
        (tmp_path / "syncs" / f"{name}.yml").write_text("")
    return tmp_path


def complete(process: Call, line: str, cwd: Path) -> list[str]:
    words = line.split(" ")
    said = process(
        cwd=cwd, _BACKHAUL_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1)
    )
    assert said.err == ""
    return [part.partition(",")[2] for part in said.out.splitlines() if part]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("backhaul dead", ["dead-letters"]),
        ("backhaul dead-letters re", ["replay"]),
        ("backhaul run --f", ["--full"]),
        ("backhaul run c", ["companies", "contacts"]),
        ("backhaul run contacts s", ["scores"]),
        ("backhaul verify sc", ["scores"]),
        ("backhaul records contacts --status un", ["unknown"]),
        ("backhaul dead-letters list --sync co", ["companies", "contacts"]),
    ],
)
def test_completes(process: Call, project: Path, line: str, offered: list[str]) -> None:
    assert complete(process, line, project) == offered


def test_completes_syncs_from_below_the_project_and_by_option(process: Call, project: Path) -> None:
    assert complete(process, "backhaul plan sc", project / "syncs") == ["scores"]
    assert complete(process, f"backhaul --project {project} plan sc", Path("/")) == ["scores"]
    assert complete(process, "backhaul plan sc", Path("/")) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_prints_a_script_for_each_shell(process: Call, shell: str) -> None:
    said = process("completion", shell)
    assert said.code == 0
    assert "_BACKHAUL_COMPLETE" in said.out
