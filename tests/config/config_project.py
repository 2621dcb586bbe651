"""A small project on disk, and connection types for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, ConfigDict

from backhaul.config import Project, load
from backhaul.config.plugins import Connector, Kind, Missing
from backhaul.destinations.kit import DestinationConfig, Secret
from backhaul.errors import Problem, UsageError

MAIN = """\
project: acme
warehouses:
  main: {type: duckdb, path: warehouse.duckdb}
destinations:
  crm: {type: hubspot, access_token: "${HUBSPOT_TOKEN}"}
"""
SYNC = """\
name: contacts
model: {table: customers, primary_key: id}
destination: crm
object: contacts
identify: {email: email}
fields:
  tier: upper(plan)
"""
ENVIRON = {"HUBSPOT_TOKEN": "pat-na1-canary-0001", "API_TOKEN": "api-canary-0002"}
ENVIRON |= {"WAREHOUSE_DSN": "postgresql://reader:wh%2Fcanary@db.example.com/wh"}
ENVIRON |= {"APP_DSN": "postgresql://app:appcanary@127.0.0.1/app"}


class HubSpotConfig(DestinationConfig):
    access_token: Secret
    """A private app's token."""


class PostgresConfig(DestinationConfig):
    dsn: Secret


class Write(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    request: str
    batch_size: int = 1
    body: dict[str, Any] | None = None
    results: dict[str, str] | None = None


class ApiObject(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    upsert: Write | None = None
    delete: Write | None = None


class HttpConfig(DestinationConfig):
    base_url: str
    headers: dict[str, Secret] | None = None
    idempotency_header: str | None = None
    objects: dict[str, ApiObject]


class DuckDBConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str


class WarehousePostgresConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    dsn: Secret


class Installed:
    """Connection types as a third party's packages would declare them."""

    types: ClassVar[Mapping[Kind, Mapping[str, Connector]]] = {
        "warehouses": {
            "duckdb": Connector(DuckDBConfig),
            "postgres": Connector(WarehousePostgresConfig, "postgres"),
        },
        "destinations": {
            "hubspot": Connector(HubSpotConfig),
            "http": Connector(HttpConfig),
            "postgres": Connector(PostgresConfig),
        },
    }

    def names(self, kind: Kind) -> Sequence[str]:
        return [*self.types[kind], *(["half"] if kind == "destinations" else [])]

    def find(self, kind: Kind, name: str) -> Connector:
        if name == "half":
            raise Missing("the type half needs the Python module psycopg", "pip install 'backhaul[postgres]'")
        return self.types[kind][name]


class Files:
    """A project's folder, and what reading it gives."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("backhaul.yml", MAIN)
        self.write("syncs/contacts.yml", SYNC)

    def write(self, name: str, text: str | bytes) -> Files:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return self

    def load(self, **environ: str | None) -> Project:
        variables = {name: value for name, value in (ENVIRON | environ).items() if value is not None}
        return load(self.root, environ=variables, plugins=Installed())

    def problems(self, **environ: str | None) -> list[Problem]:
        with pytest.raises(UsageError) as caught:
            self.load(**environ)
        assert caught.value.problems
        for problem in caught.value.problems:
            assert "\n" not in str(problem)
            assert "canary" not in str(problem)
        return list(caught.value.problems)

    def problem(self, **environ: str | None) -> str:
        (problem,) = self.problems(**environ)
        return str(problem)
