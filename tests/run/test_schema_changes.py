"""The model's columns from run to run (I27): what stops a run, what is a notice, and what the changelog says."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest
from sites import Site


def configured(site: Site, **keys: object) -> Site:
    site.sync = dict(keys)
    site.write()
    return site


def log(site: Site) -> list[dict[str, object]]:
    with site.project as project:
        return project.schema_changes("users")


@pytest.mark.parametrize("policy", ["fail", "apply", "ignore"])
def test_i27_a_missing_column_refuses_the_run_and_is_never_sent_as_null(site: Site, policy: str) -> None:
    configured(site, on_schema_change=policy).fill(10)
    site.run()
    requests = len(site.sink.seen)
    site.sql("alter table t rename column name to full_name", "update t set v = v + 1")
    report = site.run().report
    assert (report.status, report.exit_code) == ("failed", 1)
    assert "column name is missing (perhaps it is full_name now)" in str(report.error)
    assert len(site.sink.seen) == requests
    assert all(record["name"] for record in site.sink.records.values())
    assert [(one["version"], one["taken"]) for one in log(site)] == [(1, True), (2, False)]
    site.run()
    assert len(log(site)) == 2


def test_i27_a_renamed_column_goes_on_once_the_mapping_says_so(site: Site) -> None:
    site.fill(10)
    site.run()
    site.sql("alter table t rename column name to full_name")
    assert site.run().report.status == "failed"
    configured(site, fields={"name": "full_name", "score": "v"})
    report = site.run().report
    assert (report.status, report.delivered) == ("succeeded", 0)
    assert [one["taken"] for one in log(site)] == [True, False, True]


def test_i27_fail_refuses_another_type_until_it_is_accepted(site: Site) -> None:
    site.fill(10)
    site.run()
    requests = len(site.sink.seen)
    site.sql("alter table t alter column v type varchar")
    for _ in range(2):
        report = site.run().report
        assert (report.status, report.exit_code) == ("failed", 1)
        assert "column v is VARCHAR and was DOUBLE" in str(report.error)
        assert "schema-changes users --accept" in str(report.hint)
    assert len(site.sink.seen) == requests
    with site.project as project:
        assert project.accept_schema("users") == 1
    assert site.run().report.status == "succeeded"
    assert site.sink.records["4"]["score"] == "6.0"
    assert [one["taken"] for one in log(site)] == [True, False, True]


def test_i27_a_type_that_came_back_needs_nobody(site: Site) -> None:
    site.fill(10)
    site.run()
    site.sql("alter table t alter column v type varchar")
    assert site.run().report.status == "failed"
    site.sql("alter table t alter column v type double")
    assert site.run().report.status == "succeeded"


@pytest.mark.parametrize(("policy", "notices"), [("apply", 1), ("ignore", 0)])
def test_i27_apply_takes_another_type_on_and_ignore_says_nothing(
    site: Site, policy: str, notices: int
) -> None:
    configured(site, on_schema_change=policy).fill(10)
    site.run()
    site.sql("alter table t alter column v type varchar")
    report = site.run().report
    assert report.status == "succeeded"
    assert len(report.schema_changes) == notices
    assert site.run().report.schema_changes == []
    assert log(site)[-1]["changes"] == [
        {"column": "v", "change": "retyped", "was": "DOUBLE", "now": "VARCHAR", "used": True, "perhaps": None}
    ]


@pytest.mark.parametrize(
    "change",
    [
        "alter table t add column city varchar",
        "alter table t drop column spare",
        "alter table t alter column spare type varchar",
        "alter table t alter column id type hugeint",
    ],
)
def test_i27_what_no_expression_reads_is_a_notice(site: Site, change: str) -> None:
    site.fill(10).sql("alter table t add column spare integer")
    if "hugeint" in change:
        change = "alter table t alter column v type bigint"
        site.sql("alter table t alter column v type integer")
    site.run()
    site.sql(change)
    report = site.run().report
    assert (report.status, report.delivered, len(report.schema_changes)) == ("succeeded", 0, 1)
    assert site.run().report.schema_changes == []


def test_i27_a_plan_is_refused_as_a_run_would_be(site: Site) -> None:
    site.fill(10)
    site.run()
    site.sql("alter table t drop column name")
    called = site.call("plan", "users")
    said = called.stderr
    assert called.exit_code == 1
    assert "column name is missing" in said
    assert len(said.strip().splitlines()) <= 2


def test_the_changelog_on_the_command_line(site: Site) -> None:
    site.fill(10)
    empty = site.call("schema-changes", "users").stdout
    assert "no run has read the model yet" in empty
    site.run()
    site.sql("alter table t add column city varchar", "alter table t alter column v type varchar")
    refused = site.call("run", "users")
    assert "column v is VARCHAR" in refused.stderr
    shown = site.call("schema-changes", "users").stdout
    assert "DOUBLE → VARCHAR, mapped" in shown
    assert "refused" in shown
    accepted = site.call("schema-changes", "users", "--accept").stdout
    assert "2 changed columns accepted" in accepted
    document = site.call("schema-changes", "users", "--json").stdout
    found = json.loads(document)["schema_changes"]
    assert [(one["sync"], one["version"], one["taken"]) for one in found] == [
        ("users", 1, True), ("users", 2, False), ("users", 3, True)
    ]  # fmt: skip


def test_i27_over_postgres_as_warehouse_and_as_state(site: Site, postgres_db: str) -> None:
    with psycopg.connect(postgres_db, autocommit=True) as server:
        server.execute("create table people (id bigint primary key, name text, v numeric(10, 2))")
        server.execute("insert into people select i, 'n' || i, i from generate_series(1, 5) i")
    site.settings = {"warehouses": {"main": {"type": "postgres", "dsn": postgres_db}}, "state": postgres_db}
    configured(site, model={"warehouse": "main", "table": "people", "primary_key": "id"})
    assert site.run().report.delivered == 5
    with psycopg.connect(postgres_db, autocommit=True) as server:
        server.execute("alter table people add column city text")
        server.execute("alter table people alter column v type text")
    report = site.run().report
    assert (report.status, report.exit_code) == ("failed", 1)
    assert "column v is VARCHAR" in str(report.error)
    with site.project as project:
        assert project.accept_schema("users") == 2
        assert [one["taken"] for one in project.schema_changes("users")] == [True, False, True]
    assert site.run().report.delivered == 5


def test_i27_a_key_of_another_type_refuses_before_any_write(site: Site, tmp_path: Path) -> None:
    site.fill(10)
    site.run()
    site.sql("alter table t alter column id type varchar")
    assert "the primary key was (id BIGINT) and is now (id VARCHAR)" in str(site.run().report.error)
