"""Taking over a destination that already holds records (I8, I25): on trust, or after reading it."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from sites import Site

from backhaul.errors import UsageError


def holding(site: Site, rows: int = 100) -> Site:
    """A destination that another tool filled: one record is missing, one differs."""
    site.fill(rows)
    site.sink.records.update(site.model())
    site.sink.records["5"]["name"] = "another"
    del site.sink.records["6"]
    return site


def test_i8_reading_acknowledges_only_what_is_equal_and_sends_nothing(site: Site) -> None:
    holding(site)
    with site.project as project:
        taken = project.baseline("users", read=True)
    assert (taken.records, taken.differ) == (98, 2)
    assert not site.sent()
    report = site.run().report
    assert report.delivered == 2
    assert set(site.sent()) == {"5", "6"}
    assert site.sink.records == site.model()


@pytest.mark.parametrize(("model", "held"), [("", None), (None, "")])
def test_i2_an_empty_text_is_not_null_when_a_destination_is_read(site: Site, model: Any, held: Any) -> None:
    holding(site)
    site.sql(f"update t set name = {'null' if model is None else repr(model)} where id = 3")
    site.sink.records["3"]["name"] = held
    with site.project as project:
        assert project.baseline("users", read=True).differ == 3
    site.run()
    assert site.sink.records["3"]["name"] == model


def test_i8_reading_leaves_alone_what_an_insert_would_double(site: Site) -> None:
    site.sync = {"mode": "insert"}
    site.write()
    holding(site)
    with site.project as project:
        assert project.baseline("users", read=True).differ == 1
    site.run()
    assert set(site.sent()) == {"6"}


def test_i8_a_destination_that_cannot_be_read_is_refused_and_nothing_is_taken(site: Site) -> None:
    holding(site)
    document: dict[str, Any] = orjson.loads((site.root / "backhaul.yml").read_bytes())
    del document["destinations"]["api"]["objects"]["user"]["read"]
    (site.root / "backhaul.yml").write_bytes(orjson.dumps(document))
    with site.project as project, pytest.raises(UsageError, match="cannot be read"):
        project.baseline("users", read=True)
    with site.project as project:
        assert not list(project.records("users"))


def test_i25_baseline_from_the_destination_on_the_command_line(site: Site) -> None:
    holding(site)
    said = site.call("baseline", "users", "--from", "destination", "--json").stdout
    assert json.loads(said) == {"baselines": [{"sync": "users", "records": 98, "differ": 2, "left": 0}]}


def test_a_record_that_left_the_model_stays_to_be_deleted(site: Site) -> None:
    site.fill(5).run()
    site.sql("delete from t where id = 2", "update t set name = 'new' where id = 3")
    with site.project as project:
        taken = project.baseline("users")
    assert (taken.records, taken.differ, taken.left) == (1, 0, 1)
    assert "2" in site.sink.records
    assert site.run().report.changes == {"create": 0, "update": 0, "delete": 1}
    assert "2" not in site.sink.records
