"""Dead letters: who gets in, what is sent again, and how they leave."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sites import Site

from backhaul.errors import UsageError


def bad(site: Site, faulty: Callable[..., None]) -> int:
    """Ten rows of which 4 is refused; gives the dead letter's id."""
    site.fill(10)
    faulty(refuse_key="4")
    report = site.run().report
    assert (report.rejected, report.delivered) == (1, 9)
    (letter,) = site.letters()
    return int(letter["id"])


def mark(site: Site, letter: int, status: str) -> None:
    with site.project as project:
        project.mark_dead_letters([letter], status)


def test_a_dead_letter_tells_what_why_and_when(site: Site, faulty: Callable[..., None]) -> None:
    bad(site, faulty)
    (letter,) = site.letters()
    assert letter["key"] == 4
    assert letter["op"] == "upsert"
    assert letter["error"] == {"code": "rejected", "message": "4 is not welcome"}
    assert letter["payload"] == {"id": 4, "name": "n4", "score": 6.0}
    assert letter["attempts"] == 1
    assert letter["first_failed_at"].endswith("Z")


def test_a_replay_sends_the_newest_value(site: Site, faulty: Callable[..., None]) -> None:
    letter = bad(site, faulty)
    faulty()
    assert site.run().report.requests == 0
    mark(site, letter, "replay")
    site.sql("update t set name = 'newer' where id = 4")
    report = site.run().report
    assert report.delivered == 1
    assert site.sink.records["4"]["name"] == "newer"
    assert site.letters() == []


def test_a_replay_finds_a_row_that_an_incremental_read_passes_over(
    site: Site, faulty: Callable[..., None]
) -> None:
    site.sync = {
        "mode": "upsert",
        "model": {"warehouse": "main", "table": "t", "primary_key": "id", "cursor": "v"},
    }
    site.write()
    letter = bad(site, faulty)
    faulty()
    mark(site, letter, "replay")
    assert site.run().report.delivered == 1
    assert site.letters() == []


def test_a_replay_that_is_refused_again_stays_and_is_counted(site: Site, faulty: Callable[..., None]) -> None:
    letter = bad(site, faulty)
    mark(site, letter, "replay")
    assert site.run().report.rejected == 1
    (again,) = site.letters()
    assert (again["id"], again["attempts"], again["replay"]) == (letter, 2, False)
    assert site.run().report.requests == 0


def test_a_record_leaves_by_itself_when_its_row_changes_and_is_taken(
    site: Site, faulty: Callable[..., None]
) -> None:
    bad(site, faulty)
    site.sql("update t set v = 77 where id = 4")
    assert site.run().report.rejected == 1
    assert site.letters()[0]["payload"]["score"] == 77
    faulty()
    assert site.run().report.requests == 0
    site.sql("update t set v = 78 where id = 4")
    assert site.run().report.delivered == 1
    assert site.letters() == []
    assert site.sink.records == site.model()


def test_a_discarded_one_is_gone_and_not_sent_until_its_row_changes(
    site: Site, faulty: Callable[..., None]
) -> None:
    letter = bad(site, faulty)
    mark(site, letter, "discarded")
    faulty()
    assert site.letters() == []
    assert site.run().report.requests == 0
    site.sql("update t set v = 78 where id = 4")
    assert site.run().report.delivered == 1
    assert site.sink.records == site.model()


def test_a_letter_that_does_not_exist_is_said_so(site: Site) -> None:
    site.fill(1)
    site.run()
    with site.project as project, pytest.raises(UsageError, match="no dead letter 77"):
        project.mark_dead_letters([77], "replay")


def test_a_value_that_does_not_fit_rejects_its_record_and_no_other(site: Site) -> None:
    site.fields = {"id": "integer", "name": {"type": "string", "max_length": 5}, "score": "number"}
    site.write()
    site.fill(10).sql("update t set name = 'far too long' where id = 4")
    report = site.run().report
    assert (report.status, report.delivered, report.rejected, report.exit_code) == ("partial", 9, 1, 3)
    (letter,) = site.letters()
    assert letter["key"] == 4
    assert "name" in letter["error"]["message"]
    assert "4" not in site.sink.records
    again = site.run().report
    assert (again.status, again.rejected, again.requests) == ("succeeded", 0, 0)
    site.sql("update t set name = 'short' where id = 4")
    assert site.run().report.delivered == 1
    assert site.letters() == []
    assert site.sink.records == site.model()


