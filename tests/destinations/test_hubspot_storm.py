"""A whole run against a HubSpot that does everything wrong at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backhaul.sandbox.hubspot import HubSpotSandbox
from backhaul.sandbox.hubspot.property import Property
from backhaul.sandbox.kit import Faults
from backhaul.testing.conformance import Case, Site
from backhaul.testing.duckdb_file import opened
from backhaul.testing.remote import SandboxRemote
from backhaul.testing.serving import serving


class Remote(SandboxRemote[HubSpotSandbox]):
    """The simulated account; what a conformance test needs of it."""

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return {record["email"]: record for record in self.sandbox.records()["contacts"].values()}

    def lose(self, key: str) -> None:
        raise NotImplementedError


def test_all_but_the_refused_records_arrive_and_those_are_dead_letters(tmp_path: Path) -> None:
    sandbox = HubSpotSandbox(seed=3, burst=10_000, interval=0.2)
    sandbox.types["contacts"].properties["size"] = Property("size", "number", "number", own=False)
    sandbox.faults = Faults(
        throttle=0.025,
        throttle_silently=0.025,
        retry_after=0.1,
        error=0.05,
        reset_after=0.05,
        refuse=0.01,
        omit=0.02,
    )
    keys = [f"n{number}@example.com" for number in range(3000)]
    refused = {key for key in keys if sandbox.refuses(key)}
    assert 10 < len(refused) < 60
    with serving(sandbox.app()) as url:
        site = Site(
            tmp_path,
            Case("contacts", "email", "city", "size"),
            Remote(sandbox, type="hubspot", base_url=url, access_token="sandbox", rate_limits=["10000/10s"]),
        )
        site.model({keys[0]: ("Oslo", 0)})
        with opened(tmp_path / "warehouse.duckdb") as warehouse:
            warehouse.execute(
                "INSERT INTO model SELECT format('n{}@example.com', i), 'Oslo', i FROM range(1, 3000) t(i)"
            )
        runs = [site.run()]
        while {"retry", "unknown"} & site.statuses() and len(runs) < 4:
            runs.append(site.run())
        # The faults are drawn as the answers come: now and then five in a row are for one record, which is not given up.
        run = runs[0]
        assert (run.status, run.error) == ("partial", None)
        assert run.delivered + run.rejected > len(keys) * 0.97, (
            "what five attempts do not settle is the exception"
        )
        assert sum(run.delivered for run in runs) == len(keys) - len(refused)
        assert sum(run.rejected for run in runs) == len(refused)
        letters = runs[-1].dead_letters()
        assert {letter["payload"]["email"] for letter in letters} == refused
        assert {letter["error"]["code"] for letter in letters} == {"VALIDATION_ERROR"}
        assert set(site.remote.records()) == set(keys) - refused
        assert {429, 500, 0} <= {request.status for request in sandbox.requests}, "it was a storm"
        sandbox.faults = Faults()
        before = len(sandbox.requests)
        assert site.run().status in ("succeeded", "partial")
        written = [request for request in list(sandbox.requests)[before:] if request.path.endswith("/upsert")]
        assert sum(request.records for request in written) <= len(refused)
