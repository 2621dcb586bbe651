"""Large plans go to Marketo as files of a bulk import, where the destination says so."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
import test_conformance_marketo as conformance
from aiohttp import web
from vendor_recordings import answering, at

from backhaul.destinations.kit import Http, Job, Wire
from backhaul.destinations.marketo import Marketo, MarketoConfig
from backhaul.errors import Halt, Throttled, Unsettled
from backhaul.sandbox.kit import Faults
from backhaul.sandbox.marketo import MarketoSandbox
from backhaul.testing.batches import RecordBatch
from backhaul.testing.conformance import Site
from backhaul.testing.serving import serving
from backhaul.types import Delivered, Field, FieldType, Op, Outcomes, Rejected


class TestBulk(conformance.TestMarketo):
    """The whole suite once more."""

    gaps: Mapping[str, str] = {"only_what_changed_is_sent": "a file holds whole records, and is asked about"}

    @pytest.fixture
    def remote(self) -> Iterator[conformance.MarketoRemote]:
        sandbox = MarketoSandbox(calls=100_000)
        with serving(sandbox.app()) as url:
            yield conformance.MarketoRemote(sandbox, url, bulk_above=0)


def make(url: str, http: Http) -> Marketo:
    return Marketo(
        MarketoConfig(base_url=url, client_id="service", client_secret="hidden", bulk_above=0), http
    )


@pytest.fixture
def sandbox() -> MarketoSandbox:
    return MarketoSandbox(calls=10_000)


@pytest.fixture
async def marketo(sandbox: MarketoSandbox) -> AsyncIterator[Marketo]:
    with serving(sandbox.app()) as url:
        async with at(url, make) as made:
            yield made


def batch(*rows: dict[str, Any], **types: FieldType) -> RecordBatch:
    names = dict.fromkeys(["email", *(name for row in rows for name in row)])
    fields = tuple(Field(name, types.get(name, FieldType.ANY)) for name in names)
    return RecordBatch(Op.UPSERT, "leads", ("email",), fields, list(rows), Wire.CSV)


async def done(marketo: Marketo, sent: RecordBatch) -> dict[str, Any]:
    handed = await marketo.write(sent)
    assert isinstance(handed, Job)
    while isinstance(handed, Job):
        handed = await marketo.collect(sent, handed.id)
    assert isinstance(handed, Outcomes)
    return {item.key: item for item in handed.items}


async def test_every_row_of_a_file_is_accounted_for(marketo: Marketo, sandbox: MarketoSandbox) -> None:
    rows = [
        {"email": f"p{number}@example.com", "firstName": 'O"Hara,\nAda', "seats": number}
        for number in range(3)
    ]
    found = await done(marketo, batch(*rows, {"email": "nobody", "firstName": "x", "seats": 1}))
    said = "Invalid value for field 'email' and value 'nobody'"
    assert found.pop("nobody") == Rejected("nobody", "import", said)
    assert found == {row["email"]: Delivered(row["email"]) for row in rows}
    held = sandbox.records()["leads"].values()
    assert [(lead["firstName"], lead["seats"]) for lead in held] == [
        ('O"Hara,\nAda', number) for number in range(3)
    ]


async def test_moments_are_sent_to_the_second(marketo: Marketo, sandbox: MarketoSandbox) -> None:
    rows = [
        {
            "email": "a@example.com",
            "signedUpAt": "2026-01-02T03:04:05.678901Z",
            "notes": "at 03:04:05.678, or so",
        },
        {"email": "b@example.com", "signedUpAt": None, "notes": None},
    ]
    found = await done(marketo, batch(*rows, signedUpAt=FieldType.DATETIME))
    assert {type(item) for item in found.values()} == {Delivered}
    first, second = sandbox.records()["leads"].values()
    assert (first["signedUpAt"], first["notes"]) == ("2026-01-02T03:04:05Z", "at 03:04:05.678, or so")
    assert (second["signedUpAt"], second["notes"]) == (None, None)


async def test_fields_that_are_to_be_left_alone_do_not_go_into_a_file(marketo: Marketo) -> None:
    sent = RecordBatch(
        Op.UPSERT, "leads", ("email",), (Field("email"), Field("plan", skip_null=True)), [{"email": "a@example.com"}], Wire.CSV
    )  # fmt: skip
    with pytest.raises(Halt, match="cannot leave 'plan' alone"):
        await marketo.write(sent)


async def test_a_full_queue_is_waited_for(marketo: Marketo, sandbox: MarketoSandbox) -> None:
    sandbox.import_seconds = 60
    for number in range(10):
        await marketo.write(batch({"email": f"p{number}@example.com"}))
    with pytest.raises(Throttled, match="Too many imports") as raised:
        await marketo.write(batch({"email": "a@example.com"}))
    assert raised.value.after == 30


@pytest.mark.parametrize(
    "state",
    [
        {"status": "Failed", "numOfLeadsProcessed": 0, "numOfRowsFailed": 0},
        {"status": "Complete", "numOfLeadsProcessed": 1, "numOfRowsFailed": 0},
        {"status": "Complete", "numOfRowsFailed": 0},
        {"status": "Complete", "numOfLeadsProcessed": 2},
        {"status": "Complete", "numOfLeadsProcessed": 0, "numOfRowsFailed": 3},
    ],
)
async def test_numbers_that_do_not_add_up_settle_nobody_who_is_not_named(state: dict[str, Any]) -> None:
    file = io.StringIO()
    csv.writer(file).writerows([["email", "Import Failure Reason"], ["b@example.com", "no"]])

    def answer(request: web.Request) -> web.Response:
        if request.path.endswith("/failures.json"):
            return web.Response(text=file.getvalue())
        return web.Response(body=orjson.dumps({"success": True, "result": [state]}))

    sent = batch(*({"email": f"{name}@example.com"} for name in "ab"))
    async with answering(with_token(answer), make) as marketo:
        found = {item.key: item for item in (await marketo.collect(sent, "7")).items}
    named = (
        {"b@example.com": Rejected("b@example.com", "import", "no")} if state.get("numOfRowsFailed") else {}
    )
    assert found == named


@pytest.mark.parametrize("body", [{"result": [{"status": "Lost"}]}, {"result": [{}]}])
async def test_a_state_that_is_not_known_is_asked_for_again(body: dict[str, Any]) -> None:
    answer = orjson.dumps({"success": True, **body})
    async with answering(with_token(lambda _: web.Response(body=answer)), make) as marketo:
        with pytest.raises(Unsettled):
            await marketo.collect(batch({"email": "a@example.com"}), "7")


async def test_of_an_import_that_is_forgotten_the_leads_tell(
    marketo: Marketo, sandbox: MarketoSandbox
) -> None:
    """Marketo knows imports for seven days; of one that it does not know, those that are as they were sent are delivered."""
    rows = [
        {"email": f"{name}@example.com", "firstName": name, "seats": 3, "trial": True, "plan": None}
        for name in "abc"
    ]
    types = {"seats": FieldType.INTEGER, "trial": FieldType.BOOLEAN}
    await done(marketo, batch(*rows[:2], **types))
    sandbox.instance.leads.put(*renamed(sandbox, "b@example.com"))
    sandbox.import_life = -1.0
    assert await marketo.collect(batch(*rows, **types), "1000") == Outcomes((Delivered("a@example.com"),))


def renamed(sandbox: MarketoSandbox, email: str) -> tuple[str, dict[str, Any]]:
    """The lead's id, and another first name."""
    (own,) = sandbox.instance.leads.find(("email",), [email])
    return own, {"firstName": "somebody"}


