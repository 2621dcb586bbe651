"""`backhaul why SYNC KEY`: the life of one record, by the real program, a real sink and a real run."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sites import Site

from backhaul.errors import UsageError
from backhaul.records.why import spellings


def _why(site: Site, key: str, **options: Any) -> dict[str, Any]:
    with site.project as project:
        return project.why("users", key, **options)


def test_the_life_of_a_record_that_changed_twice(site: Site) -> None:
    site.fill(5).run()
    site.sql("update t set name = 'second' where id = 3").run()
    site.sql("update t set name = 'third' where id = 3")
    found = _why(site, "3")
    assert [(step["change"], step["status"]) for step in found["history"]] == [
        ("create", "delivered"),
        ("update", "delivered"),
    ]
    assert found["history"][1]["fields"] == {"name": ["n3", "second"]}
    assert found["history"][1]["left_at"] <= found["history"][1]["answered_at"]
    assert (found["history"][0]["batch"], found["history"][1]["batch"]) == (5, 1)
    assert found["model"]["fields"]["name"] == "third"
    assert found["ledger"]["fields"]["name"] == found["destination"]["fields"]["name"] == "second"
    assert "the next run sends name" in found["summary"]


def test_it_changes_nothing_and_asks_once(site: Site) -> None:
    site.fill(5).run()
    before = len(site.sink.seen)
    plain = _why(site, "1")
    assert "nothing has changed since" in plain["summary"]
    assert len(site.sink.seen) - before <= 1
    asked = len(site.sink.seen)
    assert _why(site, "1", offline=True)["destination"] == {"status": "not asked"}
    assert len(site.sink.seen) == asked
    report = site.run()
    assert (report.status, report.requests) == ("succeeded", 0)


def test_a_record_before_its_first_run_and_after_it_left_the_model(site: Site) -> None:
    site.fill(2)
    assert "Never acknowledged; the next run sends it" in _why(site, "1")["summary"]
    site.run()
    site.sql("delete from t where id = 1")
    assert _why(site, "1")["summary"] == "It left the model; the next run deletes it."


def test_an_unknown_key_is_answered_with_the_nearest(site: Site) -> None:
    site.fill(3).run()
    with pytest.raises(UsageError) as caught:
        _why(site, "22")
    assert "knows no record '22'" in str(caught.value)
    assert "2" in str(caught.value.hint)


def test_a_destination_that_is_away_is_named_and_the_rest_is_told(site: Site) -> None:
    site.fill(3).run()
    site.servers.stop()
    found = _why(site, "1")
    assert found["destination"]["status"] == "unreadable"
    assert found["ledger"]["state"] == "acknowledged"


def test_history_that_is_switched_off_keeps_no_file(site: Site) -> None:
    site.settings = {"history": {"keep": 0}}
    site.write()
    site.fill(3).run()
    assert not list((site.root / ".backhaul" / "plans").glob("*"))
    assert _why(site, "1")["history"] == []


def test_the_oldest_go_when_there_is_too_much(site: Site) -> None:
    site.fill(3).run()
    site.sql("update t set name = 'x' where id = 1").run()
    site.settings = {"history": {"size": 1}}
    site.write()
    site.run()
    assert site.rows("SELECT count(*) FROM history") == [(0,)]
    assert site.rows("SELECT count(*) FROM outcomes") == [(0,)]
    assert not list((site.root / ".backhaul" / "plans").glob("*"))


def test_the_command_line(site: Site) -> None:
    site.fill(3).run()
    called = site.call("why", "users", "1")
    said, complaint = called.stdout, called.stderr
    assert "Sent, and acknowledged at" in said, complaint
    assert max(map(len, site.call("why", "users", "1", "--json").stdout.splitlines())) > 0
    document = json.loads(site.call("why", "users", "1", "--json").stdout)
    assert document["history"][0]["change"] == "create"


def test_a_key_that_is_looked_up_reads_only_that_row_of_a_model_that_groups(site: Site) -> None:
    """A model that is no plain scan is copied first: of it no more than the record."""
    sql = "select id, any_value(name) as name, any_value(v) as v from t group by id"
    site.sync["model"] = {"warehouse": "main", "sql": sql, "primary_key": "id"}
    site.write()
    site.fill(50).run()
    site.sql("insert into t values (7, 'again', 1)")
    assert _why(site, "7")["model"]["status"] == "present"
    assert _why(site, "7")["ledger"]["state"] == "acknowledged"


def test_a_key_with_one_wrong_character_is_answered_with_the_right_one(site: Site) -> None:
    site.fill(400).run()
    with pytest.raises(UsageError) as caught:
        _why(site, "3333")
    assert caught.value.hint == "the nearest: 333, 133, 233"


def test_keys_with_more_digits_than_a_double_has() -> None:
    assert spellings("12345678901234567890123") == ["12345678901234567890123", '"12345678901234567890123"']
    assert spellings("[1, 2]") == ["[1,2]", '"[1, 2]"']
    assert spellings("a") == ['"a"']
