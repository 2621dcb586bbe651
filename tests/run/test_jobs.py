"""Batches that a destination takes in as jobs: the id is durable before it is asked about, and a later run asks again."""

from __future__ import annotations

import pytest
from plugin import Api, settings
from sites import Site
from test_crash_table import killed_at

from backhaul.errors import StateError


@pytest.fixture
def api(plugged: Api, site: Site) -> Api:
    """A project whose thirty rows go as two jobs."""
    site.fill(30)
    return plugged


def test_many_records_go_as_jobs_and_few_at_once(site: Site, api: Api) -> None:
    site.sql("update t set name = 'bad' where id = 7")
    report = site.run().report
    assert (report.status, report.delivered, report.rejected) == ("partial", 29, 1), report.error
    assert [len(rows) for rows in api.uploads] == [20, 10]
    assert len(api.records) == 29
    assert site.sql("update t set name = 'good' where id = 7").run().report.delivered == 1
    assert (len(api.uploads), len(api.sent), api.records["7"]["name"]) == (2, 1, "good")
    assert site.run().report.requests == 0


def test_i3_a_run_that_ends_first_leaves_the_job_to_the_next_run(site: Site, api: Api) -> None:
    api.working = False
    settings(site, job_timeout="0.3s")
    report = site.run().report
    assert (report.status, report.delivered, report.deferred) == ("deferred", 0, 30)
    assert "still works on 30 records" in str(report.error)
    site.sql("update t set name = 'newer' where id = 3")
    report = site.run().report
    assert (report.status, report.requests > 0) == ("deferred", True)
    assert len(api.uploads) == 2
    api.working = True
    report = site.run().report
    assert (report.status, report.delivered) == ("succeeded", 31), report.error
    assert (len(api.uploads), len(api.sent), api.records["3"]["name"]) == (2, 1, "newer")


def test_what_is_underway_is_not_settled_by_anything_but_a_run(site: Site, api: Api) -> None:
    api.working = False
    settings(site, job_timeout="0.3s")
    site.run()
    with site.project as project, pytest.raises(StateError, match="still works"):
        project.plan("users")


@pytest.mark.parametrize("point", ["handed_over", "answered"])
def test_i5_a_job_is_collected_after_a_kill(site: Site, api: Api, point: str) -> None:
    killed_at(site, point)
    assert api.uploads
    report = site.run().report
    assert report.status == "succeeded", report.error
    assert len(api.records) == 30
    started = [key for job in api.jobs.values() if job["state"] == "done" for key in job["done"]]
    assert len(started) == len(set(started)), "nothing whose job may have begun is sent again"


def test_trouble_while_asking_is_not_an_answer(site: Site, api: Api) -> None:
    api.trouble = 3
    report = site.run().report
    assert (report.status, report.delivered) == ("succeeded", 30)
    assert len(api.uploads) == 2


def test_a_job_that_the_destination_has_forgotten_is_sent_again(site: Site, api: Api) -> None:
    api.working = False
    settings(site, job_timeout="0.2s")
    site.run()
    api.jobs.clear()
    api.working = True
    report = site.run().report
    assert report.status == "succeeded", report.error
    assert len(api.records) == 30
