"""Large plans go to Salesforce as jobs of the Bulk API: the whole engine against the simulated org."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import test_conformance_salesforce as conformance
from salesforce_calls import APP, batch, by_key, connected, row
from tests.waiting import HANGS

from backhaul.destinations.kit import Job, Wire
from backhaul.destinations.salesforce import bulk
from backhaul.errors import Halt, Refused
from backhaul.sandbox.kit import Faults
from backhaul.sandbox.salesforce import SalesforceSandbox
from backhaul.testing.batches import RecordBatch
from backhaul.testing.conformance import Site
from backhaul.testing.serving import serving
from backhaul.types import Delivered, Field, Gone, Op, Rejected, Retry

KEYS = [f"k{number}" for number in range(40)]


@pytest.fixture
def org() -> SalesforceSandbox:
    return SalesforceSandbox()


@pytest.fixture
def url(org: SalesforceSandbox) -> Iterator[str]:
    with serving(org.app()) as address:
        yield address


@pytest.fixture
def site(org: SalesforceSandbox, url: str, tmp_path: Path) -> Site:
    """Everything above ten records goes as a job."""
    remote = conformance.SalesforceRemote(org, url, bulk_above=10, job_timeout="20s")
    return Site(tmp_path, conformance.TestSalesforce.case, remote)


def jobs(org: SalesforceSandbox) -> list[tuple[str, int]]:
    return [(job.state, len(job.done)) for job in org.jobs.values()]


def in_csv(op: Op, *rows: dict[str, Any]) -> RecordBatch:
    names = dict.fromkeys(name for one in rows for name in one)
    fields = tuple(map(Field, names))
    return RecordBatch(
        op, "Customer__c", ("External_Id__c",), fields, list(rows), Wire.CSV, csv_null=bulk.NULL
    )


async def done(crm: Any, sent: RecordBatch) -> dict[str, Any]:
    handed = await crm.write(sent)
    assert isinstance(handed, Job)
    while isinstance(handed, Job):
        handed = await crm.collect(sent, handed.id)
    return by_key(handed)


def test_a_large_plan_is_a_job_and_a_small_one_is_not(site: Site, org: SalesforceSandbox) -> None:
    """Updates of a job hold what changed alone, an empty cell for the rest; a NULL clears."""
    site.model(dict.fromkeys(KEYS, ("same", 1)))
    run = site.run()
    assert (run.status, run.delivered) == ("succeeded", len(KEYS)), run.error
    assert not run.verified.mismatches
    assert jobs(org) == [("JobComplete", len(KEYS))]
    site.model(
        {key: (None if number < 15 else "same", 1 if number < 15 else 2) for number, key in enumerate(KEYS)}
    )
    run = site.run()
    assert (run.status, run.changes["update"]) == ("succeeded", len(KEYS)), run.error
    records = {
        record.values["External_Id__c"]: record for record in org.kinds["Customer__c"].records.values()
    }
    assert (records["k0"].values["Plan__c"], records["k0"].values["Score__c"]) == (None, 1.0)
    assert (records["k39"].values["Plan__c"], records["k39"].values["Score__c"]) == ("same", 2.0)
    assert records["k0"].written == ("External_Id__c", "Plan__c")
    assert records["k39"].written == ("External_Id__c", "Score__c")
    site.model({key: ("new" if key == "k3" else None if number < 15 else "same", 1 if number < 15 else 2)
                for number, key in enumerate(KEYS)})  # fmt: skip
    assert site.run().status == "succeeded"
    assert (len(org.jobs), site.held("k3", "Plan__c")) == (2, "new")


def test_deletes_of_a_large_plan_go_by_id(site: Site, org: SalesforceSandbox) -> None:
    site.model(dict.fromkeys(KEYS, ("x", 1)), mode="mirror")
    site.run()
    site.model(dict.fromkeys(KEYS[:25], ("x", 1)), mode="mirror")
    site.folder.joinpath("syncs/it.yml").write_text(
        json.dumps(
            {**json.loads(site.folder.joinpath("syncs/it.yml").read_text()), "guards": {"max_deletes": "90%"}}
        )
    )
    run = site.run()
    assert (run.status, run.changes["delete"]) == ("succeeded", 15), run.error
    assert set(site.remote.records()) == set(KEYS[:25])
    assert len(org.jobs) == 1


def test_a_complete_job_may_hold_refused_records(site: Site, org: SalesforceSandbox) -> None:
    rule = 'No "VIP" here: ask,\nfirst'
    org.kinds["Customer__c"].rules.append(lambda values: rule if values["Plan__c"] == "vip" else None)
    site.model({key: ("vip" if key == "k7" else "free", 1) for key in KEYS})
    run = site.run()
    assert (run.status, run.delivered, run.rejected) == ("partial", len(KEYS) - 1, 1), run.error
    (letter,) = run.dead_letters()
    assert letter["error"] == {
        "code": "FIELD_CUSTOM_VALIDATION_EXCEPTION",
        "message": rule.replace("\n", " "),
    }
    assert site.remote.records().keys() == set(KEYS) - {"k7"}


def test_a_failed_job_may_hold_delivered_records(site: Site, org: SalesforceSandbox) -> None:
    """What it did not get to is sent again, and nothing else."""
    org.job_fails_after = 30
    site.model(dict.fromkeys(KEYS, ("x", 1)))
    run = site.run()
    assert (run.status, run.delivered) == ("succeeded", len(KEYS)), run.error
    assert jobs(org) == [("Failed", 30), ("JobComplete", 10)]
    assert set(site.remote.records()) == set(KEYS)


def test_a_job_outlives_the_run_that_started_it(site: Site, org: SalesforceSandbox) -> None:
    """I26-like: the job's id is stored before it is awaited; the next run asks about it and sends nothing twice."""
    org.job_seconds = 3600
    file = site.folder / "backhaul.yml"
    file.write_text(file.read_text().replace('"20s"', '"1s"'))
    site.model(dict.fromkeys(KEYS, ("x", 1)))
    assert site.run().status == "deferred"
    org.job_seconds = 0
    site.model(dict.fromkeys(KEYS, ("y", 1)))
    assert site.run().status == "succeeded"
    assert jobs(org) == [("JobComplete", 40)] * 2
    assert {record["Plan__c"] for record in site.remote.records().values()} == {"y"}


