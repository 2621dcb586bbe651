"""Values and rows that come and go around a crash: the destination ends with what the model holds."""

from __future__ import annotations

from collections.abc import Callable

from sites import Site
from tests.waiting import HANGS, until


def crash(site: Site, faulty: Callable[..., None]) -> None:
    """A run whose write is applied, and that is killed before it hears so."""
    since = len(site.sink.seen)
    before = dict(site.sink.records)
    faulty(silence=2 * HANGS)
    process = site.command("run")
    until(lambda: len(site.sink.seen) > since and site.sink.records != before, process)
    process.kill()
    process.communicate()
    faulty()


def test_a_value_that_went_back_is_put_back(site: Site, faulty: Callable[..., None]) -> None:
    site.fill(20)
    site.run()
    site.sql("update t set v = 99 where id = 7")
    crash(site, faulty)
    assert site.sink.records["7"]["score"] == 99
    site.sql("update t set v = 7 * 1.5 where id = 7")
    report = site.run().report
    assert site.sink.records == site.model()
    assert report.reasons == {"unknown": 1}
    assert report.delivered == 1


def test_a_new_row_that_vanished_is_deleted(site: Site, faulty: Callable[..., None]) -> None:
    site.fill(20)
    site.run()
    site.sql("insert into t values (500, 'brief', 1)")
    crash(site, faulty)
    assert "500" in site.sink.records
    site.sql("delete from t where id = 500")
    report = site.run().report
    assert report.changes["delete"] == 1
    assert site.sink.records == site.model()


def test_a_first_sync_whose_rows_vanished_is_cleaned_up(site: Site, faulty: Callable[..., None]) -> None:
    site.fill(50)
    crash(site, faulty)
    site.sql("delete from t where id >= 10")
    site.run()
    assert site.sink.records == site.model()


def test_a_deleted_row_that_came_back_is_sent(site: Site, faulty: Callable[..., None]) -> None:
    site.fill(20)
    site.run()
    site.sql("delete from t where id = 3")
    crash(site, faulty)
    assert "3" not in site.sink.records
    site.sql("insert into t values (3, 'n3', 4.5)")
    site.run()
    assert site.sink.records == site.model()


def test_a_value_that_went_back_after_an_unknown_end_is_put_back(
    site: Site, faulty: Callable[..., None]
) -> None:
    """The same without a crash: the write is applied, the answer never comes, the attempts are used up."""
    site.fill(20)
    site.run()
    site.sql("update t set v = 99 where id = 7")
    faulty(reset_after=1.0)
    report = site.run().report
    assert (report.unknown, report.status) == (1, "partial")
    assert site.sink.records["7"]["score"] == 99
    faulty()
    site.sql("update t set v = 7 * 1.5 where id = 7")
    assert site.run().report.reasons == {"unknown": 1}
    assert site.sink.records == site.model()


def test_two_crashes_in_a_row(site: Site, faulty: Callable[..., None]) -> None:
    site.fill(20)
    site.run()
    site.sql("update t set v = 98 where id = 7")
    crash(site, faulty)
    site.sql("update t set v = 99 where id = 7")
    crash(site, faulty)
    site.sql("update t set v = 7 * 1.5 where id = 7")
    site.run()
    assert site.sink.records == site.model()
