"""Klaviyo: what the connector makes of answers and of jobs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import places
import pytest
from aiohttp import web
from vendor_recordings import Recording, answering, meaning, recorded_answer, recordings

from backhaul.destinations.kit import Http, Job
from backhaul.destinations.klaviyo import Klaviyo, KlaviyoConfig
from backhaul.errors import Forbidden, Halt, Refused, Throttled, Unsettled
from backhaul.project import load
from backhaul.sandbox.klaviyo import KlaviyoSandbox
from backhaul.testing.batches import RecordBatch
from backhaul.testing.duckdb_file import opened
from backhaul.testing.serving import serving
from backhaul.types import Delivered, Field, Op, Outcomes, Rejected, Retry

EVERY = recordings("klaviyo")
REFUSED = [item for item in EVERY if item["response"]["status"] >= 400]


def make(url: str, http: Http) -> Klaviyo:
    return Klaviyo(KlaviyoConfig(base_url=url, api_key="pk"), http)


def batch(count: int = 2, **record: Any) -> RecordBatch:
    fields = (Field("external_id"), *(Field(name) for name in record))
    rows = [{"external_id": str(number), **record} for number in range(count)]
    frame = Klaviyo.frame(None, "profiles", Op.UPSERT, ("external_id",))  # type: ignore[arg-type]
    return RecordBatch(Op.UPSERT, "profiles", ("external_id",), fields, rows, frame=frame)


@pytest.mark.skipif(not EVERY, reason="no recorded answers of Klaviyo are there")
def test_all_recordings_are_of_an_api_that_is_no_more() -> None:
    """Versions 1 and 2, which the connector never calls: only what a status means carries over."""
    assert len(EVERY) == 15
    assert all(
        "/api/v1/" in item["expected_request"]["url"] or "/api/v2/" in item["expected_request"]["url"]
        for item in EVERY
    )


@pytest.mark.skipif(not EVERY, reason="no recorded answers of Klaviyo are there")
@pytest.mark.parametrize("recording", REFUSED, ids=lambda item: item["id"])
async def test_a_recorded_refusal_is_understood(recording: Recording) -> None:
    async with answering(lambda _: recorded_answer(recording), make) as klaviyo:
        assert await meaning(klaviyo, batch(first_name="Ada")) in recording["acceptable"]


def said(status: int, body: Any) -> Callable[[web.Request], web.Response]:
    def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body if isinstance(body, str) else json.dumps(body))

    return answer


def error(pointer: str, code: str = "invalid") -> dict[str, Any]:
    return {"code": code, "title": "Invalid input.", "detail": "no good", "source": {"pointer": pointer}}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, {"errors": [error("/data/", "not_authenticated")]}, Halt),
        (403, {"errors": [error("/data/", "permission_denied")]}, Forbidden),
        (400, {"errors": [error("/data/attributes")]}, Refused),
        (413, {}, Refused),
        (429, {"errors": [error("/data/", "throttled")]}, Throttled),
        (503, "", Unsettled),
        (202, "<html>", Unsettled),
        (202, {"data": {}}, Unsettled),
    ],
)
async def test_what_an_answer_means_as_a_whole(status: int, body: Any, expected: type[Exception]) -> None:
    async with answering(said(status, body), make) as klaviyo:
        with pytest.raises(expected) as raised:
            await klaviyo.write(batch(first_name="Ada"))
    assert type(raised.value) is expected


async def test_a_job_that_is_refused_for_one_profile_names_it() -> None:
    body = {"errors": [error("/data/attributes/profiles/data/1/attributes/phone_number")]}
    async with answering(said(400, body), make) as klaviyo:
        outcomes = await klaviyo.write(batch(3, first_name="Ada"))
    assert isinstance(outcomes, Outcomes)
    assert [(type(item), item.key) for item in outcomes.items] == [
        (Retry, "0"),
        (Rejected, "1"),
        (Retry, "2"),
    ]


def job(status: str, failed: Any, errors: Any) -> Callable[[web.Request], web.Response]:
    def answer(request: web.Request) -> web.Response:
        if request.path.endswith("import-errors"):
            return web.json_response({"data": errors, "links": {"next": None}})
        return web.json_response(
            {"data": {"id": "j", "attributes": {"status": status, "total_count": 2, "failed_count": failed}}}
        )

    return answer


BY_PAYLOAD = {
    "attributes": {**error("/data/attributes"), "original_payload": {"external_id": "1", "first_name": "Ada"}}
}
BY_PLACE = {"attributes": error("/data/attributes/profiles/data/1/attributes/email")}
BY_NOTHING = {"attributes": error("/data/attributes")}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (job("processing", 0, []), Job("j", 2.0)),
        (job("complete", 0, []), {"0": Delivered, "1": Delivered}),
        (job("complete", 1, [BY_PAYLOAD]), {"0": Delivered, "1": Rejected}),
        (job("complete", 1, [BY_PLACE]), {"0": Delivered, "1": Rejected}),
        (job("complete", 1, [BY_NOTHING]), {}),
        (job("cancelled", 0, []), {}),
    ],
)
async def test_what_became_of_a_job(answer: Any, expected: Any) -> None:
    async with answering(answer, make) as klaviyo:
        found = await klaviyo.collect(batch(first_name="Ada"), "j")
    if isinstance(found, Outcomes):
        assert {item.key: type(item) for item in found.of(("0", "1"))} == expected
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("failed", "errors"), [(None, []), ("1", []), (1, None), (1, {"0": "refused"})], ids=repr
)
async def test_a_job_that_does_not_say_who_failed_delivers_nobody(failed: Any, errors: Any) -> None:
    async with answering(job("complete", failed, errors), make) as klaviyo:
        with pytest.raises(Unsettled):
            await klaviyo.collect(batch(first_name="Ada"), "j")


class Place:
    def __init__(self, folder: Path, sandbox: KlaviyoSandbox, url: str) -> None:
        self.folder, self.sandbox = folder, sandbox
        (folder / "syncs").mkdir()
        (folder / "backhaul.yml").write_text(json.dumps({
            "project": "p", "warehouses": {"main": {"type": "duckdb", "path": "w.duckdb"}},
            "destinations": {"klaviyo": {"type": "klaviyo", "base_url": url, "api_key": "local-key", "poll_interval": "0.05s"}},
        }))  # fmt: skip
        (folder / "syncs" / "s.yml").write_text(json.dumps({
            "name": "s", "model": {"table": "t", "primary_key": "id"}, "destination": "klaviyo", "object": "profiles",
            "identify": {"external_id": "id::varchar"}, "fields": {"phone_number": "phone", "properties.plan": "plan"},
        }))  # fmt: skip

    def run(self, rows: str) -> Any:
        with opened(self.folder / "w.duckdb") as db:
            db.execute("CREATE OR REPLACE TABLE t (id BIGINT, phone VARCHAR, plan VARCHAR)")
            db.execute(f"INSERT INTO t {rows}")
        return load(self.folder).run("s")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    sandbox = KlaviyoSandbox()
    sandbox.job_seconds = 0.1
    with serving(sandbox.app()) as url:
        yield Place(tmp_path, sandbox, url)


def test_many_go_as_one_job_and_those_it_fails_are_named(place: Place) -> None:
    run = place.run("SELECT i, if(i % 100 = 0, '+1234567', NULL), 'pro' FROM range(1000) t(i)")
    assert (run.delivered, run.rejected) == (990, 10)
    assert len(place.sandbox.jobs) == 1
    assert {letter["error"]["code"] for letter in run.dead_letters()} == {"invalid"}
    assert not run.verified.mismatches


def test_few_go_one_by_one(place: Place) -> None:
    run = place.run("VALUES (1, '+15005550006', 'pro'), (2, 'nonsense', 'team')")
    assert (run.delivered, run.rejected) == (1, 1)
    assert not place.sandbox.jobs
    (profile,) = place.sandbox.profiles.values()
    assert profile["properties"] == {"plan": "pro"}


def test_an_attribute_that_profiles_do_not_have_ends_the_run_before_anything_is_sent(place: Place) -> None:
    path = place.folder / "syncs" / "s.yml"
    path.write_text(path.read_text().replace("properties.plan", "plan"))
    run = place.run("VALUES (1, NULL, 'pro')")
    assert run.status == "failed"
    assert "properties.NAME" in str(run.hint)
    assert not place.sandbox.profiles


def project(folder: Path, url: str, fields: dict[str, str], table: str, **more: Any) -> Any:
    sync = {"object": "profiles", "identify": {"external_id": "id::varchar"}, "fields": fields}
    return places.project(
        folder, {"type": "klaviyo", "base_url": url, "api_key": "local-key", **more}, sync, table
    )


def test_a_nested_property_is_read_back(tmp_path: Path) -> None:
    sandbox = KlaviyoSandbox()
    sandbox.job_seconds = 0.0
    fields = {"properties.address.city": "city", "properties.plan": "city"}
    table = "SELECT i AS id, 'Bern' AS city FROM range(3) t(i)"
    with serving(sandbox.app()) as url, project(tmp_path, url, fields, table) as made:
        report = made.run("s").report
    assert {json.dumps(profile["properties"]) for profile in sandbox.profiles.values()} == {
        '{"address": {"city": "Bern"}, "plan": "Bern"}'
    }
    assert (report.delivered, report.verified.checked, report.verified.mismatches) == (3, 3, ())


def test_the_next_page_of_a_jobs_errors_counts_as_errors() -> None:
    klaviyo = make("https://a.klaviyo.com", None)  # type: ignore[arg-type]
    first = "/api/profile-bulk-import-jobs/j/import-errors?page[size]=100"
    assert klaviyo.endpoints("GET", first) == ("errors",)
    assert klaviyo.endpoints("GET", f"https://a.klaviyo.com{first}&page%5Bcursor%5D=x") == ("errors",)


def test_a_record_that_was_too_large_for_a_job_is_not_delivered_with_it_by_a_later_run(
    tmp_path: Path,
) -> None:
    sandbox = KlaviyoSandbox()
    sandbox.job_seconds = 3600.0
    table = "SELECT i AS id, if(i = 5, repeat('x', 120000), 'pro') AS plan FROM range(20) t(i)"
    waits = {"poll_interval": "0.05s", "job_timeout": "0.2s"}
    with (
        serving(sandbox.app()) as url,
        project(tmp_path, url, {"properties.plan": "plan"}, table, **waits) as made,
    ):
        first = made.run("s").report
        assert (len(sandbox.jobs), first.delivered) == (1, 0)
        sandbox.job_seconds = 0.0
        for job in sandbox.jobs.values():
            job.due = 0.0
        second = made.run("s").report
        held = {profile["external_id"] for profile in sandbox.profiles.values()}
        stages = {str(record["key"]): record["status"] for record in made.records("s")}
    assert held == {str(number) for number in range(20) if number != 5}
    assert (second.rejected, second.delivered) == (1, 19)
    assert stages["5"] == "rejected"


async def test_places_of_a_job_that_held_fewer_profiles_are_not_those_of_the_batch() -> None:
    """`original_payload` may be null (OpenAPI document: import errors), and then only the place is left."""
    pointer = {"pointer": "/data/attributes/profiles/data/1"}
    about = {
        "code": "invalid",
        "title": "Invalid",
        "detail": "no",
        "source": pointer,
        "original_payload": None,
    }
    done = {"status": "complete", "total_count": 3, "completed_count": 2, "failed_count": 1}

    def answer(request: web.Request) -> web.Response:
        if request.path.endswith("import-errors"):
            return web.json_response({"data": [{"attributes": about}], "links": {}})
        return web.json_response({"data": {"id": "j", "attributes": done}})

    sent = batch(4)
    async with answering(answer, make) as klaviyo:
        assert (await klaviyo.collect(sent, "j")).of(sent.keys) == ()


def test_a_job_with_many_errors_is_read_in_one_go(tmp_path: Path) -> None:
    sandbox = KlaviyoSandbox()
    sandbox.job_seconds = 0.0
    table = "SELECT i AS id, if(i % 6 = 0, '+1234567', NULL) AS phone FROM range(9000) t(i)"
    waits = {"poll_interval": "0.05s", "job_timeout": "20s"}
    with (
        serving(sandbox.app()) as url,
        project(tmp_path, url, {"phone_number": "phone"}, table, **waits) as made,
    ):
        report = made.run("s").report
    assert (report.delivered, report.rejected) == (7500, 1500)
    assert not [one for one in sandbox.requests if one.status == 429]


def test_of_a_job_that_is_forgotten_the_profiles_tell(tmp_path: Path) -> None:
    """A run ends before the job does, and the next one asks when Klaviyo does not know the job any more."""
    sandbox = KlaviyoSandbox()
    sandbox.job_seconds = 3600.0
    table = "SELECT i AS id, if(i = 5, '+1234567', NULL) AS phone, 'pro' AS plan FROM range(20) t(i)"
    fields = {"phone_number": "phone", "properties.plan": "plan"}
    waits = {"poll_interval": "50ms", "job_timeout": "200ms", "read_lag": "1ms"}
    with serving(sandbox.app()) as url, project(tmp_path, url, fields, table, **waits) as made:
        assert made.run("s").delivered == 0
        sandbox.job_life = sandbox.job_seconds = 0.0
        for job in sandbox.jobs.values():
            job.due = 0.0
        sandbox.job_life = -1.0
        late = made.run("s").report
        assert (late.delivered, len(sandbox.jobs)) == (19, 1)
        sandbox.job_life = 3600.0
        made.run("s")
        assert {str(one["key"]): one["status"] for one in made.records("s")}["5"] == "rejected"