def outlives(
    site: Site, org: SalesforceSandbox, keys: dict[str, tuple[str | None, float]], *lost: str
) -> Any:
    """Forty records are acknowledged, some are lost at the org, and a job with their changes outlives its run. Gives the
    report of the run that collects it."""
    site.model(dict.fromkeys(KEYS, ("x", 7)))
    assert site.run().status == "succeeded"
    for key in lost:
        site.remote.lose(key)
    org.job_seconds = 3600
    file = site.folder / "backhaul.yml"
    file.write_text(file.read_text().replace('"20s"', '"1s"'))
    site.model(keys)
    assert site.run().status == "deferred"
    org.job_seconds = 0
    return site.run()


def test_a_record_that_a_collected_job_recreated_is_whole(site: Site, org: SalesforceSandbox) -> None:
    """I1: its job held the changed field alone, and the org made a new record of that."""
    run = outlives(site, org, dict.fromkeys(KEYS, ("y", 7)), "k3")
    assert (run.status, run.recreated) == ("succeeded", 1), run.error
    assert (site.held("k3", "Plan__c"), site.held("k3", "Score__c")) == ("y", 7.0)
    assert {record["Score__c"] for record in site.remote.records().values()} == {7.0}
    assert jobs(org)[1] == ("JobComplete", 40)
    assert site.statuses() == {"acknowledged"}


def test_a_collected_job_of_changed_fields_leaves_the_others_alone(
    site: Site, org: SalesforceSandbox
) -> None:
    run = outlives(site, org, dict.fromkeys(KEYS, ("y", 7)))
    assert (run.status, run.delivered, run.recreated) == ("succeeded", 40, 0), run.error
    assert {record["Score__c"] for record in site.remote.records().values()} == {7.0}


