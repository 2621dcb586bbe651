"""What the command line understands, and how it helps."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from cli_program import Call
from tests.waiting import HANGS

from backhaul.cli import Backhaul, main
from backhaul.cli.session import Session, pass_session

COMMANDS = ["demo", "init", "check", "plan", "run", "undo", "settle", "status", "runs", "records", "why", "dead-letters", "verify", "schema-changes",
            "baseline", "reset", "bind", "rename", "forget", "state", "sandbox", "schema", "completion"]  # fmt: skip


def every_command(group: click.Group = main, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))


def test_help_lists_every_command_in_the_order_of_work(call: Call) -> None:
    said = call("--help")
    listed = re.findall(r"^  ([a-z-]+)  +\S", said.out[said.out.index("Start:") :], re.MULTILINE)
    assert (said.code, listed) == (0, COMMANDS)
    assert "..." not in said.out[said.out.index("Start:") :]


@pytest.mark.parametrize("path", list(every_command()), ids=" ".join)
def test_every_command_teaches_by_example(call: Call, path: tuple[str, ...]) -> None:
    said = call(*path, "--help")
    assert said.code == 0
    assert re.search(rf"^  Examples?:\n    backhaul {path[0]}", said.out, re.MULTILINE)
    for option in ("--project", "--json", "--quiet", "--verbose"):
        assert option in said.out


def test_help_is_quick_because_it_loads_nothing_heavy() -> None:
    code = (
        "import json, sys\nfrom backhaul.cli import main\nsys.argv = ['backhaul', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=HANGS
    )
    loaded = json.loads(done.stdout.splitlines()[-1])
    heavy = {"duckdb", "pyarrow", "pydantic", "aiohttp", "rich", "sqlglot", "orjson", "asyncio", "yaml"}
    assert heavy.intersection(loaded) == set()


def test_without_a_command_it_shows_the_help_and_fails(call: Call) -> None:
    said = call()
    assert (said.code, said.out) == (2, "")
    assert "Deliver:" in said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rnu"], "there is no command `rnu`; did you mean `run`?"),
        (["dead-letter"], "there is no command `dead-letter`; did you mean `dead-letters`?"),
        (["dead-letters", "lits"], "there is no command `lits`; did you mean `list`?"),
        (["xyzzy"], "there is no command `xyzzy`"),
        (["run", "--limit", "0"], "0 is not in the range"),
        (["run", "--limit", "ten"], "'ten' is not a valid integer"),
        (["verify"], "Missing argument"),
        (["records", "x", "--status", "lost"], "'lost' is not one of"),
        (["plan", "--nope"], "No such option"),
        (["--project", "/no/such/folder", "plan"], "does not exist"),
        (["completion", "tcsh"], "'tcsh' is not one of"),
    ],
)
def test_a_wrong_command_is_one_line_and_a_hint(call: Call, words: list[str], message: str) -> None:
    said = call(*words)
    lines = said.err.splitlines()
    assert (said.code, said.out, len(lines)) == (2, "", 2)
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert lines[1].startswith("  see `backhaul ")
    as_json = call(*words, "--json") if "completion" not in words else call("--json", *words)
    assert (as_json.code, as_json.err) == (2, "")
    assert message in as_json.json["error"]["message"]


@pytest.mark.parametrize(
    "words",
    [
        ["--json", "--quiet", "--verbose", "--project", ".", "tell"],
        ["tell", "--project", ".", "--json", "--quiet", "--verbose"],
        ["--json", "tell", "--verbose", "--project", ".", "--quiet"],
    ],
)
def test_shared_options_stand_before_or_after_the_command(words: list[str]) -> None:
    seen: list[Session] = []
    group = Backhaul("backhaul")

    @group.command()
    @pass_session
    def tell(session: Session) -> None:
        seen.append(session)

    with pytest.raises(SystemExit) as ended:
        group.main(words)
    assert ended.value.code == 0
    (session,) = seen
    assert (session.project_folder, session.json, session.quiet, session.verbose) == (
        Path(),
        True,
        True,
        True,
    )


def boom() -> Backhaul:
    group = Backhaul("backhaul")

    @group.command()
    def fail() -> None:
        raise ZeroDivisionError("by\x1b[31m nothing\nsecond line")

    return group


@pytest.mark.parametrize("verbose", [False, True])
def test_an_unexpected_error_is_one_line(capsys: pytest.CaptureFixture[str], verbose: bool) -> None:
    with pytest.raises(SystemExit) as ended:
        boom().main(["fail", *(["--verbose"] if verbose else [])])
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (1, "")
    assert ("Traceback" in err) is verbose
    assert err.splitlines()[-1].startswith("unexpected error: ZeroDivisionError: by\\x1b[31m nothing")
    assert ("run again with --verbose" in err) is not verbose


def test_an_unexpected_error_is_json_where_json_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        boom().main(["--json", "fail"])
    out, err = capsys.readouterr()
    assert (ended.value.code, err) == (1, "")
    assert "ZeroDivisionError" in json.loads(out)["error"]["message"]


def test_version(call: Call) -> None:
    from backhaul import __version__

    said = call("--version")
    assert (said.code, said.out) == (0, f"backhaul {__version__}\n")
