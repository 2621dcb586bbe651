"""`backhaul demo`, and what every simulation has for it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from cli_program import Call

from backhaul.demo.files import create_product_database, write_project
from backhaul.demo.warehouse import build
from backhaul.sandbox.kit import simulation
from backhaul.testing.serving import serving

SHOWN = [entry.name for entry in entry_points(group="backhaul.sandboxes") if simulation(entry.name).sample]
"""The one that needs fields of its own is shown whole."""
_WHOLE = "import sys; from pathlib import Path; from backhaul.demo import run; run(Path(sys.argv[1]), json=True, rows=300)"


def test_every_step_ends_as_told(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WHOLE, str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    steps = json.loads(done.stdout)["steps"]
    assert [step["command"].split()[1] for step in steps] == [
        "check", "run", "plan", "run", "dead-letters", "verify", "status",
    ]  # fmt: skip
    assert {step["exit"] for step in steps} <= {0, 3}
    assert (tmp_path / "demo" / ".env").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", sorted({*SHOWN} - {"hubspot"}))
def test_the_sample_fits_a_fresh_simulation(tmp_path: Path, call: Call, name: str) -> None:
    sandbox = simulation(name)()
    assert sandbox.sample is not None
    rows = min(150, sandbox.sample.rows // 5)
    with serving(sandbox.app()) as url:
        build(tmp_path / "warehouse.duckdb", rows)
        create_product_database(tmp_path / "product.db")
        write_project(tmp_path, sandbox.sample, url)
        done = call("run", "contacts", "--json")
    assert done.code in (0, 3), done.out + done.err
    assert done.json["runs"][0]["delivered"] >= rows * 0.9


def test_a_destination_that_cannot_be_shown(tmp_path: Path, call: Call) -> None:
    ended = call("demo", "--folder", "new", "--destination", "salesfrce")
    assert ended.code == 2
    assert "did you mean salesforce" in ended.err
    assert not (tmp_path / "new").exists()
