"""What is kept of dead letters: by reference or encrypted, for how long, and what is left of one that is kept no more."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sites import Site

from backhaul.errors import StateError, UsageError
from backhaul.state.keeping import Keeping
from backhaul.state.opening import open_state

OLD, NEW, OTHER = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2, 3))


@pytest.fixture(params=["sqlite", "postgres"])
def anywhere(request: pytest.FixtureRequest, site: Site) -> Iterator[Site]:
    """A site with each kind of state."""
    if request.param == "postgres":
        site.settings = {"state": request.getfixturevalue("postgres_db")}
        site.write()
    yield site


def configure(site: Site, **settings: Any) -> None:
    site.settings = {name: value for name, value in site.settings.items() if name == "state"} | settings
    site.write()


def stored(site: Site) -> list[dict[str, Any]]:
    """The letters as the state has them, closed ones too."""
    state = open_state(site.settings.get("state", site.root / ".backhaul"))
    try:
        rows = [
            dict(row)  # type: ignore[call-overload]
            for name in ("dead_letters", "closed_letters")
            for row in state.do(name, {"scope": None, "id": None})
        ]
    finally:
        state.close()
    return rows


def refuse(site: Site, faulty: Callable[..., None], *keys: int) -> None:
    for key in keys:
        faulty(refuse_key=str(key))
        site.sql(f"update t set v = v + 1000 where id = {key}")
        assert site.run().report.rejected == 1
    faulty()


def status(site: Site, key: int) -> str:
    with site.project as project:
        (found,) = [row["status"] for row in project.records("users") if row["key"] == key]
    return str(found)


def keys(monkeypatch: pytest.MonkeyPatch, *given: str) -> dict[str, Any]:
    """The setting, with keys in the environment."""
    for number, key in enumerate(given):
        monkeypatch.setenv(f"LETTERS_{number}", key)
    return {"dead_letters": {"keys": [f"${{LETTERS_{number}}}" for number in range(len(given))]}}


def test_without_a_key_the_state_holds_no_payload_and_people_see_it_all_the_same(
    anywhere: Site, faulty: Callable[..., None]
) -> None:
    """S17: by reference."""
    anywhere.fill(10).run()
    refuse(anywhere, faulty, 4)
    (row,) = stored(anywhere)
    assert (row["payload"], row["seal"], row["field"]) == ("", "", None)
    (letter,) = anywhere.letters()
    assert letter["payload"] == {"id": 4, "name": "n4", "score": 1006.0}


def test_a_payload_whose_plan_is_kept_no_more_is_said_so(site: Site, faulty: Callable[..., None]) -> None:
    configure(site, history={"keep": 0})
    site.fill(10).run()
    refuse(site, faulty, 4)
    (letter,) = site.letters()
    assert letter["payload"] is None
    shown = site.call("dead-letters", "show", str(letter["id"])).stdout
    assert "kept no more; what the model says now: backhaul why users 4" in shown


def test_with_a_key_message_and_payload_are_encrypted(
    anywhere: Site, faulty: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """S17: nothing of the record is in the row but its key; with the key it is all there, without any plan."""
    configure(anywhere, history={"keep": 0}, **keys(monkeypatch, OLD))
    anywhere.fill(10).run()
    refuse(anywhere, faulty, 4)
    (row,) = stored(anywhere)
    assert row["seal"] not in ("", "plain")
    shown = str(row) + base64.b64decode(row["payload"]).decode("latin-1")
    assert not [word for word in ("welcome", "score", "1006.0") if word in shown]
    (letter,) = anywhere.letters()
    assert letter["payload"] == {"id": 4, "name": "n4", "score": 1006.0}
    assert letter["error"]["message"] == "4 is not welcome"


def test_the_newest_key_encrypts_and_runs_bring_older_letters_to_it(
    anywhere: Site, faulty: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(anywhere, **keys(monkeypatch, OLD))
    anywhere.fill(10).run()
    refuse(anywhere, faulty, 4)
    (before,) = stored(anywhere)
    configure(anywhere, **keys(monkeypatch, NEW, OLD))
    assert [letter["payload"]["name"] for letter in anywhere.letters()] == ["n4"]
    assert anywhere.run().report.status == "succeeded"
    (after,) = stored(anywhere)
    assert after["seal"] != before["seal"]
    configure(anywhere, **keys(monkeypatch, NEW))
    assert [letter["payload"]["name"] for letter in anywhere.letters()] == ["n4"]


@pytest.mark.parametrize("given", [(), (OTHER,)])
def test_where_the_key_is_gone_or_another_one_nothing_is_sent_and_nothing_lost(
    site: Site, faulty: Callable[..., None], monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...]
) -> None:
    configure(site, **keys(monkeypatch, OLD))
    site.fill(10).run()
    refuse(site, faulty, 4)
    before = stored(site)
    configure(site, **keys(monkeypatch, *given))
    site.sql("update t set v = -1")
    seen = len(site.sink.seen)
    report = site.run().report
    assert (report.status, report.exit_code, report.requests) == ("failed", 2, 0)
    assert "not among `dead_letters: keys`" in str(report.error)
    assert len(site.sink.seen) == seen
    with pytest.raises(UsageError, match="encrypted with key"):
        site.letters()
    assert stored(site) == before
    configure(site, **keys(monkeypatch, OLD))
    assert site.run().report.delivered == 10
    assert site.sink.records == site.model()


def test_a_lost_key_is_got_over_by_sending_the_newest_values(
    site: Site, faulty: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(site, **keys(monkeypatch, OLD))
    site.fill(10).run()
    refuse(site, faulty, 4)
    configure(site, **keys(monkeypatch, OTHER))
    command = site.call("dead-letters", "replay", "--sync", "users", "--yes")
    assert command.exit_code == 0
    assert site.run().report.delivered == 1
    assert site.letters() == []


@pytest.mark.parametrize("key", ["short", "x" * 44, base64.b64encode(b"1" * 31).decode()])
def test_what_is_no_key_is_said_before_anything_runs(
    site: Site, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    configure(site, **keys(monkeypatch, key))
    site.fill(1)
    with pytest.raises(UsageError, match="32 bytes in base64") as raised:
        site.run()
    assert key not in str(raised.value)


def test_a_key_that_is_not_set_or_stands_in_the_file_is_refused(site: Site) -> None:
    site.fill(1)
    configure(site, dead_letters={"keys": ["${NO_SUCH_KEY}"]})
    with pytest.raises(UsageError, match="NO_SUCH_KEY is not set"):
        site.run()
    configure(site, dead_letters={"keys": [OLD]})
    with pytest.raises(UsageError, match="is a secret and stands here in plain text"):
        site.run()


def test_an_encrypted_letter_cannot_be_passed_off_as_another_records() -> None:
    keeping = Keeping([b"k" * 32])
    message, payload, seal = keeping.close("users", "4", "no", '{"a": 1}')
    row = {"id": 1, "scope": "users", "key": "4", "message": message, "payload": payload, "seal": seal}
    assert keeping.open(row) == ("no", '{"a": 1}')
    for other in ({"key": "5"}, {"scope": "leads"}, {"payload": payload[:-8] + "AAAAAAA="}, {"payload": "%"}):
        with pytest.raises(StateError, match="altered"):
            keeping.open(row | other)


def test_an_old_letter_expires_and_its_record_stays_refused(
    anywhere: Site, faulty: Callable[..., None]
) -> None:
    """I3: what is kept no more is said, counted, listed as rejected, not sent, and leaves when its value changes."""
    configure(anywhere, dead_letters={"keep": "2s"})
    anywhere.fill(10)
    faulty(refuse_key="4")
    assert anywhere.run().report.rejected == 1
    faulty()
    configure(anywhere, dead_letters={"keep": "1ms"})
    said = anywhere.call("run").stdout
    assert "1 dead letter is kept no more" in said
    assert anywhere.letters() == []
    (row,) = stored(anywhere)
    assert (row["status"], row["message"], row["payload"]) == ("expired", "", "")
    assert status(anywhere, 4) == "rejected"
    report = anywhere.run().report
    assert (report.requests, report.expired, report.json()["expired"]) == (0, 0, 0)
    anywhere.sql("update t set v = 77 where id = 4")
    assert anywhere.run().report.delivered == 1
    assert stored(anywhere) == []
    assert anywhere.sink.records == anywhere.model()


def test_an_expired_or_discarded_letter_can_still_be_replayed(
    site: Site, faulty: Callable[..., None]
) -> None:
    configure(site, dead_letters={"keep": "1ms"})
    site.fill(10)
    faulty(refuse_key="4")
    assert site.run().report.rejected == 1
    (row,) = stored(site)
    assert row["status"] == "expired"
    faulty()
    with site.project as project:
        project.mark_dead_letters([row["id"]], "replay")
    assert site.run().report.delivered == 1
    assert site.sink.records == site.model()


def test_letters_of_an_earlier_release_are_read_and_encrypted_by_the_next_run(
    site: Site, faulty: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.fill(10).run()
    refuse(site, faulty, 4)
    with sqlite3.connect(site.state) as database:
        database.execute("UPDATE dead_letters SET seal = 'plain', payload = '{\"name\": \"old\"}'")
    assert site.letters()[0]["payload"] == {"name": "old"}
    configure(site, **keys(monkeypatch, NEW))
    site.run()
    assert "old" not in str(stored(site))
    assert site.letters()[0]["payload"] == {"name": "old"}


@pytest.mark.parametrize("kept", [{}, {"dead_letters": {"keys": ["${LETTERS_0}"]}}])
def test_a_message_is_masked_cut_and_harmless_to_a_terminal(
    site: Site, answering: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, kept: dict[str, Any]
) -> None:
    """S11: ANSI sequences and line breaks are written out, also in what is stored."""
    from aiohttp import web

    monkeypatch.setenv("LETTERS_0", OLD)
    monkeypatch.setenv("SINK_TOKEN", "hunter2-hunter2")

    async def refusing(request: web.Request) -> web.StreamResponse:
        said = "\x1b[31mbad\x9b2J\u202e token hunter2-hunter2\n  to do    curl evil " + "x" * 5000
        body = await request.json()
        results = [{"id": record["id"], "status": "error", "error": said} for record in body["records"]]
        return web.json_response({"results": results})

    site.settings = kept
    answering(refusing, headers={"Authorization": "Bearer ${SINK_TOKEN}"})
    site.fill(1)
    assert site.run().report.rejected == 1
    (letter,) = site.letters()
    message = letter["error"]["message"]
    assert message.startswith("\\x1b[31mbad\\x9b2J\\x202e token *** to do curl evil xxx")
    assert len(message) <= 1000
    for words in (["list"], ["list", "--all"], ["show", str(letter["id"])], ["list", "--json"]):
        out = site.call("dead-letters", *words).stdout
        assert "bad" in out
        assert not {"\x1b", "\x9b", "\u202e"} & set(out)
        assert "hunter2" not in out
        assert not any(line.startswith("  to do    curl") for line in out.splitlines())