def test_a_locked_record_of_a_job_is_sent_again(site: Site, org: SalesforceSandbox) -> None:
    org.kinds["Customer__c"].locked["k5"] = 1
    site.model(dict.fromkeys(KEYS, ("x", 1)))
    run = site.run()
    assert (run.status, run.delivered) == ("succeeded", len(KEYS)), run.error
    assert jobs(org) == [("JobComplete", 39), ("JobComplete", 1)]


def test_a_field_that_went_away_ends_the_run_and_rejects_nobody(site: Site, org: SalesforceSandbox) -> None:
    keys = [f"k{number}" for number in range(300)]
    site.model(dict.fromkeys(keys, ("x", 1)))
    org.hidden_from_jobs = "Plan__c"
    run = site.run()
    assert (run.status, run.rejected, run.dead_letters()) == ("failed", 0, [])
    assert "Field name not found : Plan__c" in run.error
    org.hidden_from_jobs = ""
    assert site.run().delivered == len(keys)


def test_answers_that_break_while_a_job_is_asked_about(site: Site, org: SalesforceSandbox) -> None:
    org.faults = Faults(truncate=0.4, reads=True)
    site.model(dict.fromkeys(KEYS, ("x", 1)))
    site.run()
    org.faults = Faults()
    assert site.run().status == "succeeded"
    assert set(site.remote.records()) == set(KEYS)
    assert site.statuses() == {"acknowledged"}


async def test_of_a_job_that_is_forgotten_the_records_tell(url: str, org: SalesforceSandbox) -> None:
    rows = [row("a", Plan__c="x", Score__c=1.5), row("b", Plan__c="y", Score__c=None)]
    async with connected(url) as crm:
        await done(crm, in_csv(Op.UPSERT, *rows))
        sent = in_csv(Op.UPSERT, *rows, row("c", Plan__c="never applied", Score__c=2))
        org.kinds["Customer__c"].matching("External_Id__c", "b")[0].values["Plan__c"] = "other"
        told = await crm.collect(sent, "750000000000000AAA")
    assert told.items == (Delivered("a"),)


async def test_inserts_may_go_as_a_job(url: str, org: SalesforceSandbox) -> None:
    async with connected(url, bulk_above=1) as crm:
        assert crm.wire("Customer__c", Op.INSERT, 2) is Wire.CSV
        assert crm.wire("Customer__c", Op.UPDATE, 2) is crm.wire("Customer__c", Op.UPSERT, 1) is Wire.JSON
        rows = [row("a", Plan__c=None, Score__c=1.5), row("b", Plan__c='x"\n,y'), row("c", Score__c="much")]
        found = await done(crm, in_csv(Op.INSERT, *rows))
        assert found["a"].created
        assert isinstance(found["b"], Delivered)
        assert found["c"].code == "INVALID_TYPE_ON_FIELD_IN_RECORD"
        again = await done(crm, in_csv(Op.UPSERT, *rows[:2]))
        assert not again["a"].created
        assert await crm.collect(in_csv(Op.UPSERT, *rows), "750000000000000AAA") != again
    assert {record.values["Plan__c"] for record in org.kinds["Customer__c"].records.values()} == {
        None,
        'x"\n,y',
    }


