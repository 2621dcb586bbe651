"""The torture test sees what it is there for: a promise that is broken is counted, named, and ends with exit code 1."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from tests.waiting import HANGS
from torture.arena import Arena
from torture.figures import Figures
from torture.processes import server
from torture.witness import Witness

from backhaul.testing.serving import serving
from backhaul.testing.sink import Faults

ROOT = Path(__file__).parents[2]


def send(url: str, *records: dict[str, object], path: str = "/upsert", key: str = "k") -> None:
    body = json.dumps({"records": records}).encode()
    request = urllib.request.Request(url + path, body, {"Idempotency-Key": key}, method="POST")  # noqa: S310 - 127.0.0.1
    with urllib.request.urlopen(request, timeout=10):  # noqa: S310 - 127.0.0.1
        pass


def test_a_needless_repeat_is_seen_and_a_needed_one_is_not() -> None:
    witness = Witness()
    with serving(witness.app()) as url:
        send(url, {"id": 1, "v": 1}, {"id": 2, "v": 1})
        send(url, {"id": 1, "v": 2})
        assert witness.needless == []
        witness.excuse(["2"])
        send(url, {"id": 2, "v": 1})
        assert witness.needless == []
        send(url, {"id": 1, "v": 2})
    assert witness.needless == ["1"]


def test_a_second_create_is_seen_and_an_idempotent_one_is_none() -> None:
    witness = Witness(appends=True)
    with serving(witness.app()) as url:
        send(url, {"id": 1}, path="/insert", key="a")
        send(url, {"id": 1}, path="/insert", key="a")
        assert witness.creates == {"1": 1}
        send(url, {"id": 1}, path="/insert", key="b")
    assert witness.creates == {"1": 2}


@pytest.fixture
def arena(tmp_path: Path) -> Arena:
    witness = Witness()
    arena = Arena("test", tmp_path / "a", server(), random.Random(1), Figures(), witness, {"type": "none"})
    arena.build()
    witness.records |= arena.model()
    return arena


def test_a_lost_record_is_a_violation(arena: Arena) -> None:
    arena.judge()
    assert arena.figures.violations == []
    assert arena.witness is not None
    del arena.witness.records["7"]
    arena.judge()
    assert arena.figures.lost == 1
    assert arena.figures.violations == ["test: 1 records differ from the model: 7"]


def test_a_refused_record_is_not_lost(arena: Arena) -> None:
    assert arena.witness is not None
    arena.witness.faults = Faults(refuse_key="7")
    del arena.witness.records["7"]
    arena.judge()
    assert arena.figures.lost == 0


def test_the_shortest_torture(tmp_path: Path) -> None:
    words = ["--kills", "2", "--only", "storm", "--seed", "1", "--dir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "torture", *words], cwd=ROOT, capture_output=True, text=True, timeout=HANGS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every promise kept: 2 kills" in done.stdout
    assert list(tmp_path.iterdir()) == []
