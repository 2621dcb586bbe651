"""The nearest rival, drt-core, on the same table and the same sink: its own virtual environment, project and profile."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Failed, Took, timed

PACKAGE = "drt-core[duckdb]==1.2.1"
NAME = "drt-core 1.2.1"
_TEMPLATE = '{"records": {{ rows | tojson_safe }}}'


@dataclass(frozen=True)
class Drt:
    """A project of drt: one full sync of `customers` in requests of 100 records, without a limit that it could feel.

    Its `batch_size` is not that of a request: drt opens a client for each batch, so that one of 100 costs a connection for
    every request. With 10,000 and `max_records_per_request: 100` it keeps the connection.
    """

    folder: Path

    def prepare(self, source: Path, url: str) -> None:
        """Installs it and writes its files. Raises: Failed without a package index."""
        environment = self.folder / "venv"
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        install = [str(environment / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", PACKAGE]
        if subprocess.run(install).returncode:
            raise Failed(f"{PACKAGE} could not be installed")
        self._write("drt_project.yml", {"name": "bench", "version": "0.1", "profile": "bench"})
        self._write(".drt/profiles.yml", {"bench": {"type": "duckdb", "database": str(source)}})
        destination = {
            "type": "rest_api",
            "url": f"{url}/upsert",
            "method": "POST",
            "body_mode": "batch",
            "batch_template": _TEMPLATE,
            "max_records_per_request": 100,
        }
        options = {"mode": "full", "batch_size": 10_000, "rate_limit": {"requests_per_second": 100_000}}
        sync = {
            "name": "customers",
            "model": "select * from customers",
            "destination": destination,
            "sync": options,
        }
        self._write("syncs/customers.yml", sync)

    def _write(self, name: str, content: Mapping[str, object]) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))

    def runs(self, count: int) -> Iterator[Took]:
        """Full syncs, each a process of its own."""
        drt = str(self.folder / "venv" / "bin" / "drt")
        for _ in range(count):
            yield timed("env", "-C", str(self.folder), f"HOME={self.folder}", drt, "run")