async def test_a_job_that_is_not_known_names_nobody(url: str) -> None:
    async with connected(url) as crm:
        assert (await crm.collect(batch(Op.UPSERT, row("a")), "750000000000000AAA")).items == ()
        with pytest.raises(Refused, match="external ID field does not exist"):
            await crm.write(
                RecordBatch(
                    Op.UPSERT, "Customer__c", ("Plan__c",), (Field("Plan__c"),), [{"Plan__c": "a"}], Wire.CSV
                )
            )


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        ("INVALID_EMAIL_ADDRESS:Email: invalid email address: x:Email --", Rejected("k", "INVALID_EMAIL_ADDRESS", "Email: invalid email address: x")),
        ("REQUIRED_FIELD_MISSING:Required fields are missing: [Name]:Name --", Rejected("k", "REQUIRED_FIELD_MISSING", "Required fields are missing: [Name]")),
        ("FIELD_CUSTOM_VALIDATION_EXCEPTION:no: never:-- --", Rejected("k", "FIELD_CUSTOM_VALIDATION_EXCEPTION", "no: never (--)")),
        ("ENTITY_IS_DELETED:entity is deleted:--", Gone("k", "ENTITY_IS_DELETED", "entity is deleted")),
        ("UNABLE_TO_LOCK_ROW:unable to obtain exclusive access to this record:--", Retry("k", "UNABLE_TO_LOCK_ROW: unable to obtain exclusive access to this record")),
        ("ODD", Rejected("k", "ODD", "ODD")),
    ],
)  # fmt: skip
def test_errors_of_a_file_are_those_of_records(error: str, outcome: Any) -> None:
    assert bulk._failed("k", error) == outcome


def test_the_command_line_syncs_to_the_simulated_org(site: Site, org: SalesforceSandbox) -> None:
    site.model(dict.fromkeys(KEYS, ("x", 1)))
    run = [sys.executable, "-m", "backhaul", "run", "--json"]
    first = subprocess.run(run, cwd=site.folder, capture_output=True, text=True, timeout=HANGS)
    assert first.returncode == 0, first.stderr
    (report,) = json.loads(first.stdout)["runs"]
    assert (report["delivered"], set(site.remote.records())) == (len(KEYS), set(KEYS))
    org.kinds["Customer__c"].rules.append(lambda values: "not more" if values["Score__c"] == 9 else None)
    site.model({key: ("x", 9 if key == "k1" else 1) for key in KEYS})
    second = subprocess.run(run, cwd=site.folder, capture_output=True, text=True, timeout=HANGS)
    assert second.returncode == 3, second.stderr
    assert APP["client_secret"] not in first.stdout + second.stderr


async def test_a_job_names_parents_by_their_external_id(org: SalesforceSandbox, url: str) -> None:
    acme = org.kinds["Account"].write({"Name": "Acme", "External_Id__c": "acme"}, None)
    fields = (Field("External_Id__c"), Field("LastName"), Field("Account.External_Id__c"))
    async with connected(url, parents=("Account",)) as crm:
        for parent, held in (("acme", acme.id), (None, None)):
            rows = [
                {"External_Id__c": key, "LastName": "L", "Account.External_Id__c": one}
                for key, one in (("a", parent), ("b", "no"))
            ]
            sent = RecordBatch(
                Op.UPSERT, "Contact", ("External_Id__c",), fields, rows, Wire.CSV, csv_null=bulk.NULL
            )
            found = await done(crm, sent)
            assert found["b"].code == "INVALID_FIELD"
            (record,) = org.kinds["Contact"].matching("External_Id__c", "a")
            assert record.values["AccountId"] == held


async def test_salesforce_ids_do_not_go_into_a_job(url: str) -> None:
    sent = RecordBatch(Op.UPSERT, "Customer__c", ("Id",), (Field("Id"),), [{"Id": "a"}], Wire.CSV)
    async with connected(url) as crm:
        with pytest.raises(Halt, match="gives ids itself"):
            await crm.write(sent)


def test_no_more_calls_are_made_than_the_org_has_left(site: Site, org: SalesforceSandbox) -> None:
    """What `Sforce-Limit-Info` leaves ends the run before Salesforce has to; the rest is deferred."""
    file = site.folder / "backhaul.yml"
    file.write_text(file.read_text().replace('"bulk_above": 10', '"bulk_above": 10000, "concurrency": 2'))
    keys = [f"k{number}" for number in range(2400)]
    site.model(dict.fromkeys(keys, ("x", 1)))
    org.daily.count = 8
    run = site.run()
    assert (run.status, run.rejected) == ("deferred", 0), run.error
    assert not any(request.status == 403 for request in org.requests)
    assert 0 < run.delivered < len(keys)
