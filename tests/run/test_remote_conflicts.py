"""I44: two keys are never acknowledged on one record of the destination."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import backhaul
from backhaul.runs.report import RunReport
from backhaul.sandbox.hubspot import HubSpotSandbox
from backhaul.sandbox.hubspot.store import Record
from backhaul.testing.duckdb_file import opened
from backhaul.testing.serving import serving

PROJECT = """
project: t
warehouses: {{main: {{type: duckdb, path: w.duckdb}}}}
destinations: {{crm: {{type: hubspot, access_token: local-sandbox, base_url: "{url}"}}}}
"""
SYNC = """
name: people
model: {warehouse: main, table: t, primary_key: id}
destination: crm
object: contacts
mode: mirror
identify: {email: email}
fields: {firstname: name}
guards: {max_deletes: "off"}
freshness: {sample: 0}
"""


class Crm:
    """A contact that answers to two e-mails, and a project whose model has a row for each."""

    def __init__(self, folder: Path, sandbox: HubSpotSandbox, url: str) -> None:
        self.folder, self.sandbox, self.kind = folder, sandbox, sandbox.types["contacts"]
        (folder / "syncs").mkdir()
        (folder / "backhaul.yml").write_text(PROJECT.format(url=url))
        (folder / "syncs" / "people.yml").write_text(SYNC)
        self.sql("create table t (id integer, email varchar, name varchar)")

    def contact(self, email: str, *others: str) -> Record:
        record = self.kind.create({"email": email})
        self.kind.add_emails(record, others)
        return record

    def sql(self, *statements: str) -> None:
        with opened(self.folder / "w.duckdb") as warehouse:
            for statement in statements:
                warehouse.execute(statement)

    def run(self, **options: Any) -> RunReport:
        with backhaul.load(self.folder) as project:
            return project.run("people", **options).report

    def letters(self) -> list[dict[str, Any]]:
        with backhaul.load(self.folder) as project:
            return project.dead_letters("people")

    def name_of(self, email: str) -> str:
        record = self.kind.find("email", email)
        assert record is not None
        return record.properties["firstname"]


@pytest.fixture
def crm(tmp_path: Path) -> Iterator[Crm]:
    sandbox = HubSpotSandbox(burst=10_000)
    with serving(sandbox.app()) as url:
        yield Crm(tmp_path, sandbox, url)


def test_i44_of_two_keys_on_one_record_the_second_is_rejected_and_names_both(crm: Crm) -> None:
    record = crm.contact("a@x.com", "b@x.com")
    crm.sql("insert into t values (1, 'a@x.com', 'Ada'), (2, 'b@x.com', 'Bob'), (3, 'c@x.com', 'Cy')")
    first = crm.run()
    assert (first.delivered, first.rejected, first.status) == (2, 1, "partial")
    (letter,) = crm.letters()
    assert (letter["key"], letter["error"]["code"]) == (2, "SAME_RECORD")
    assert (
        letter["error"]["message"]
        == f"keys 1 and 2 are one record of the destination ({record.id}); 1 keeps it"
    )
    assert "leave one of the two rows out" in first.refused[0]["fix"]
    again = crm.run()
    assert (again.delivered, again.rejected) == (1, 0), (
        "the second key's values were written over the first's"
    )
    assert crm.name_of("a@x.com") == "Ada"
    quiet = crm.run()
    assert (quiet.delivered, quiet.requests, quiet.status) == (0, 0, "succeeded")


def test_i44_a_record_stays_with_the_key_that_had_it(crm: Crm) -> None:
    crm.contact("a@x.com", "b@x.com")
    crm.sql("insert into t values (5, 'a@x.com', 'Ada')")
    assert crm.run().delivered == 1
    crm.sql("insert into t values (2, 'b@x.com', 'Bob')")
    assert crm.run().rejected == 1
    assert [letter["key"] for letter in crm.letters()] == [2]
    crm.run()
    assert crm.name_of("b@x.com") == "Ada"


def test_i44_a_rejected_second_that_leaves_the_model_takes_nothing_with_it(crm: Crm) -> None:
    record = crm.contact("a@x.com", "b@x.com")
    crm.sql("insert into t values (1, 'a@x.com', 'Ada'), (2, 'b@x.com', 'Bob')")
    crm.run()
    crm.run()
    crm.sql("delete from t where id = 2")
    assert crm.run().changes["delete"] == 0
    assert record.id in crm.kind.records


def test_i44_records_that_were_merged_belong_to_the_key_that_had_the_one_that_is_left(crm: Crm) -> None:
    crm.sql("insert into t values (1, 'a@x.com', 'Ada'), (2, 'b@x.com', 'Bob')")
    assert crm.run().delivered == 2
    one, other = (crm.kind.find("email", email) for email in ("a@x.com", "b@x.com"))
    assert one is not None
    assert other is not None
    crm.kind.merge(one, other)
    crm.sql("update t set name = 'Rob' where id = 2")
    assert crm.run().rejected == 1
    assert crm.run().delivered == 1
    assert crm.name_of("b@x.com") == "Ada"
    crm.sql("delete from t where id = 2")
    crm.run()
    assert one.id in crm.kind.records


@pytest.mark.parametrize("mode", ["mirror", "upsert"])
def test_i44_a_key_may_take_over_the_record_of_one_that_left_the_model(crm: Crm, mode: str) -> None:
    (crm.folder / "syncs" / "people.yml").write_text(SYNC.replace("mode: mirror", f"mode: {mode}"))
    crm.sql("insert into t values (1, 'a@x.com', 'Ada'), (2, 'b@x.com', 'Bob')")
    crm.run()
    crm.sql("update t set id = 7, name = 'Al' where id = 1")
    report = crm.run()
    assert (report.delivered, report.rejected) == (1, 0)
    assert crm.name_of("a@x.com") == "Al"
    assert crm.run().delivered == 0
