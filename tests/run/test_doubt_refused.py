"""A value that was refused after a request of unknown end: the destination may hold it, whatever was acknowledged before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sites import Site


def statuses(site: Site) -> dict[Any, str]:
    with site.project as project:
        return {record["key"]: record["status"] for record in project.records("users")}


@pytest.mark.parametrize("cursor", [False, True])
def test_i5_back_to_the_acknowledged_value_is_sent(
    site: Site, faulty: Callable[..., None], cursor: bool
) -> None:
    model = {"warehouse": "main", "table": "t", "primary_key": "id"} | ({"cursor": "v"} if cursor else {})
    site.sync = {"mode": "upsert", "model": model}
    site.write()
    site.fill(3).run()
    faulty(change_of_mind="1")
    report = site.sql("update t set name = 'other', v = 10 where id = 1").run().report
    assert (report.status, report.rejected, report.unknown) == ("partial", 1, 0)
    assert site.sink.records["1"]["name"] == "other"
    assert statuses(site) == {0: "acknowledged", 1: "rejected", 2: "acknowledged"}
    faulty()
    assert site.sql("update t set name = 'n1', v = 1.5 where id = 1").run().report.delivered == 1
    assert site.sink.records == site.model()
    assert set(statuses(site).values()) == {"acknowledged"}
    assert site.letters() == []
    assert site.run().report.requests == 0


def test_i5_a_refused_delete_that_may_have_been_done_is_sent_again_as_it_was(
    site: Site, faulty: Callable[..., None]
) -> None:
    site.fill(3).run()
    faulty(change_of_mind="1")
    report = site.sql("delete from t where id = 1").run().report
    assert (report.status, report.rejected) == ("partial", 1)
    assert "1" not in site.sink.records
    faulty()
    assert site.sql("insert into t values (1, 'n1', 1.5)").run().report.delivered == 1
    assert site.sink.records == site.model()


def test_a_create_that_was_refused_and_may_be_there_is_deleted_when_it_leaves_the_model(
    site: Site, faulty: Callable[..., None]
) -> None:
    site.fill(1).run()
    faulty(change_of_mind="1")
    assert site.fill(2).run().report.rejected == 1
    assert "1" in site.sink.records
    assert statuses(site) == {0: "acknowledged", 1: "rejected"}
    faulty()
    assert site.fill(1).run().report.changes["delete"] == 1
    assert site.sink.records == site.model()
    assert statuses(site) == {0: "acknowledged"}