def test_when_everything_is_rejected_by_the_mapping_no_request_is_made(site: Site) -> None:
    site.fields = {"id": "integer", "name": {"type": "string", "max_length": 1}, "score": "number"}
    site.write()
    site.fill(5)
    report = site.run().report
    assert (report.rejected, report.requests, report.status) == (5, 0, "partial")
    assert site.run().report.rejected == 0


def test_a_refused_value_that_went_back_leaves_nothing_behind(
    site: Site, faulty: Callable[..., None]
) -> None:
    """Acknowledged, changed to something refused, changed back: what the destination holds is right again."""
    site.fill(10)
    site.run()
    faulty(refuse_key="4")
    site.sql("update t set v = 99 where id = 4")
    assert site.run().report.rejected == 1
    site.sql("update t set v = 6 where id = 4")
    report = site.run().report
    assert report.requests == 0
    assert site.sink.records == site.model()
    assert site.letters() == []


def test_a_refused_row_that_left_the_model_leaves_nothing_behind(
    site: Site, faulty: Callable[..., None]
) -> None:
    bad(site, faulty)
    site.sql("delete from t where id = 4")
    assert site.run().report.status == "succeeded"
    assert site.sink.records == site.model()
    assert site.letters() == []


def test_a_refused_delete_is_not_sent_again_until_it_is_replayed(
    site: Site, faulty: Callable[..., None]
) -> None:
    site.fill(10)
    site.run()
    faulty(refuse_key="4")
    site.sql("delete from t where id = 4")
    assert site.run().report.rejected == 1
    (letter,) = site.letters()
    assert (letter["op"], letter["key"]) == ("delete", 4)
    again = site.run().report
    assert (again.requests, again.rejected, again.status) == (0, 0, "succeeded")
    faulty()
    mark(site, letter["id"], "replay")
    assert site.run().report.delivered == 1
    assert site.sink.records == site.model()
    assert site.letters() == []


@pytest.mark.parametrize("status", ["dead", "discarded"])
def test_a_changed_mapping_frees_a_dead_letter(site: Site, faulty: Callable[..., None], status: str) -> None:
    letter = bad(site, faulty)
    if status == "discarded":
        mark(site, letter, status)
    assert site.run().report.requests == 0
    site.sync = {"nulls": "skip"}  # the values and their hashes stay what they were
    site.write()
    report = site.run().report
    assert (report.delivered, report.rejected) == (0, 1)
    assert site.run().report.requests == 0
    faulty()
    site.sync = {"nulls": "clear"}
    site.write()
    assert site.run().report.delivered == 1
    assert site.letters() == []


def test_a_changed_mapping_does_not_send_a_refused_delete_again(
    site: Site, faulty: Callable[..., None]
) -> None:
    """A delete is the same with any mapping; a person may have it sent once more."""
    site.fill(10).run()
    faulty(refuse_key="4")
    site.sql("delete from t where id = 4")
    assert site.run().report.rejected == 1
    assert site.run().report.requests == 0
    faulty()
    site.sync = {"nulls": "skip"}
    site.write()
    assert site.run().report.changes["delete"] == 0
    assert "4" in site.sink.records
    (letter,) = site.letters()
    mark(site, letter["id"], "replay")
    assert site.run().report.changes["delete"] == 1
    assert "4" not in site.sink.records


def test_a_changed_mapping_judges_what_it_refused_once_more(site: Site) -> None:
    site.fill(10).sql("update t set name = 'x' where id = 4")
    value = {"value": "case when id = 4 then 'x' else v::varchar end", "type": "number"}
    site.sync = {"fields": {"score": value}}
    site.write()
    assert site.run().report.rejected == 1
    assert site.run().report.rejected == 0
    site.sync = {"fields": {"score": value | {"null": "skip"}}}
    site.write()
    assert site.run().report.rejected == 1
    assert [letter["attempts"] for letter in site.letters()] == [0]
