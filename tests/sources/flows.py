"""A project of one sync between two places that a test chooses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import backhaul
from backhaul.runs.report import RunReport


@dataclass
class Pipe:
    """The project in `root`: the sync `s` from the warehouse to the table `t` of the destination, with the key `id`."""

    root: Path
    warehouse: dict[str, Any]
    destination: dict[str, Any]
    sync: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def write(self, **sync: Any) -> Pipe:
        self.sync |= sync
        project = {
            "project": "p",
            "warehouses": {"main": self.warehouse},
            "destinations": {"to": self.destination},
        }
        model = {"warehouse": "main", "primary_key": "id", **self.sync.pop("model", {"table": "c"})}
        base = {"name": "s", "destination": "to", "object": "t", "mode": "upsert", "identify": {"id": "id"},
                "guards": {"max_deletes": "off"}}  # fmt: skip
        (self.root / "syncs").mkdir(exist_ok=True)
        (self.root / "backhaul.yml").write_text(json.dumps(project | self.settings))
        (self.root / "syncs" / "s.yml").write_text(json.dumps(base | {"model": model} | self.sync))
        self.sync["model"] = model
        return self

    def run(self, **options: Any) -> RunReport:
        with backhaul.load(self.root) as project:
            return project.run("s", **options).report

    def project(self, act: Callable[[Any], Any]) -> Any:
        with backhaul.load(self.root) as project:
            return act(project)

    def refusals(self) -> dict[Any, tuple[str, str]]:
        """Code and message of every dead letter, by key."""
        letters = self.project(lambda project: project.dead_letters("s"))
        return {letter["key"]: (letter["error"]["code"], letter["error"]["message"]) for letter in letters}
