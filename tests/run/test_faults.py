"""Destinations that fail in part: what is refused is named, everything else arrives, and nothing is counted twice."""

from __future__ import annotations

from collections.abc import Callable

from sites import Site

MIX = {"status_429": 0.05, "status_500": 0.05, "reset_after": 0.05, "refuse": 0.01}


def test_a_mix_of_faults_leaves_exactly_the_refused_records(site: Site, faulty: Callable[..., None]) -> None:
    site.fill(5000)
    faulty(**MIX)
    refused = {key for key in site.model() if site.sink.refused(key)}
    run = site.run()
    for _ in range(3):
        if not run.report.deferred and not run.report.unknown:
            break
        assert run.report.status == "deferred" or run.report.unknown, run.report
        run = site.run()
    with site.project as project:
        letters = project.dead_letters("users")
        statuses = project.status()[0]["records"]
    assert len(refused) > 20
    assert {str(letter["key"]) for letter in letters} == refused
    assert site.sink.records == {key: row for key, row in site.model().items() if key not in refused}
    assert statuses["rejected"] == len(refused)
    assert statuses["acknowledged"] == 5000 - len(refused)


def test_the_report_counts_what_the_destination_counts(site: Site, faulty: Callable[..., None]) -> None:
    site.fill(3000)
    faulty(**MIX)
    report = site.run().report
    taken = [seen for seen in site.sink.seen if seen.path == "/upsert"]
    assert report.requests == len(taken)
    assert report.delivered + report.rejected + report.deferred + report.unknown == 3000
    assert report.retries == len(taken) - 30
    assert report.rejected == sum(site.sink.refused(key) for key in site.model())
    assert report.exit_code == 3
    assert report.status == "partial"


def test_unchanged_refused_records_are_not_sent_or_counted_again(
    site: Site, faulty: Callable[..., None]
) -> None:
    site.fill(500)
    faulty(refuse=0.05)
    first = site.run().report
    requests = len(site.sink.seen)
    second = site.run().report
    assert first.rejected
    assert second.status == "succeeded"
    assert second.rejected == 0
    assert len(site.sink.seen) == requests


def test_a_refusal_of_everything_is_configuration_and_makes_no_dead_letters(
    site: Site, faulty: Callable[..., None]
) -> None:
    site.fill(2000)
    faulty(reject_all="MISSING_SCOPE")
    run = site.run()
    assert run.report.status == "failed"
    assert run.report.exit_code == 1
    assert "configuration" in str(run.report.error)
    assert site.letters() == []
    assert len(site.sink.seen) < 200
    faulty()
    mended = site.run().report
    assert mended.status == "succeeded"
    assert mended.delivered == 2000
    assert site.sink.records == site.model()


def test_a_refusal_inside_every_answer_is_configuration_too(site: Site, faulty: Callable[..., None]) -> None:
    site.fill(2000)
    faulty(refuse=1.0)
    run = site.run()
    assert run.report.status == "failed"
    assert run.report.rejected == 0
    assert site.letters() == []
    faulty()
    assert site.run().report.delivered == 2000


def test_every_attempt_at_a_batch_carries_one_idempotency_key(
    site: Site, faulty: Callable[..., None]
) -> None:
    site.api = {"idempotency_header": "Idempotency-Key"}
    site.write()
    site.fill(1500)
    faulty(status_500=0.2, reset_before=0.1, reset_after=0.1, omit=0.02)
    site.run()
    by_keys: dict[tuple[str, ...], set[str | None]] = {}
    for seen in site.sink.seen:
        by_keys.setdefault(tuple(seen.keys), set()).add(seen.idempotency_key)
    assert any(len(seen.keys) < 100 for seen in site.sink.seen)
    assert all(len(keys) == 1 and None not in keys for keys in by_keys.values())
    assert len(set.union(*by_keys.values())) == len(by_keys)


def test_a_batch_that_no_answer_names_keeps_its_idempotency_key(
    site: Site, faulty: Callable[..., None]
) -> None:
    site.api = {"idempotency_header": "Idempotency-Key"}
    site.write()
    site.fill(50)
    faulty(omit=1.0)
    report = site.run().report
    assert report.unknown == 50
    assert len(site.sink.seen) == 5
    assert len({seen.idempotency_key for seen in site.sink.seen}) == 1


def test_an_insert_with_an_idempotency_header_may_be_repeated(
    site: Site, faulty: Callable[..., None]
) -> None:
    site.api = {"idempotency_header": "Idempotency-Key"}
    site.sync = {"mode": "insert"}
    site.write()
    site.fill(1000)
    faulty(reset_before=0.3)
    report = site.run().report
    assert report.delivered == 1000
    assert site.sink.records == site.model()


def test_an_insert_without_one_is_never_repeated(site: Site, faulty: Callable[..., None]) -> None:
    site.sync = {"mode": "insert"}
    site.write()
    site.fill(1000)
    faulty(reset_after=0.3)
    report = site.run().report
    assert report.unknown
    assert report.delivered + report.unknown == 1000
    again = site.run().report
    assert again.delivered == 0
    assert all(count == 1 for count in site.sent().values())
