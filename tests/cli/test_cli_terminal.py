"""What only happens on a terminal: questions, progress and colours."""

from __future__ import annotations

import os
import pty
import re
import signal
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from cli_program import START, Call, environment
from tests.waiting import HANGS, until

from backhaul.cli.wrapping import wrap
from backhaul.testing.duckdb_file import opened


@pytest.fixture
def shop(tmp_path: Path, process: Call) -> Path:
    assert process("init", "shop", "--yes").code == 0
    return tmp_path / "shop"


def read_all(terminal: int) -> str:
    said = b""
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:
            return said.decode()
        if not part:
            return said.decode()
        said += part


def on_a_terminal(
    folder: Path, *words: str, answer: str = "", piped: bool = False, width: int = 100, **variables: str
) -> tuple[int, str, str]:
    """(exit code, what the terminal showed, what went into a pipe in place of the terminal's stdout)."""
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        [*START, *words],
        cwd=folder,
        stdin=theirs,
        stderr=theirs,
        stdout=subprocess.PIPE if piped else theirs,
        env=environment(TERM="xterm", COLUMNS=str(width), **variables),
    )
    os.close(theirs)
    os.write(ours, answer.encode())
    shown = read_all(ours)
    out = running.communicate(timeout=HANGS)[0]
    os.close(ours)
    return running.returncode, shown, (out or b"").decode()


def test_reset_asks(shop: Path, process: Call) -> None:
    assert process("run", cwd=shop).code == 0
    code, shown, _ = on_a_terminal(shop, "reset", "customers", answer="n\n")
    assert code != 0
    assert "Forget what was acknowledged of customers?" in shown
    assert "nothing to send: " in process("plan", cwd=shop).out
    code, shown, _ = on_a_terminal(shop, "reset", "customers", answer="y\n")
    assert code == 0
    assert "the values of 1,000 records are forgotten" in shown


def test_progress_is_on_the_terminal_and_never_in_the_pipe(shop: Path) -> None:
    code, shown, out = on_a_terminal(shop, "run", piped=True)
    assert code == 0
    assert "reading the model" in shown
    assert out.startswith("customers  succeeded  1,000 changed")
    assert "\x1b" not in out
    for option in ("--quiet", "--json"):
        assert on_a_terminal(shop, "run", option, piped=True)[1] == ""


def test_colours_on_a_terminal_and_as_the_environment_says(shop: Path, process: Call) -> None:
    assert "\x1b[32m+ 1,000 create" in on_a_terminal(shop, "plan")[1]
    assert "\x1b" not in process("plan", cwd=shop).out
    assert "\x1b[32m+ 1,000 create" in process("plan", cwd=shop, FORCE_COLOR="1").out
    assert "\x1b[31m" in process("plan", "nope", cwd=shop, FORCE_COLOR="1").err


@pytest.fixture
def office(tmp_path: Path) -> Path:
    """Two syncs into SQLite: `people`, of which 16 are refused for two reasons and 120 were delivered before, and `teams`."""
    folder = tmp_path / "office"
    (folder / "syncs").mkdir(parents=True)
    with opened(folder / "w.duckdb") as warehouse:
        warehouse.execute(
            "CREATE TABLE people AS SELECT i AS id, concat('someone.with.a.long.name.', i, '@example.com') AS email, "
            "'Head of Operations' AS title FROM range(1200) t(i)"
        )
        warehouse.execute(
            "CREATE TABLE teams AS SELECT i AS id, concat('Team ', i) AS name FROM range(3000) t(i)"
        )
    with sqlite3.connect(folder / "app.db") as app:
        app.execute(
            "CREATE TABLE people (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, job_title VARCHAR(20))"
        )
        app.execute("CREATE TABLE teams (id INTEGER PRIMARY KEY, name TEXT)")
    (folder / "backhaul.yml").write_text(
        "project: office\nwarehouses: {main: {type: duckdb, path: w.duckdb}}\n"
        "destinations: {app: {type: sqlite, path: app.db}}\n"
    )
    for name, key, fields in (("people", "email", "job_title: title"), ("teams", "id", "name: name")):
        (folder / "syncs" / f"{name}.yml").write_text(
            f"name: {name}\nmodel: {{table: {name}, primary_key: id}}\ndestination: app\nobject: {name}\nmode: mirror\n"
            f"identify: {{{key}: {key}}}\nfields: {{{fields}}}\n"
        )
    return folder


def spoil(folder: Path) -> None:
    """Twelve rows get the e-mail of another one, four get none, and 300 of 1,200 leave: more than the guards allow."""
    with opened(folder / "w.duckdb") as warehouse:
        warehouse.execute("UPDATE people SET email = 'same@example.com' WHERE id < 12")
        warehouse.execute("UPDATE people SET email = NULL WHERE id BETWEEN 12 AND 15")
        warehouse.execute("UPDATE people SET title = concat('Head of ', id) WHERE id > 1000")
        warehouse.execute("DELETE FROM people WHERE id BETWEEN 500 AND 799")


def plain(shown: str) -> list[str]:
    """The lines of a terminal, without colours and redrawn progress."""
    return [
        re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rpartition("\r")[2]
        for line in shown.replace("\r\n", "\n").split("\n")
    ]


