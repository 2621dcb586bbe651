"""Which dead letters a command is about: by group, code, field, sync, id or all; counted, and asked for."""

from __future__ import annotations

import json
import os
import pty
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from sites import Site
from tests.waiting import HANGS

SAID = {
    0: ("TOO_LONG", "name is too long"),
    1: ("TOO_LONG", "score 7 is too long"),
    2: ("TAKEN", "name 'n2' is taken"),
}


async def _refusing(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    results = []
    for record in body.get("records", ()):
        code, message = SAID.get(record["id"] % 4, ("", ""))
        bad = {"status": "error", "error": {"code": code, "message": message}} if code else {"status": "ok"}
        results.append({"id": record["id"], **bad})
    return web.json_response({"results": results})


@pytest.fixture
def refused(site: Site, answering: Callable[..., list[str]]) -> Site:
    """Twelve rows: three records are refused for each of three reasons."""
    answering(_refusing)
    site.fill(12)
    assert site.run().report.rejected == 9
    return site


def call(site: Site, *words: str, code: int = 0) -> str:
    called = site.call("dead-letters", *words)
    out, err = called.stdout, called.stderr
    assert called.exit_code == code, err
    return out or err


def replayed(site: Site) -> list[int]:
    return [letter["key"] for letter in site.letters() if letter["replay"]]


@pytest.mark.parametrize(
    ("by", "keys"),
    [
        (["--code", "TOO_LONG"], [0, 1, 4, 5, 8, 9]),
        (["--field", "name"], [0, 2, 4, 6, 8, 10]),
        (["--field", "name", "--code", "TAKEN"], [2, 6, 10]),
        (["--sync", "us*"], [0, 1, 2, 4, 5, 6, 8, 9, 10]),
        (["--all"], [0, 1, 2, 4, 5, 6, 8, 9, 10]),
        (["--code", "NO_SUCH"], []),
    ],
)
def test_everything_given_has_to_fit(refused: Site, by: list[str], keys: list[int]) -> None:
    assert json.loads(call(refused, "replay", *by, "--yes", "--json")).keys() == {"replayed"}
    assert replayed(refused) == keys


def test_a_group_is_named_as_list_shows_it_and_keeps_its_name(refused: Site) -> None:
    groups = json.loads(call(refused, "list", "--json"))["groups"]
    assert {(one["code"], one["field"], one["count"]) for one in groups} == {
        ("TOO_LONG", "name", 3), ("TOO_LONG", "score", 3), ("TAKEN", "name", 3),
    }  # fmt: skip
    (group,) = [one["group"] for one in groups if one["field"] == "score"]
    assert f"replay --group {group}" in call(refused, "list")
    call(refused, "discard", "--code", "TAKEN", "--yes")
    call(refused, "replay", "--group", group, "--yes")
    assert replayed(refused) == [1, 5, 9]
    only = json.loads(call(refused, "list", "--group", group, "--json"))
    assert [letter["key"] for letter in only["dead_letters"]] == [1, 5, 9]
    assert [one["group"] for one in only["groups"]] == [group]


def test_messages_that_repeat_a_records_own_words_are_one_group(
    site: Site, answering: Callable[..., list[str]]
) -> None:
    """Also where payloads are kept by reference."""

    async def refusing(request: web.Request) -> web.StreamResponse:
        records = (await request.json()).get("records", ())
        results = [
            {
                "id": one["id"],
                "status": "error",
                "error": {"code": "BAD", "message": f"{one['name']} is no name"},
            }
            for one in records
        ]
        return web.json_response({"results": results})

    answering(refusing)
    site.fill(2)
    site.sql("update t set name = case id when 0 then 'Dana at sea' else 'Ada on land' end")
    assert site.run().report.rejected == 2
    said = call(site, "list")
    assert said.count("such as") == 1
    assert "<value> is no name" in said
    (group,) = json.loads(call(site, "list", "--json"))["groups"]
    assert f"--group {group['group']}" in said
    call(site, "replay", "--group", group["group"], "--yes")
    assert replayed(site) == [0, 1]


def test_ids_are_named_and_nothing_is_asked(refused: Site) -> None:
    ids = [letter["id"] for letter in refused.letters()][:2]
    assert "2 go with the next run" in call(refused, "replay", *map(str, ids))
    assert replayed(refused) == [0, 1]


@pytest.mark.parametrize("act", ["replay", "discard"])
def test_without_a_terminal_and_without_yes_nothing_is_done(refused: Site, act: str) -> None:
    said = call(refused, act, "--all", code=2)
    assert said.startswith("error: this asks first (9 records), and there is no terminal to ask on")
    assert "add --yes" in said
    letters = refused.letters()
    assert len(letters) == 9
    assert replayed(refused) == []


@pytest.mark.parametrize(("answer", "gone"), [("y", 3), ("n", 0)])
def test_on_a_terminal_it_says_how_many_and_asks(refused: Site, answer: str, gone: int) -> None:
    master, slave = pty.openpty()
    process = refused.command("dead-letters", "discard", "--code", "TAKEN", stdin=slave)
    os.write(master, f"{answer}\n".encode())
    out, err = process.communicate(timeout=HANGS)
    os.close(slave)
    os.close(master)
    assert "Discard 3 records? Their values are not sent until they change." in err
    assert len(refused.letters()) == 9 - gone
    assert ("3 not sent until their values change" in out) == bool(gone)


def test_what_was_discarded_is_listed_shown_and_can_be_replayed(refused: Site) -> None:
    (one,) = [letter for letter in refused.letters() if letter["key"] == 2]
    call(refused, "discard", str(one["id"]))
    assert "(discarded)" in call(refused, "list", "--discarded")
    shown = call(refused, "show", str(one["id"]))
    assert "discarded: not sent until its value or the mapping changes, or you replay it" in shown
    assert '"n2"' not in shown
    call(refused, "replay", str(one["id"]))
    assert replayed(refused) == [2]


def test_the_fix_is_shown_wherever_the_refusal_is(refused: Site) -> None:
    refused.sql("update t set name = 'x' || name where id % 4 in (2, 3)")
    run = refused.call("run")
    said = run.stdout
    fix = "two records claim one value"
    assert run.exit_code == 3
    assert "3 × TAKEN name: " in said
    assert fix in said
    (letter, *_) = [one for one in refused.letters() if one["error"]["code"] == "TAKEN"]
    assert fix in letter["fix"]
    assert f"to do     {letter['fix']}" in call(refused, "show", str(letter["id"]))
    assert f"to do    {letter['fix']}" in call(refused, "list", "--code", "TAKEN")
    with refused.project as project:
        found: list[dict[str, Any]] = project.runs("users", 1)[0]["refused"]
    assert [(one["code"], one["field"], one["count"], one["class"]) for one in found] == [
        ("TAKEN", "name", 3, "record")
    ]


def test_ids_do_not_come_twice(refused: Site) -> None:
    """A script that replays an id never means another record."""
    last = max(letter["id"] for letter in refused.letters())
    refused.sql("delete from t where id = 10")
    refused.run()
    refused.sql("insert into t values (14, 'n14', 1)")
    refused.run()
    (new,) = [letter["id"] for letter in refused.letters() if letter["key"] == 14]
    assert new > last
