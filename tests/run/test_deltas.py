"""Updates that hold the identifiers and the changed fields alone, where the destination takes them so."""

from __future__ import annotations

import json
from typing import Any

import pytest
from plugin import Api, settings
from sites import Site


@pytest.fixture
def api(plugged: Api, site: Site) -> Api:
    """Three records that were delivered as a whole."""
    sync(site)
    site.fill(3)
    assert site.run().report.delivered == 3
    assert [set(one) for one in plugged.sent.pop()] == [{"id", "name", "v", "place"}] * 3
    return plugged


def sync(site: Site, **keys: Any) -> None:
    file = site.root / "syncs" / "users.yml"
    given = json.loads(file.read_text())
    file.write_text(
        json.dumps({**given, "fields": {"name": "name", "v": "v", "place.city": "name || ' town'"}, **keys})
    )


def test_only_what_changed_is_sent(site: Site, api: Api) -> None:
    report = site.sql("update t set v = 9 where id = 1", "update t set v = null where id = 2").run().report
    assert (report.status, report.delivered) == ("succeeded", 2)
    assert sorted(api.sent.pop(), key=str) == [{"id": "1", "v": 9.0}, {"id": "2", "v": None}]


def test_a_nested_object_that_changed_goes_whole(site: Site, api: Api) -> None:
    site.sql("update t set name = 'ada' where id = 1").run()
    assert api.sent.pop() == [{"id": "1", "name": "ada", "place": {"city": "ada town"}}]


def test_i5_what_is_in_doubt_is_sent_as_a_whole(site: Site, api: Api) -> None:
    api.resets = 1
    assert site.sql("update t set v = 9 where id = 1").run().report.status == "succeeded"
    assert [set(body[0]) for body in api.sent] == [{"id", "v"}, {"id", "name", "v", "place"}]


def test_i5_what_an_earlier_run_left_in_doubt_is_sent_as_a_whole(site: Site, api: Api) -> None:
    api.resets = 5
    assert site.sql("update t set v = 9 where id = 1").run().report.unknown == 1
    api.sent.clear()
    assert site.sql("update t set v = 10 where id = 1").run().report.delivered == 1
    assert [set(one) for one in api.sent.pop()] == [{"id", "name", "v", "place"}]


def test_a_record_that_had_gone_is_completed(site: Site, api: Api) -> None:
    del api.records["1"]
    report = site.sql("update t set v = 9 where id = 1").run().report
    assert (report.status, report.delivered, report.requests) == ("succeeded", 1, 2)
    assert [set(body[0]) for body in api.sent] == [{"id", "v"}, {"id", "name", "v", "place"}]
    assert api.records["1"]["name"] == "n1"
    assert site.run().report.requests == 0


def test_without_old_values_records_go_whole(site: Site, plugged: Api) -> None:
    sync(site, ledger={"values": False})
    site.fill(3).run()
    plugged.sent.clear()
    assert site.sql("update t set v = 9 where id = 1").run().report.delivered == 1
    assert [set(one) for one in plugged.sent.pop()] == [{"id", "name", "v", "place"}]


def test_a_refused_update_is_kept_whole(site: Site, api: Api) -> None:
    settings(site, timeout="5s")
    api.refuse = "1"
    report = site.sql("update t set v = 9 where id = 1").run().report
    assert report.rejected == 1
    (letter,) = site.letters()
    assert set(letter["payload"]) == {"id", "name", "v", "place"}
