"""What only happens on a terminal: questions, progress and colours."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from cli_program import START, Call, environment
from tests.waiting import HANGS, until

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


def on_a_terminal(folder: Path, *words: str, answer: str = "", piped: bool = False) -> tuple[int, str, str]:
    """(exit code, what the terminal showed, what went into a pipe in place of the terminal's stdout)."""
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        [*START, *words],
        cwd=folder,
        stdin=theirs,
        stderr=theirs,
        stdout=subprocess.PIPE if piped else theirs,
        env=environment(TERM="xterm", COLUMNS="100"),
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