def with_token(handler: Any) -> Any:
    token = web.json_response
    return lambda request: (
        token({"access_token": "t", "expires_in": 3600})
        if request.path.startswith("/identity")
        else handler(request)
    )


def test_a_large_first_sync_is_a_few_calls(sandbox: MarketoSandbox, tmp_path: Path) -> None:
    with serving(sandbox.app()) as url:
        remote = conformance.MarketoRemote(sandbox, url, bulk_above=1000)
        site = Site(tmp_path, conformance.TestMarketo.case, remote)
        site.model({f"k{number}": ("same", 1) for number in range(60_000)})
        run = site.run()
        assert (run.status, run.delivered) == ("succeeded", 60_000), run.error
        assert not run.verified.mismatches
        assert sorted(item.done for item in sandbox.imports.values()) == [10_000, 50_000]
        site.model({f"k{number}": ("other" if number < 10 else "same", 1) for number in range(60_000)})
        assert site.run().changes == {"create": 0, "update": 10, "delete": 0}
    assert len(sandbox.imports) == 2


def test_a_lost_answer_to_a_file_loses_nobody(sandbox: MarketoSandbox, tmp_path: Path) -> None:
    with serving(sandbox.app()) as url:
        remote = conformance.MarketoRemote(sandbox, url, bulk_above=0, timeout="3s")
        site = Site(tmp_path, conformance.TestMarketo.case, remote)
        site.model({f"k{number}": ("same", 1) for number in range(100)})
        sandbox.faults = Faults(reset_after=0.5)
        run = site.run()
        assert (run.status, run.delivered) == ("succeeded", 100), run.error
    assert len(sandbox.records()["leads"]) == 100


async def test_a_row_with_a_warning_is_not_delivered() -> None:
    """Adobe's guide to bulk lead import, Warnings: each row of warnings.json has its reason in a last column."""
    state = {
        "batchId": 1,
        "status": "Complete",
        "numOfLeadsProcessed": 2,
        "numOfRowsFailed": 0,
        "numOfRowsWithWarning": 1,
    }

    def answer(request: web.Request) -> web.Response:
        if request.path.endswith("/oauth/token"):
            return web.json_response({"access_token": "t", "expires_in": 3599})
        if request.path.endswith("/warnings.json"):
            return web.Response(
                text="email,score,Import Warning Reason\nb@example.com,high,Invalid value for field 'score'\n"
            )
        return web.json_response({"success": True, "result": [state]})

    sent = batch(*({"email": f"{name}@example.com", "score": "high"} for name in "ab"))
    async with answering(answer, make) as marketo:
        found = {item.key: item for item in (await marketo.collect(sent, "1")).items}
        assert found["a@example.com"] == Delivered("a@example.com")
        assert found["b@example.com"] == Rejected(
            "b@example.com", "import", "Invalid value for field 'score'"
        )
        state["numOfRowsWithWarning"] = 2
        assert list((await marketo.collect(sent, "1")).items) == [found["b@example.com"]]
