"""`state backup`, `restore` and `compact`: a state is carried elsewhere, put back, and made smaller, and nothing is lost by it."""

from __future__ import annotations

import io
import shutil
import sqlite3
import tarfile
from pathlib import Path

import duckdb
import pytest
from sites import Site
from tests.waiting import HANGS

from backhaul.errors import BackhaulError, RunError, StateError, UsageError


@pytest.fixture
def held(site: Site) -> Site:
    """Twenty records that were delivered."""
    site.fill(20)
    assert site.run().report.delivered == 20
    return site


def back_up(site: Site, name: str = "backup.tar") -> Path:
    file = site.root / name
    with site.project as project:
        project.back_up_state(file)
    return file


def restore(site: Site, file: Path, *, as_is: bool = False) -> Path | None:
    with site.project as project:
        return project.restore_state(file, as_is=as_is).old


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a state but what each opening writes."""
    unsteady = ("-shm", "-wal", ".lock")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*") if path.is_file() and not path.name.endswith(unsteady)
    }  # fmt: skip


def test_i1_what_changed_since_a_backup_is_sent_again_after_it_is_restored(held: Site) -> None:
    file = back_up(held)
    held.sql(
        "update t set name = 'there' where id = 1",
        "delete from t where id = 2",
        "insert into t values (77, 'new', 1)",
    ).run()
    held.sql("update t set name = 'n1' where id = 1")  # back to what it was when the backup was made
    old = restore(held, file)
    assert old is not None
    assert (old / "state.db").exists()
    report = held.run().report
    assert report.status == "succeeded", report.error
    assert held.sink.records == held.model()
    assert held.run().report.requests == 0


def test_as_is_sends_nothing_that_was_delivered_before(held: Site) -> None:
    file = back_up(held)
    shutil.rmtree(held.root / ".backhaul")
    assert restore(held, file, as_is=True) is None
    assert held.run().report.requests == 0


def test_a_damaged_state_is_replaced(held: Site) -> None:
    file = back_up(held)
    held.state.write_bytes(b"not a database" * 500)
    with held.project as project:
        restored = project.restore_state(file)
    assert restored.carried is False
    assert held.run().report.status == "succeeded"


def test_i28_what_was_spent_of_limits_stays_spent(site: Site) -> None:
    site.api = {"rate_limits": ["6/1d"], "share": "100%"}
    site.write()
    site.fill(20).run()
    file, turn = back_up(site), 0
    while site.sql(f"update t set name = '{turn}' where id = 1").run().report.delivered:
        turn += 1
    assert turn > 1
    restore(site, file, as_is=True)
    report = site.run().report
    assert (report.delivered, report.deferred) == (0, 1)


def test_killed_between_its_two_moves_a_restore_leaves_no_first_run(held: Site) -> None:
    """The next run would send everything, and create again what it does not know."""
    old = held.root / ".backhaul-before-x" / ".backhaul"
    old.parent.mkdir()
    (held.root / ".backhaul").rename(old)
    with pytest.raises(StateError, match="moved aside"):
        held.run()
    old.rename(held.root / ".backhaul")
    assert held.run().report.requests == 0


def test_i39_who_was_forgotten_stays_so(held: Site) -> None:
    file = back_up(held)
    with held.project as project:
        project.forget("users", "3")
    restore(held, file)
    with duckdb.connect(str(held.ledger), read_only=True) as ledger:
        assert ledger.execute("SELECT count(*) FROM acked WHERE k0 = 3").fetchall() == [(0,)]
    report = held.run().report
    assert (report.status, report.suppressed) == ("succeeded", 1)
    assert "3" not in held.sink.records
    for plan in (held.root / ".backhaul" / "plans").glob("*.parquet"):
        assert duckdb.sql(f"SELECT count(*) FROM '{plan}' WHERE k0 = 3").fetchall() == [(0,)]


def test_a_backup_made_after_a_kill_holds_what_was_in_flight(held: Site) -> None:
    held.sink.faults.silence = 5.0
    held.api = {"timeout": "0.3s"}
    held.write()
    assert held.sql("update t set name = 'there' where id = 1").run().report.unknown == 1
    held.sink.faults.silence = 0.0
    file = back_up(held)
    shutil.rmtree(held.root / ".backhaul")
    restore(held, file, as_is=True)
    assert held.sql("update t set name = 'n1' where id = 1").run().report.delivered == 1
    assert held.sink.records == held.model()


def damaged(file: Path, how: str) -> Path:
    spoilt = file.with_name(f"{how}.tar")
    whole = file.read_bytes()
    if how == "foreign":
        spoilt.write_text("this is no backup")
    elif how == "empty":
        spoilt.write_bytes(b"")
    elif how == "cut short":
        spoilt.write_bytes(whole[: len(whole) // 2])
    elif how == "a flipped byte":
        at = whole.index(b"SQLite format 3") + 5000
        spoilt.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
    elif how == "newer":
        spoilt.write_bytes(whole.replace(b'"format":1', b'"format":9'))
    else:
        with tarfile.open(file) as source, tarfile.open(spoilt, "w") as target:
            for entry in source:
                target.addfile(entry, source.extractfile(entry))
            evil = tarfile.TarInfo("../../evil" if how == "outside" else "ledgers/evil.sh")
            evil.size = 4
            target.addfile(evil, io.BytesIO(b"evil"))
    return spoilt


@pytest.mark.parametrize(
    "how", ["foreign", "empty", "cut short", "a flipped byte", "newer", "outside", "stranger"]
)
def test_what_is_no_whole_backup_is_refused_and_the_state_left_as_it_was(held: Site, how: str) -> None:
    spoilt = damaged(back_up(held), how)
    before = contents(held.root / ".backhaul")
    with pytest.raises(UsageError, match=r"newer backhaul|not a whole backup") as refused:
        restore(held, spoilt)
    assert "\n" not in str(refused.value)
    assert contents(held.root / ".backhaul") == before
    assert not (held.root / "evil").exists()
    assert {path.name for path in held.root.iterdir() if path.name.startswith(".")} == {".backhaul"}


def test_a_backup_of_a_newer_schema_is_refused(held: Site) -> None:
    with sqlite3.connect(held.state) as database:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        database.execute(f"PRAGMA user_version = {version + 1}")
    database.close()
    file = back_up(held)
    with sqlite3.connect(held.state) as database:
        database.execute(f"PRAGMA user_version = {version}")
    database.close()
    with pytest.raises(BackhaulError, match="newer"):
        restore(held, file)
    assert held.run().report.requests == 0


def test_a_file_that_is_there_is_left_as_it_is(held: Site) -> None:
    (held.root / "backup.tar").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        back_up(held)
    assert (held.root / "backup.tar").read_text() == "mine"


def test_nothing_is_done_while_a_sync_runs(held: Site) -> None:
    file = back_up(held)
    with held.project as project, project.workspace.lease(project.sync("users")):
        for act in (lambda: back_up(held, "other.tar"), lambda: restore(held, file), project.compact_state):
            with pytest.raises(RunError, match="being run"):
                act()
    assert held.run().report.requests == 0


def test_there_is_nothing_to_back_up_before_the_first_run(site: Site) -> None:
    with pytest.raises(UsageError, match="no state"):
        back_up(site)


def test_a_backup_is_its_owners_alone(held: Site) -> None:
    assert back_up(held).stat().st_mode & 0o077 == 0


def test_compact_gives_room_back_and_keeps_what_is_known(site: Site) -> None:
    site.batch_size = 5000
    site.write()
    for turn in range(4):
        site.fill(20_000).sql(f"update t set name = md5(name || '{turn}')").run()
    site.settings = {"history": {"keep": "1ms"}}
    site.write()
    with site.project as project:
        before, after = project.compact_state()
    assert after < before / 2
    assert site.run().report.requests == 0
    assert site.sink.records == site.model()


def test_a_database_is_told_how_to_be_kept(site: Site, postgres_db: str) -> None:
    site.settings = {"state": postgres_db}
    site.write()
    site.fill(2).run()
    with site.project as project:
        with pytest.raises(UsageError, match="in a database") as refused:
            project.back_up_state(site.root / "b.tar")
        assert "pg_dump" in str(refused.value.hint)
        with pytest.raises(UsageError, match="in a database"):
            project.compact_state()


def test_the_commands(held: Site) -> None:
    for arguments, code, said in (
        (("state", "backup", "b.tar"), 0, "backhaul state restore b.tar"),
        (("state", "restore", "b.tar"), 2, "add --yes"),
        (("state", "restore", "b.tar", "--yes"), 0, "send every known record again"),
        (("state", "compact"), 0, "now"),
    ):
        process = held.command(*arguments, cwd=held.root)
        out, err = process.communicate(timeout=HANGS)
        assert process.returncode == code, (arguments, out, err)
        assert said in out + err
        assert "Traceback" not in err


def test_a_full_disk_leaves_no_half_backup(held: Site) -> None:
    with held.project as project, pytest.raises((StateError, UsageError)):
        project.back_up_state(Path("/dev/full") / "backup.tar")
