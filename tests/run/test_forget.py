"""`backhaul forget SYNC KEY` (I39): deleted, erased to the last byte, and not sent again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import duckdb
import pytest
from psycopg import sql
from sites import Site

from backhaul.errors import RunError, UsageError
from backhaul.state.dynamo import files
from backhaul.state.dynamo.state import DynamoState
from backhaul.state.dynamo.table import delete

KEY, MARKER = "person-zebra-4711", "marker-quokka"


@pytest.fixture(params=[None, "postgres_db", "dynamodb_state"], ids=["folder", "postgres", "dynamodb"])
def people(site: Site, request: pytest.FixtureRequest) -> Site:
    return _filled(site, request.getfixturevalue(request.param) if request.param else None)


def _filled(site: Site, state: str | None) -> Site:
    if state:
        site.settings = {"state": state}
        site.write()
    site.sql(
        "create or replace table t as select 'k' || i as id, 'n' || i as name, i * 1.5::double as v from range(20) x(i)",
        f"insert into t values ('{KEY}', '{MARKER}-one', 1)",
    ).run()
    site.sql(f"update t set name = '{MARKER}-two' where id = '{KEY}'").run()
    return site


def _holding(site: Site) -> list[str]:
    """Where the state has the record: files, tables, and files that stand in a table."""
    files = [file for file in (site.root / ".backhaul").rglob("*") if file.is_file()]
    wanted = (KEY.encode(), MARKER.encode())
    found = [file.name for file in files if any(text in file.read_bytes() for text in wanted)]
    if "state" in site.settings:
        found += [name for name, body in _stored(site) if any(text in body for text in wanted)]
    return found


def _stored(site: Site) -> Iterator[tuple[str, bytes]]:
    state = site.settings["state"]
    return _items(site, state) if state.startswith("dynamodb:") else _tables(site)


def _items(site: Site, address: str) -> Iterator[tuple[str, bytes]]:
    """Every item of the table, and every file that parts make, named or not."""
    state, parts = DynamoState(address), dict[str, dict[str, bytes]]()
    try:
        for item in state.table.scan("", ""):
            yield f"{item['pk']} {item['sk']}", repr(item).encode()
            if item["pk"].startswith("part/"):
                _, token, number = item["pk"].split("/")
                parts.setdefault(token, {})[number] = item["body"]
    finally:
        state.close()
    for token, bodies in parts.items():
        yield token, _rows(site, b"".join(bodies[number] for number in sorted(bodies)))


def _rows(site: Site, parquet: bytes) -> bytes:
    file = site.root / "part.parquet"
    file.write_bytes(parquet)
    rows = repr(duckdb.sql(f"SELECT * FROM '{file}'").fetchall()).encode()
    file.unlink()
    return rows


def _tables(site: Site) -> Iterator[tuple[str, bytes]]:
    import psycopg

    with psycopg.connect(site.settings["state"]) as database:
        tables = database.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'backhaul'").fetchall()
        for (table,) in tables:
            rows = database.execute(sql.SQL("SELECT * FROM backhaul.{}").format(sql.Identifier(table)))
            yield table, repr(rows.fetchall()).encode()
        parts = "SELECT file, string_agg(body, ''::bytea ORDER BY part) FROM backhaul.parts GROUP BY file"
        for name, body in database.execute(parts).fetchall():
            yield name, _rows(site, body)


def test_i39_no_byte_of_the_state_has_the_record_and_the_destination_has_deleted_it(people: Site) -> None:
    assert _holding(people)
    with people.project as project:
        project.plan("users")
        found = project.forget("users", KEY)
    assert found["destination"] == "deleted"
    assert KEY not in people.sink.records
    assert _holding(people) == []
    assert len(people.sink.records) == 20


def test_i39_a_forgotten_record_is_not_sent_again_while_the_model_has_it(people: Site) -> None:
    with people.project as project:
        project.forget("users", KEY)
    people.sql(
        f"update t set name = '{MARKER}-three' where id = '{KEY}'", "update t set v = 9 where id = 'k1'"
    )
    report = people.run(full=True).report
    assert (report.status, report.suppressed, report.delivered) == ("succeeded", 1, 1)
    assert KEY not in people.sink.records
    assert _holding(people) == []
    with people.project as project:
        proofs = project.forgotten("users")
        assert [proof["destination"] for proof in proofs] == ["deleted"]
        project.lift("users", KEY)
        assert project.forgotten("users") == []
    assert people.run().report.delivered == 1
    assert KEY in people.sink.records


def test_i39_i41_another_sync_on_the_object_does_not_send_a_forgotten_record(people: Site) -> None:
    """Also the same one under another name, whose key for the record is another one."""
    with people.project as project:
        project.forget("users", KEY)
    people.sql("create or replace table t as select *, row_number() over () as number from t")
    people.sync |= {"name": "persons", "model": {"warehouse": "main", "table": "t", "primary_key": "number"}}
    people.write()
    with people.project as project:
        assert project.plan("persons").report.suppressed == 1
        report = project.run("persons").report
        assert (report.status, report.suppressed, report.delivered) == ("succeeded", 1, 20)
        assert "Forgotten in sync users since" in project.why("persons", "21", offline=True)["summary"]
    for command in ("check", "status"):
        said = people.command(command).communicate(timeout=60)[0]
        assert "the state holds sync users (user" in said
        assert "`backhaul rename users NEW`" in said
    assert KEY not in people.sink.records


def test_i39_it_refuses_while_the_sync_runs_and_local_asks_nobody(people: Site) -> None:
    people.servers.stop()
    held = _holding(people)
    with people.project as project:
        with project.workspace.lease(project.sync("users")), pytest.raises(RunError):
            project.forget("users", KEY)
        with pytest.raises(UsageError, match="knows no record"):
            project.forget("users", "nobody")
        assert project.forgotten("users") == []
        assert held
        assert project.forget("users", KEY, local=True)["destination"] == "not asked"
    assert _holding(people) == []
    assert KEY in people.sink.records


def test_i39_where_the_destination_refuses_the_delete_nothing_is_erased(people: Site) -> None:
    people.sink.faults.refuse_key = KEY
    held = set(_holding(people))
    with people.project as project:
        with pytest.raises(RunError, match="refused the delete") as caught:
            project.forget("users", KEY)
        assert "--local" in str(caught.value.hint)
        assert project.forgotten("users") == []
        assert set(_holding(people)) >= held
        project.forget("users", KEY, local=True)
    assert _holding(people) == []
    assert people.run().report.suppressed == 1


def test_the_command_asks_first(people: Site) -> None:
    called = people.call("forget", "users", KEY)
    assert called.exit_code == 2
    done = people.call("forget", "users", KEY, "--yes", "--json")
    assert done.exit_code == 0
    listed = people.call("forget", "users", "--list")
    told = listed.stdout
    assert "deleted" in told
    assert KEY not in told


@pytest.mark.parametrize("state", ["postgres_db", "dynamodb_state"])
def test_i39_another_worker_lets_go_of_its_copy(
    site: Site, request: pytest.FixtureRequest, state: str
) -> None:
    """What it had of the ledger, down to free blocks, is not there after its next look."""
    people = _filled(site, request.getfixturevalue(state))
    (ledger,) = (people.root / ".backhaul" / "copies").glob("users-*.duckdb")
    old = ledger.read_bytes()
    assert MARKER.encode() in old
    with people.project as project:
        project.forget("users", KEY)
    ledger.write_bytes(old)
    with people.project as project:
        assert len(list(project.records("users"))) == 20
    assert _holding(people) == []


@pytest.mark.parametrize("mode", ["insert", "upsert"])
def test_i39_a_composite_key_in_any_mode(site: Site, mode: str) -> None:
    site.sync = {"mode": mode, "model": {"warehouse": "main", "table": "t", "primary_key": ["id", "name"]}}
    site.write()
    site.fill(4).run()
    with site.project as project:
        assert project.forget("users", '[2, "n2"]')["destination"] == "deleted"
        with pytest.raises(UsageError, match="knows no record"):
            project.forget("users", "3")
    assert sorted(site.sink.records) == ["0", "1", "3"]
    report = site.sql("update t set v = 0 where id > 1").run().report
    assert (report.status, report.suppressed) == ("succeeded", 1)
    assert sorted(site.sink.records) == ["0", "1", "3"]
    with site.project as project:
        project.lift("users", '[2, "n2"]')
    assert site.run().report.delivered == 1


def _orphaned(site: Site, names: list[str]) -> DynamoState:
    """A table with what processes left that died while they stored files of these names, each with the record in it. `{own}`
    in a name is the sync's scope."""
    people = _filled(site, site.settings["state"])
    with people.project as project:
        own = project.workspace.scope(project.sync("users")).id
    file = people.root / "left.parquet"
    duckdb.sql(f"COPY (SELECT '{KEY}' AS k0) TO '{file}' (FORMAT parquet)")
    state = DynamoState(site.settings["state"])
    for name in names:
        files.upload(state.table, name.format(own=own), file)
    file.unlink()
    return state


