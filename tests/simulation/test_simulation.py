"""The promises of the engine, held against a simulated destination, seed by seed (docs/simulation.md)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SEEDS = int(os.environ.get("SIMULATION_SEEDS", "300"))
"""Of many more in `make simulation`: these keep the gate short."""


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_no_seed_breaks_a_promise() -> None:
    """I1-I7, I9-I11, I13-I16, I18, I23, I28, I29, I31, I40: see witness.py and oracle.py for what each one means here."""
    done = simulate("--seeds", str(SEEDS), "--processes", "2")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def test_a_seed_is_the_same_each_time() -> None:
    first, second = simulate("12"), simulate("12")
    assert first.stdout == second.stdout
    assert first.stdout.count("->") > 3
