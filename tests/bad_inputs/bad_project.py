"""A project that something is wrong with, the real command, and what must hold when it refuses."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from click.testing import CliRunner
from tests.waiting import HANGS

from backhaul.cli import main
from backhaul.testing.duckdb_file import opened
from backhaul.testing.sink import Sink

CANARY = "c4n4ry/Kx+w&Vq=7 z"
"""A secret whose URL-encoded and base64 forms differ from it."""
RESULTS = {"each": "results", "key": "id", "delivered": "status == 'ok'", "error": "error"}


def disguises(secret: str) -> list[str]:
    """The forms in which a secret may leak."""
    encoded = [base64.b64encode(part.encode()).decode() for part in (secret, f"Bearer {secret}")]
    return [
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        *encoded,
    ]


@dataclass(frozen=True)
class Said:
    """What one call printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class BadProject:
    """A project: a DuckDB table `t (id, name, v)` with three rows, synced to a sink whose token is the canary."""

    root: Path
    url: str
    sink: Sink
    warehouse: dict[str, Any] = field(default_factory=lambda: {"type": "duckdb", "path": "w.duckdb"})
    destination: dict[str, Any] = field(default_factory=dict)
    object: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=lambda: {"table": "t", "primary_key": "id"})
    sync: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=lambda: {"TOKEN": CANARY})
    _ledger: Path | None = None

    def write(self) -> BadProject:
        """Writes the files as the settings now are."""
        write = {"batch_size": 100, "results": RESULTS}
        user = {
            "key": "id",
            "upsert": {"request": "POST /upsert", "body": {"records": "$records"}, **write},
            "insert": {"request": "POST /insert", "body": {"records": "$records"}, **write},
            "delete": {"request": "POST /delete", "body": {"ids": "$keys"}, **write},
            **self.object,
        }
        api = {
            "type": "http",
            "base_url": self.url,
            "headers": {"Authorization": "Bearer ${TOKEN}"},
            "objects": {"user": user},
        }
        sync = {
            "name": "users", "model": {"warehouse": "main", **self.model}, "destination": "api", "object": "user",
            "identify": {"id": "id"}, "fields": {"name": "name", "v": "v"}, **self.sync,
        }  # fmt: skip
        destination = self.destination if "type" in self.destination else api | self.destination
        config = {
            "project": "bad",
            "warehouses": {"main": self.warehouse},
            "destinations": {"api": destination},
        }
        (self.root / "syncs").mkdir(exist_ok=True)
        (self.root / "backhaul.yml").write_text(json.dumps(config))  # JSON is YAML
        (self.root / "syncs" / "users.yml").write_text(json.dumps(sync, ensure_ascii=False))
        return self

    def sql(self, *statements: str) -> BadProject:
        with opened(self.root / "w.duckdb") as warehouse:
            for statement in statements:
                warehouse.execute(statement)
        return self

    @property
    def state(self) -> Path:
        return self.root / ".backhaul"

    @property
    def ledger(self) -> Path:
        if self._ledger is None:
            self._ledger = next((self.state / "ledgers").glob("*.duckdb"), None)
        return self._ledger or self.state / "ledgers" / "none"

    def call(self, *words: str) -> Said:
        """One command, in this process; the canary may be nowhere afterwards."""
        with _environment(self.environment):
            done = CliRunner().invoke(main, ["--project", str(self.root), *words], prog_name="backhaul")
        return self._clean(Said(done.exit_code, done.stdout, done.stderr))

    def process(self, *words: str, **options: Any) -> Said:
        """One command, in a process of its own."""
        with self.start(*words, **options) as running:
            out, err = running.communicate(timeout=HANGS)
        return self._clean(Said(running.returncode, out, err))

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "backhaul", "--project", str(self.root), *words]
        return subprocess.Popen(
            line,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | self.environment,
            **options,
        )

    def _clean(self, said: Said) -> Said:
        kept = [path.read_bytes() for path in self.state.rglob("*") if path.is_file()]
        places = [said.out.encode(), said.err.encode(), *kept]
        for disguise in disguises(CANARY):
            assert not any(disguise.encode() in place for place in places), f"the secret leaks as {disguise}"
        assert "Traceback" not in said.err + said.out
        assert "unexpected error" not in said.err + said.out, said.err
        assert "\x1b" not in said.err + said.out
        return said

    def runs(self) -> Said:
        """A run that has to deliver everything."""
        said = self.call("run")
        assert said.code == 0, said
        return said

    def refuses(self, code: int, *parts: str, words: tuple[str, ...] = ("run",)) -> Said:
        """The command ends with the code and says the parts in a line or two; nothing is sent, the ledger stays."""
        return self._refuses(code, parts, words)

    def fails(self, *parts: str) -> Said:
        """A run that has begun to send ends with exit 1; nothing is taken for delivered."""
        known = self.acknowledged()
        said = self._short(1, self.call("run"), parts)
        assert self.acknowledged() == known
        assert self.letters() == []
        return said

    def acknowledged(self) -> list[Any]:
        rows = map(json.loads, self.call("records", "users", "--json").out.splitlines())
        return [row for row in rows if row["status"] == "acknowledged"]

    def _refuses(self, code: int, parts: tuple[str, ...], words: tuple[str, ...]) -> Said:
        before = self.held()
        plain = self._short(code, self.call(*words), parts)
        full = self.call(*words, "--verbose", "--json")
        assert full.code == code, full
        json.loads(full.out)
        assert self.held() == before
        return plain

    def _short(self, code: int, said: Said, parts: tuple[str, ...]) -> Said:
        assert said.code == code, said
        lines = [line for line in said.err.splitlines() if line.strip()]
        assert 1 <= len(lines) <= 3, said.err
        assert max(map(len, lines)) < 400, said.err
        for part in parts:
            assert part in said.err, said.err
        return said

    def held(self) -> tuple[Any, ...]:
        """What the destination was sent and holds, and the bytes of the ledger."""
        ledger = hashlib.sha256(self.ledger.read_bytes()).hexdigest() if self.ledger.exists() else None
        return len(self.sink.seen), json.dumps(self.sink.records, sort_keys=True), ledger

    def letters(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("dead-letters", "list", "--json").json["dead_letters"]
        return found


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
