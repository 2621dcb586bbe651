"""A whole project: the examples of the interface, defaults, names, and every problem at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from config_project import ENVIRON, MAIN, SYNC, Files, HttpConfig, HubSpotConfig

from backhaul.config import FieldMapping, find_root
from backhaul.errors import UsageError
from backhaul.types import FieldType, Mode, Nulls
from backhaul.values import Share

INTERFACE_MAIN = """\
# backhaul.yml
project: acme
state: .backhaul                      # a folder (embedded, default) or postgresql://user:pw@host/db
warehouses:
  main: {type: duckdb, path: warehouse.duckdb}
  prod: {type: postgres, dsn: "${WAREHOUSE_DSN}"}
destinations:
  crm:  {type: hubspot, access_token: "${HUBSPOT_TOKEN}"}
  app:  {type: postgres, dsn: "${APP_DSN}"}
  api:                                 # any batch HTTP API, without code
    type: http
    base_url: http://127.0.0.1:9000
    headers: {Authorization: "Bearer ${API_TOKEN}"}
    rate_limits: ["100/1s", "250000/1d"]
    concurrency: 8
    timeout: 30s                       # total, per request
    idempotency_header: Idempotency-Key   # optional: the same value on every retry of one batch
    objects:
      user:
        key: id                        # the payload field that identifies a record
        upsert:                        # also: insert, update, delete
          request: POST /upsert
          batch_size: 100
          body: {records: $records}    # $records: list of payloads (in a delete: of {key field: key})
          results:                     # how to read per-record outcomes (JMESPath)
            each: results
            key: id                    # or `index: true` when results come back in order
            delivered: "status == 'ok'"
            retryable: "status == 'retry'"
            error: error
        delete: {request: POST /delete, batch_size: 100, body: {ids: $keys}, results: {each: results, key: id, delivered: "status == 'ok'", error: error}}
"""
INTERFACE_SYNC = """\
# syncs/contacts.yml
name: contacts
model:
  warehouse: main
  sql: select id, email, first_name, health, plan, updated_at from marts.customers
  # or  table: marts.customers   | file: models/customers.sql  | dbt: re_hubspot_contacts  | audience: big_spenders
  primary_key: id                      # or a list
  cursor: updated_at                   # optional: incremental reads; the full diff stays the default
destination: crm
object: contacts
mode: upsert                           # insert | update | upsert | mirror (upsert, and delete what left the model)
identify: {email: email}               # destination identifier <- SQL expression
fields:                                # destination field <- SQL expression over the model's columns
  firstname: first_name
  health_score: round(health, 1)
  plan_tier: upper(plan)
  address.city: city                   # a dot nests