@pytest.mark.parametrize(("width", "colour"), [(80, False), (80, True), (100, True), (120, False)])
def test_results_are_readable_at_every_width(office: Path, process: Call, width: int, colour: bool) -> None:
    colours = {"FORCE_COLOR": "1"} if colour else {"NO_COLOR": "1"}

    def screen(*words: str) -> str:
        _, shown, _ = on_a_terminal(office, *words, width=width, **colours)
        lines = plain(shown)
        assert [line for line in lines if len(line) > width] == [], words
        assert colour or "\x1b[3" not in shown, words
        return " ".join(" ".join(lines).split())

    first = screen("run")
    assert "people succeeded 1,200 changed: 1,200 created · 1,200 delivered" in first
    assert "total 2 syncs: 2 succeeded · 4,200 delivered" in first
    spoil(office)
    plan = screen("plan", "people")
    assert "! 12 × email: another record of the model has the same email (0, 1, 2, …)" in plan
    assert "! 4 × email: an identifier must not be null, empty or blank (12, 13, 14, …)" in plan
    assert "max_deletes tripped" in plan
    assert "a run would be held (max_deletes tripped) until you deliver this plan" in plan
    assert "'Head of Operations' → 'Head of 1001'" in plan, "no value is cut where there is room"
    plan_id = re.search(r"--plan (p-\S+)", plan)
    assert plan_id is not None
    assert "held" in screen("run", "people")
    done = screen("run", "people", "--plan", plan_id[1])
    assert "16 rejected (16 before sending)" in done
    assert "12 × duplicate email: another record of the model has the same email" in done
    status = screen("status")
    assert "16 rejected" in status
    assert "people: refused in the last run" in status
    assert "16 rejected" in screen("runs", "people")
    listed = screen("dead-letters", "list")
    assert "12 records app (people) duplicate email" in listed
    assert "another record of the model has the same email" in screen("dead-letters", "list", "--all")
    assert "acknowledged" in screen("why", "people", "1100")
    assert "read back" in screen("verify", "people")
    assert "next: backhaul plan" in screen("check")


def test_long_lines_break_between_words() -> None:
    text = "  to do    shorten the value in the model, or widen the field: backhaul dead-letters list --sync people"
    assert wrap(text, 44).split("\n") == [
        "  to do    shorten the value in the model,",
        "           or widen the field: backhaul",
        "           dead-letters list --sync people",
    ]
    assert wrap(text, 56).split("\n")[-1] == "           backhaul dead-letters list --sync people"
    assert wrap(text, None) == text
    assert wrap("a" * 50, 20) == "a" * 50


def test_ctrl_c_ends_a_plan_at_once(shop: Path) -> None:
    with opened(shop / "warehouse.duckdb") as warehouse:
        columns = "i AS id, md5(i::VARCHAR) AS email, '' AS name, '' AS plan, 0 AS mrr, 0 AS health, NULL AS updated_at"
        warehouse.execute("DROP TABLE customers")
        warehouse.execute(f"CREATE VIEW customers AS SELECT {columns} FROM range(100000000) t(i)")
    with subprocess.Popen(
        [*START, "plan"],
        cwd=shop,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as running:
        until(lambda: list(shop.glob(".backhaul/spill-*")), running)
        time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=HANGS)
    assert (running.returncode, out, err.strip()) == (130, "", "error: stopped")
    assert list(shop.glob(".backhaul/spill-*")) == []


def test_a_sandbox_serves_until_it_is_stopped(tmp_path: Path, process: Call) -> None:
    with subprocess.Popen(
        [*START, "sandbox", "hubspot", "--port", "0"], stdout=subprocess.PIPE, text=True, env=environment()
    ) as running:
        assert running.stdout is not None
        address = running.stdout.readline().split(" at ")[1].split()[0]
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address, timeout=10) as page:  # noqa: S310 - 127.0.0.1
            assert page.status == 200
        taken = process("sandbox", "hubspot", "--port", address.rpartition(":")[2])
        running.send_signal(signal.SIGTERM)
        assert running.wait(HANGS) == 0
    assert (taken.code, taken.out) == (2, "")
    assert taken.err.startswith("error: port ")
    unknown = process("sandbox", "lotus-notes")
    assert unknown.code == 2
    assert unknown.err.startswith("error: there is no simulated lotus-notes\n  there is ")
    assert "hubspot" in unknown.err


def test_a_sandbox_takes_the_token_and_the_faults_of_its_options(process: Call) -> None:
    options = ["--token", "right", "--fault", "error=1", "--fault", "shuffle=true", "--fault", "refuse_key=7"]
    with subprocess.Popen(
        [*START, "sandbox", "hubspot", "--port", "0", *options],
        stdout=subprocess.PIPE, text=True, env=environment(),
    ) as running:  # fmt: skip
        assert running.stdout is not None
        address = running.stdout.readline().split(" at ")[1].split()[0]
        statuses = []
        for token, path, body in (
            ("wrong", "contacts", None),
            ("right", "contacts", None),
            ("right", "contacts", b"{}"),
        ):
            asked = urllib.request.Request(  # noqa: S310 - 127.0.0.1
                f"{address}/crm/v3/objects/{path}", body, {"Authorization": f"Bearer {token}"}
            )
            try:
                with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310
                    statuses.append(answer.status)
            except urllib.error.HTTPError as error:
                statuses.append(error.code)
        running.send_signal(signal.SIGTERM)
        assert running.wait(HANGS) == 0
    assert statuses == [401, 200, 500]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["hubspot", "--fault", "eror=1"], "error: --fault: no such fault: eror; there are "),
        (["hubspot", "--fault", "error=often"], "error: --fault: error takes a number, not 'often'"),
        (["hubspot", "--fault", "error"], "error: --fault: 'error' is not NAME=VALUE"),
        (
            ["salesforce", "--token", "x"],
            "error: the simulated salesforce has no single token",
        ),
    ],
)
def test_options_of_a_sandbox_that_make_no_sense(process: Call, options: list[str], line: str) -> None:
    told = process("sandbox", "--port", "0", *options)
    assert told.code == 2
    assert told.err.startswith(line)
