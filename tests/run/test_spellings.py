"""I46: the same difference seen again after a resend is the destination's own spelling, and ends the resending."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from sites import Site


class Spelling:
    """An API that stores names in a way of its own."""

    def __init__(self, spell: Callable[[str, str | None], str]) -> None:
        self.spell = spell
        self.held: dict[str, dict[str, Any]] = {}
        self.written: list[list[str]] = []
        self.stale = 0
        """So many reads to come show what was there before."""

    async def __call__(self, request: web.Request) -> web.Response:
        body = await request.json()
        if request.path == "/read" and self.stale:
            self.stale -= 1
            return web.json_response({"results": [self.held[key] | {"name": "old"} for key in body["ids"]]})
        if request.path == "/read":
            return web.json_response({"results": [self.held[key] for key in body["ids"] if key in self.held]})
        self.written.append([str(one["id"]) for one in body["records"]])
        for one in body["records"]:
            was = self.held.get(str(one["id"]), {}).get("name")
            self.held[str(one["id"])] = one | {"name": self.spell(one["name"], was)}
        return web.json_response({"results": [{"id": one["id"], "status": "ok"} for one in body["records"]]})


Served = Callable[..., Spelling]


@pytest.fixture
def spelling(site: Site, answering: Callable[..., list[str]]) -> Served:
    def serve(spell: Callable[[str, str | None], str], **sync: Any) -> Spelling:
        api = Spelling(spell)
        site.sync = {"mode": "upsert", **sync}
        answering(api)
        site.sql("create table t as select i as id, 'R&D ' || i as name, 1.5::double as v from range(3) x(i)")
        return api

    return serve


def test_i46_a_spelling_is_sent_again_once_and_then_accepted(site: Site, spelling: Served) -> None:
    api = spelling(lambda name, _: html.escape(name))
    first = site.run().report
    assert (first.status, len(first.verified.mismatches)) == ("partial", 3)
    second = site.run().report
    assert (second.status, second.delivered, second.verified.mismatches) == ("succeeded", 3, ())
    assert second.hint is not None
    assert "'R&D 0' as 'R&amp;D 0'" in second.hint
    third = site.run().report
    assert (third.delivered, third.hint) == (0, None)
    with site.project as project:
        assert project.verify("users", count=None).mismatches == ()
        assert project.why("users", "1")["ledger"]["spelled"] == {"name": ["R&D 1", "R&amp;D 1"]}
    assert len(api.written) == 2


def test_i46_another_value_of_the_field_is_compared_anew(site: Site, spelling: Served) -> None:
    spelling(lambda name, _: html.escape(name))
    site.run()
    site.run()
    site.sql("update t set v = 7")
    assert site.run().report.status == "succeeded", "the name is spelled as before"
    site.sql("update t set name = 'S&P' where id = 1")
    report = site.run().report
    assert [one.key for one in report.verified.mismatches] == [1]
    assert site.run().report.verified.mismatches == ()


def test_i46_what_somebody_else_wrote_is_no_spelling(site: Site, spelling: Served) -> None:
    api = spelling(lambda name, _: name)
    site.run()
    for _ in range(3):
        api.held["1"]["name"] = "changed by hand"
        with site.project as project:
            assert [one.key for one in project.verify("users", count=None).mismatches] == [1]
        assert site.run().report.delivered == 1
    assert api.held["1"]["name"] == "R&D 1"


@pytest.mark.parametrize(
    "spell", [lambda name, was: was or name, lambda name, was: ""], ids=["kept", "dropped"]
)
def test_i46_a_value_that_is_not_taken_is_no_spelling(site: Site, spelling: Served, spell: Any) -> None:
    spelling(spell)
    site.run()
    site.sql("update t set name = 'new ' || id")
    for _ in range(3):
        report = site.run().report
        assert (report.status, len(report.verified.mismatches)) == ("partial", 3)


@pytest.mark.parametrize(("sent", "held"), [("", None), (None, "")])
def test_i46_nothing_in_another_form_is_a_spelling(
    site: Site, spelling: Served, sent: Any, held: Any
) -> None:
    api = spelling(lambda name, _: name or held)
    site.sql(f"update t set name = {'null' if sent is None else repr(sent)}")
    assert len(site.run().report.verified.mismatches) == 3
    second = site.run().report
    assert (second.status, second.delivered, len(second.verified.respelled)) == ("succeeded", 3, 3)
    assert not site.run().report.changes["update"]
    assert len(api.written) == 2


def test_i46_spellings_outlive_the_state_s_other_changes_and_keep_no_values_where_none_are_kept(
    site: Site, spelling: Served
) -> None:
    api = spelling(lambda name, _: html.escape(name), ledger={"values": False})
    site.run()
    site.run()
    with site.project as project:
        assert project.verify("users", count=None).checked == 3
        assert "R&" not in json.dumps(project.why("users", "1")["ledger"])
    api.written.clear()
    site.run()
    assert api.written == []


def test_verify_all_reads_records_that_are_in_doubt_and_counts_them(site: Site, spelling: Served) -> None:
    spelling(lambda name, _: html.escape(name))
    site.run()
    with site.project as project:
        verified = project.verify("users", count=None)
    assert (verified.checked, len(verified.mismatches), verified.open) == (3, 3, 3)


def test_i46_verify_too_waits_for_what_is_shown_late(site: Site, spelling: Served) -> None:
    api = spelling(lambda name, _: name)
    site.api["read_lag"] = "20s"
    site.write()
    site.run()
    api.stale = 1
    with site.project as project:
        assert project.verify("users", count=None).mismatches == ()
    assert api.stale == 0