nulls: clear                           # clear | skip | error; per field: {field: {value: expr, null: skip, default: 'x', type: date}}
guards: {max_deletes: 5%, max_changes: 50%, min_rows: 1}
freshness: {sample: 10}                # sample 0: no read-back
on_schema_change: fail                 # fail | apply | ignore
"""


def test_the_interface_examples_load(files: Files) -> None:
    files.write("backhaul.yml", INTERFACE_MAIN).write("syncs/contacts.yml", INTERFACE_SYNC)
    project = files.load()
    assert project.name == "acme"
    assert project.state_path == files.root / ".backhaul"
    assert (project.warehouse_type("prod"), project.destination_type("api")) == ("postgres", "http")
    crm, api = project.destinations["crm"], project.destinations["api"]
    assert isinstance(crm, HubSpotConfig)
    assert crm.access_token.get_secret_value() == ENVIRON["HUBSPOT_TOKEN"]
    assert isinstance(api, HttpConfig)
    assert api.headers is not None
    assert api.headers["Authorization"].get_secret_value() == "Bearer api-canary-0002"
    assert api.objects["user"].upsert is not None
    assert api.objects["user"].upsert.body == {"records": "$records"}

    (sync,) = project.select(["contacts"])
    assert (sync.mode, sync.nulls, sync.destination, sync.object) == (
        Mode.UPSERT,
        Nulls.CLEAR,
        "crm",
        "contacts",
    )
    assert (sync.model.warehouse, sync.model.primary_key, sync.model.cursor) == (
        "main",
        ("id",),
        "updated_at",
    )
    assert sync.fields["address.city"] == FieldMapping(value="city")
    assert sync.guards.max_deletes == Share(5, relative=True)
    assert (sync.guards.min_rows, sync.guards.max_drop) == (1, None)
    assert sync.freshness.sample == 10
    assert str(sync.problem("fields.health_score", "is gone")) == "syncs/contacts.yml:15:3: is gone"
    assert str(sync.problem("fields.plan_tier.value", "is gone")) == "syncs/contacts.yml:16:3: is gone"
    assert str(sync.problem("fields.address.city", "is gone")) == "syncs/contacts.yml:17:3: is gone"


def test_all_problems_of_all_files_are_named_at_once(files: Files) -> None:
    files.write("backhaul.yml", MAIN.replace("path:", "paht:") + "memory_limit: 3 bananas\n")
    files.write("syncs/contacts.yml", SYNC.replace("upper(plan)", "upper(plan"))
    files.write("syncs/deals.yml", SYNC.replace("destination: crm", "destination: crn") + "wat: 1\n")
    files.write("syncs/late.yml", "name: late\n\tx: 1\n")
    places = [(one.file, one.line) for one in files.problems(HUBSPOT_TOKEN=None)]
    assert places == [
        ("backhaul.yml", 3),
        ("backhaul.yml", 3),
        ("backhaul.yml", 5),
        ("backhaul.yml", 6),
        ("syncs/contacts.yml", 7),
        ("syncs/deals.yml", 3),
        ("syncs/deals.yml", 8),
        ("syncs/late.yml", 2),
    ]


def test_syncs_are_named_when_the_main_file_is_broken(files: Files) -> None:
    files.write("backhaul.yml", "project: [").write("syncs/contacts.yml", SYNC + "wat: 1\n")
    assert [one.file for one in files.problems()] == ["backhaul.yml", "syncs/contacts.yml"]


def test_find_root_is_the_nearest_parent(files: Files, tmp_path: Path) -> None:
    assert find_root(files.root / "syncs") == files.root
    with pytest.raises(UsageError) as caught:
        find_root(tmp_path)
    assert "backhaul init" in (caught.value.hint or "")


def test_select_takes_names_and_globs(files: Files) -> None:
    for name in ("deals", "companies"):
        files.write(f"syncs/{name}.yml", SYNC.replace("name: contacts", f"name: {name}"))
    project = files.load()
    assert [sync.name for sync in project.select([])] == ["companies", "contacts", "deals"]
    assert [sync.name for sync in project.select(["deals", "co*"])] == ["deals", "companies", "contacts"]
    with pytest.raises(UsageError) as caught:
        project.select(["contact"])
    assert caught.value.hint == "did you mean `contacts`?"


def test_defaults_stand_under_the_keys_of_a_sync(files: Files, sync: Callable[..., Files]) -> None:
    defaults = "defaults: {nulls: skip, approve: first, guards: {max_deletes: off, min_rows: 5}}\n"
    sync(add="approve: never\nguards: {min_rows: 7}\n").write("backhaul.yml", MAIN + defaults)
    files.write("syncs/deals.yml", SYNC.replace("name: contacts", "name: deals"))
    contacts, deals = files.load().select()
    assert (contacts.nulls, contacts.approve) == (Nulls.SKIP, "never")
    assert (contacts.guards.max_deletes, contacts.guards.min_rows) == (False, 7)
    assert (deals.approve, deals.guards.min_rows) == ("first", 5)


def test_a_problem_of_the_defaults_is_named_there(files: Files) -> None:
    files.write("backhaul.yml", MAIN + "defaults: {guards: {max_delete: 5}}\n")
    assert files.problem() == (
        "backhaul.yml:6:21: unknown key `defaults.guards.max_delete` (did you mean `max_deletes`?)"
    )


def test_a_guard_tells_unset_from_off(sync: Callable[..., Files]) -> None:
    project = sync(
        add="guards: {max_deletes: off, max_changes: false, max_creates: 100, min_rows: off}\n"
    ).load()
    guards = project.syncs["contacts"].guards
    assert (guards.max_deletes, guards.max_changes, guards.max_updates) == (False, False, None)
    assert (guards.max_creates, guards.min_rows) == (Share(100), False)


def test_the_long_form_of_a_field(sync: Callable[..., Files]) -> None:
    project = sync(
        add="  since: {value: signed_up, null: skip, default: 2020-01-01, type: date}\n  score: 1.5\n"
    ).load()
    fields = project.syncs["contacts"].fields
    assert fields["since"] == FieldMapping(
        value="signed_up", null=Nulls.SKIP, default="2020-01-01", type=FieldType.DATE
    )
    assert fields["score"].value == "1.5"


def test_the_only_warehouse_needs_no_name(files: Files, sync: Callable[..., Files]) -> None:
    assert sync().load().syncs["contacts"].model.warehouse == "main"
    files.write(
        "backhaul.yml", MAIN.replace("destinations:", "  other: {type: duckdb, path: b}\ndestinations:")
    )
    assert files.problem() == "syncs/contacts.yml:2:1: the model names no `warehouse` (one of main, other)"


def test_an_identifier_that_is_a_field_too_is_sent_once(sync: Callable[..., Files]) -> None:
    assert set(sync(add="  email: email\n").load().syncs["contacts"].fields) == {"tier"}
    assert "`email` is under identify and" in sync(add="  email: lower(email)\n").problem()


def test_a_model_file_is_checked_where_it_stands(files: Files, sync: Callable[..., Files]) -> None:
    sync(("table: customers", "file: models/c.sql")).write(
        "models/c.sql", "-- customers\nselect id\nfrom customers;\n"
    )
    assert files.load().syncs["contacts"].model.file == "models/c.sql"
    files.write("models/c.sql", "select 1;\n\ndelete from customers\n")
    assert files.problem().startswith("models/c.sql:3:1: a second statement starts here")


@pytest.mark.parametrize("source", ["dbt", "audience"])
def test_sources_of_later_releases_are_named(sync: Callable[..., Files], source: str) -> None:
    assert f"this release does not read `{source}` models yet" in sync(("table:", f"{source}:")).problem()


def test_a_connection_type_that_lacks_a_driver_says_how_to_install_it(files: Files) -> None:
    files.write("backhaul.yml", MAIN.replace("hubspot", "half"))
    assert files.problem() == (
        "backhaul.yml:5:9: the type half needs the Python module psycopg (pip install 'backhaul[postgres]')"
    )


def test_the_whole_project_is_frozen(files: Files) -> None:
    project = files.load()
    with pytest.raises(ValueError, match="frozen"):
        project.name = "other"  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        project.syncs["contacts"].guards.min_rows = 3  # type: ignore[misc]


def test_yaml_named_files_are_not_passed_over(files: Files) -> None:
    files.write("syncs/more.yaml", SYNC)
    assert re.match(r"syncs/more.yaml: would not be read \(name it .yml\)", files.problem())


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], ["companies", "contacts", "deals"]),
        (["deals", "companies"], ["companies", "deals"]),
        (["deals", "contacts"], ["deals", "contacts"]),
        (["contacts", "c*"], ["contacts", "companies"]),
        (["d*", "c*"], ["companies", "deals", "contacts"]),
    ],
)
def test_syncs_come_as_typed_and_after_those_that_they_depend_on(
    files: Files, sync: Callable[..., Files], names: list[str], expected: list[str]
) -> None:
    sync()
    for name, more in (("companies", ""), ("deals", "depends_on: [companies]\n")):
        files.write(f"syncs/{name}.yml", SYNC.replace("name: contacts", f"name: {name}") + more)
    assert [one.name for one in files.load().select(names)] == expected


def test_syncs_that_depend_on_each_other_are_named_once(files: Files, sync: Callable[..., Files]) -> None:
    sync(add="depends_on: [deals]\n")
    files.write("syncs/deals.yml", SYNC.replace("name: contacts", "name: deals") + "depends_on: [contacts]\n")
    with pytest.raises(UsageError) as caught:
        files.load()
    (problem,) = caught.value.problems
    assert problem.message == "syncs depend on each other: contacts -> deals -> contacts"