def test_i39_parts_of_files_that_were_never_named_are_found(site: Site, dynamodb_state: str) -> None:
    """Of plans that nobody knows, of folds of this ledger that were or never came; not what another sync may be storing now."""
    site.settings = {"state": dynamodb_state}
    mine = ["p-of-nobody", "ledger/{own}/1", "ledger/{own}/99"]
    state = _orphaned(site, [*mine, "ledger/others/7"])
    with site.project as project:
        project.forget("users", KEY)
    left = [item["pk"] for item in state.table.scan("file/ledger/others/", "")]
    (theirs,) = [
        item["sk"].removeprefix("begun/") for item in state.table.scan("file/ledger/others/", "begun/")
    ]
    state.close()
    assert left == ["file/ledger/others/7"]
    assert set(_holding(site)) == {theirs, f"part/{theirs}/00000 part"}


def test_i39_a_dead_letter_goes_too(people: Site) -> None:
    people.sink.faults.refuse_key = KEY
    people.sql(f"update t set name = '{MARKER}-three' where id = '{KEY}'").run()
    assert [letter["key"] for letter in people.letters()] == [KEY]
    with people.project as project:
        assert project.forget("users", KEY, local=True)["not_reached"]
    assert people.letters() == []
    assert _holding(people) == []


def test_i39_cut_off_before_the_parts_are_gone_it_is_finished_by_the_same_command(
    site: Site, dynamodb_state: str
) -> None:
    """The name of a file goes first: what a process leaves behind then is found by its note."""
    site.settings = {"state": dynamodb_state}
    people = _filled(site, dynamodb_state)
    state = DynamoState(dynamodb_state)
    named = [item for item in state.table.scan("file/", "name") if not item["pk"].startswith("file/ledger/")]
    for item in named:
        plan = item["pk"].removeprefix("file/")
        state.table.do(delete(item["pk"], "name"))
        state.do("drop_plan", {"id": plan})
        state.do("drop_history", {"id": plan})
    state.close()
    assert named
    shutil.rmtree(people.root / ".backhaul")
    assert _holding(people)
    with people.project as project:
        project.forget("users", KEY)
    assert _holding(people) == []
