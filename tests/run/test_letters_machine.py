"""Any sequence of refusals, changes, replays, discards, expiries and changes of the mapping: what is sent, what the destination
holds and who is still a dead letter are what a model in memory says."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from sites import Site

GONE = "gone"
KEYS, VALUES = range(6), range(5)


@dataclass
class Destination:
    """An API that refuses some values, and the deletes of some keys."""

    bad: set[Any] = field(default_factory=set)
    records: dict[int, float] = field(default_factory=dict)
    asked: list[tuple[int, Any]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if request.path == "/delete":
            items = [(int(key), GONE) for key in body["ids"]]
        else:
            items = [(record["id"], record["score"]) for record in body["records"]]
        self.asked += items
        return web.json_response({"results": [self.take(*item) for item in items]})

    def take(self, key: int, value: Any) -> dict[str, Any]:
        if self.refuses(key, value):
            return {
                "id": key,
                "status": "error",
                "error": {"code": "BAD", "message": f"score {value} of {key}"},
            }
        self.records.pop(key, None) if value is GONE else self.records.update({key: value})
        return {"id": key, "status": "ok"}

    def refuses(self, key: int, value: Any) -> bool:
        return (f"delete {key}" if value is GONE else value) in self.bad


@dataclass
class World:
    """What is so in the model of it all: rows, what was acknowledged, and what was refused (value, status) by key."""

    site: Site
    destination: Destination
    rng: random.Random
    rows: dict[int, int] = field(default_factory=dict)
    plus: int = 0
    acked: dict[int, float] = field(default_factory=dict)
    refused: dict[int, tuple[Any, str]] = field(default_factory=dict)
    mapped: dict[int, int] = field(default_factory=dict)
    """The mapping that each was refused under: another one frees it, unless it was a delete."""
    told: list[str] = field(default_factory=list)

    def expected(self) -> list[tuple[int, Any]]:
        """What the next run has to send."""
        return sorted(
            (
                (key, value)
                for key in {*self.rows, *self.acked}
                if (value := self.wanted(key)) != self.acked.get(key, GONE)
                and not self.is_kept_back(key, value)
            ),
            key=str,
        )

    def wanted(self, key: int) -> Any:
        return float(self.rows[key] + self.plus) if key in self.rows else GONE

    def is_kept_back(self, key: int, value: Any) -> bool:
        was, status = self.refused.get(key, (None, ""))
        same = value is GONE or self.mapped.get(key) == self.plus
        return was == value and status != "replay" and same

    def run(self, keep: str) -> None:
        configure(self.site, self.plus, keep)
        self.destination.asked.clear()
        expected = self.expected()
        refusals = [(key, value) for key, value in expected if self.destination.refuses(key, value)]
        report = self.site.run().report
        assert sorted(self.destination.asked, key=str) == expected, self.told
        assert (report.rejected, report.delivered) == (len(refusals), len(expected) - len(refusals)), (
            self.told
        )
        self.refused |= {key: (value, "dead") for key, value in refusals}
        self.mapped |= dict.fromkeys((key for key, _ in refusals), self.plus)
        for key, value in expected:
            if (key, value) not in refusals:
                self.acked.pop(key, None) if value is GONE else self.acked.update({key: value})
        for key in list(self.refused):  # as acknowledged again, or it has left the model
            if self.wanted(key) == self.acked.get(key, GONE):
                del self.refused[key]
        if keep == "1ms":
            dead = {key: value for key, (value, status) in self.refused.items() if status == "dead"}
            assert report.expired == len(dead), self.told
            self.refused |= {key: (value, "expired") for key, value in dead.items()}

    def check(self) -> None:
        assert self.destination.records == self.acked, self.told
        with self.site.project as project:
            shown = {letter["key"]: letter for letter in project.dead_letters("users")}
            rejected = {row["key"] for row in project.records("users", "rejected")}
            counted = project.status()[0]["records"]["rejected"]
        opened = {key: what for key, what in self.refused.items() if what[1] in ("dead", "replay")}
        assert shown.keys() == opened.keys(), self.told
        assert rejected == self.refused.keys(), self.told
        assert counted == len(self.refused), self.told
        for key, (value, status) in opened.items():
            assert shown[key]["replay"] is (status == "replay"), self.told
            assert shown[key]["payload"].get("score") == (None if value is GONE else value), self.told
            assert shown[key]["field"] == (None if value is GONE else "score"), self.told

    def mark(self, keys: list[int], status: str) -> None:
        with self.site.project as project:
            from backhaul.records.letters import Choice

            ids = {
                letter["key"]: letter["id"]
                for closed in (False, True)
                for letter in project.dead_letters(choice=Choice(closed=closed))
            }
            project.mark_dead_letters(
                [ids[key] for key in keys], "replay" if status == "replay" else "discarded"
            )
        self.refused |= {key: (self.refused[key][0], status) for key in keys}

    def step(self) -> None:
        chance, rng = self.rng.random(), self.rng
        key = rng.choice(KEYS)
        if chance < 0.28:
            self.note("change", key, value := rng.choice(VALUES))
            self.rows[key] = value
            self.site.sql(f"delete from t where id = {key}", f"insert into t values ({key}, 'n', {value})")
        elif chance < 0.4:
            self.note("remove", key)
            self.rows.pop(key, None)
            self.site.sql(f"delete from t where id = {key}")
        elif chance < 0.5:
            bad = {float(value + plus) for plus in (0, 10) for value in VALUES if rng.random() < 0.4}
            self.destination.bad = bad | {f"delete {key}" for key in KEYS if rng.random() < 0.3}
            self.note("refuse", self.destination.bad)
        elif chance < 0.56:
            self.plus = 10 - self.plus
            self.note("map to v +", self.plus)
        elif chance < 0.75 and self.refused:
            some = sorted(rng.sample(sorted(self.refused), rng.randint(1, len(self.refused))))
            status = rng.choice(["replay", "discarded"])
            self.note(status, some)
            self.mark(some, status)
        else:
            keep = "1ms" if rng.random() < 0.2 else "30d"
            self.note("run, keep", keep)
            self.run(keep)
            self.check()

    def note(self, *words: Any) -> None:
        self.told.append(" ".join(map(str, words)))


def configure(site: Site, plus: int, keep: str) -> None:
    site.settings = {name: value for name, value in site.settings.items() if name == "state"}
    site.settings["dead_letters"] = {"keep": keep}
    site.sync = {
        "fields": {"name": "name", "score": f"v + {plus}"}, "freshness": {"sample": 0},
        "guards": {"max_deletes": "off", "max_drop": "off", "min_rows": "off"},
    }  # fmt: skip
    site.write()


@pytest.mark.parametrize("where", ["sqlite 1", "postgres 2"])
def test_any_history_of_letters(
    where: str, request: pytest.FixtureRequest, site: Site, answering: Callable[..., list[str]]
) -> None:
    """I3, I9: a letter leaves when its row changes and is taken, is as acknowledged again, or leaves the model; else it stays."""
    kind, seed = where.split()
    if kind == "postgres":
        site.settings = {"state": request.getfixturevalue("postgres_db")}
    destination = Destination()
    answering(destination.answer)
    site.sql("create table t (id integer, name varchar, v double)")
    world = World(site, destination, random.Random(int(seed)))
    for _ in range(50 if kind == "sqlite" else 25):
        world.step()
    assert sum("run" in one for one in world.told) > 3
    destination.bad.clear()
    world.mark(sorted(world.refused), "replay")
    world.run("30d")
    assert world.refused == {}
    assert destination.records == {key: float(value + world.plus) for key, value in world.rows.items()}
