"""A destination that takes large batches in as jobs and updates in part, and its simulated API. Installed for a test by
`install`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from aiohttp import web
from sites import Site

from backhaul.destinations.kit import (
    Answer,
    Batch,
    Destination,
    Http,
    Job,
    JobsConfig,
    Spec,
    Wire,
    classify_status,
)
from backhaul.errors import BackhaulError, Unsettled
from backhaul.types import (
    BatchLimits,
    Delivered,
    Field,
    FieldType,
    ObjectSchema,
    Op,
    Outcome,
    Outcomes,
    Rejected,
)

BULK = 10
"""Rows from which on records go as a job."""


class Config(JobsConfig):
    base_url: str


class Jobs(Destination[Config]):
    """Few records go at once, many as a job: uploaded first, started by the first question about it."""

    spec: ClassVar[Spec] = Spec(
        name="jobs", config=Config, docs="", batch={Op.UPSERT: BatchLimits(5)}, describes_offline=True, deltas=True,
    )  # fmt: skip

    def __init__(self, config: Config, http: Http) -> None:
        super().__init__(config, http)
        self.base_url = config.base_url

    def batch_limits(self, object: str, op: Op, rows: int = 0) -> BatchLimits | None:
        return BatchLimits(20) if rows >= BULK else super().batch_limits(object, op, rows)

    def wire(self, object: str, op: Op, rows: int) -> Wire:
        return Wire.CSV if rows >= BULK else Wire.JSON

    async def describe(self, object: str) -> ObjectSchema:
        fields = (
            Field("id", FieldType.STRING, unique=True),
            Field("name"),
            Field("v", FieldType.NUMBER),
            Field("place.city"),
        )
        return ObjectSchema(object, {field.name: field for field in fields})

    async def write(self, batch: Batch) -> Outcomes | Job:
        if batch.wire is Wire.JSON:
            answer = await self.http.request("POST", "/now", body=b"[" + batch.text() + b"]")
            return Outcomes(tuple(map(_outcome, answer.json())))
        answer = await self.http.request(
            "POST", "/jobs", body=batch.text(), headers={"Content-Type": "text/csv"}
        )
        return Job(str(answer.json()["job"]), 0.0)

    async def collect(self, batch: Batch, job: str) -> Outcomes | Job:
        answer = await self.http.request("GET", f"/jobs/{job}")
        said = answer.json()
        if answer.status == 404:
            return Outcomes(())
        if said["state"] == "open":
            await self.http.request("PATCH", f"/jobs/{job}")
        if said["state"] != "done":
            return Job(job, 0.05)
        refused: Mapping[str, str] = said["refused"]
        return Outcomes(
            (*map(Delivered, said["done"]), *(Rejected(key, "bad", why) for key, why in refused.items()))
        )

    def classify(self, answer: Answer) -> BackhaulError | None:
        if answer.status == 404:
            return None
        return Unsettled("busy") if answer.status == 500 else classify_status(answer)


def _outcome(said: dict[str, Any]) -> Outcome:
    if said["refused"]:
        return Rejected(said["id"], "bad", "not this one")
    return Delivered(said["id"], created=said["created"])


class Api:
    """Jobs are worked on while `working` is set; a record named `bad` is refused."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Any]] = {}
        self.sent: list[list[dict[str, Any]]] = []
        """The bodies of requests without a job."""
        self.jobs: dict[str, dict[str, Any]] = {}
        self.uploads: list[list[str]] = []
        self.working = True
        self.refuse = ""
        self.trouble = self.resets = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/now", self.take)
        app.router.add_post("/jobs", self.upload)
        app.router.add_get("/jobs/{job}", self.look)
        app.router.add_patch("/jobs/{job}", self.start)
        return app

    async def take(self, request: web.Request) -> web.Response:
        self.sent.append(await request.json())
        said = [
            {"id": one["id"], "created": one["id"] not in self.records, "refused": one["id"] == self.refuse}
            for one in self.sent[-1]
        ]
        for one in self.sent[-1]:
            self.records.setdefault(one["id"], {}).update(one)
        if self.resets:
            self.resets -= 1
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(said)

    async def upload(self, request: web.Request) -> web.Response:
        rows = [line.replace('"', "").split(",") for line in (await request.text()).splitlines()]
        job = f"j{len(self.jobs)}"
        self.uploads.append([key for key, *_ in rows])
        self.jobs[job] = {"state": "open", "rows": rows}
        return web.json_response({"job": job})

    async def start(self, request: web.Request) -> web.Response:
        self.jobs[request.match_info["job"]]["state"] = "running"
        return web.json_response({})

    async def look(self, request: web.Request) -> web.Response:
        await asyncio.sleep(0)
        if self.trouble:
            self.trouble -= 1
            return web.json_response({}, status=500)
        job = self.jobs.get(request.match_info["job"])
        if job is None:
            return web.json_response({}, status=404)
        if job["state"] == "running" and self.working:
            self.finish(job)
        said = {name: job.get(name) for name in ("state", "done", "refused")}
        return web.json_response(said)

    def finish(self, job: dict[str, Any]) -> None:
        good = {key: {"id": key, "name": name} for key, name, *_ in job["rows"] if name != "bad"}
        self.records.update(good)
        refused = {key: "a bad name" for key, name, *_ in job["rows"] if name == "bad"}
        job |= {"state": "done", "done": list(good), "refused": refused}


def install(folder: Path) -> None:
    """Makes the destination known as an installed package would; `folder` has to be on the path."""
    info = folder / "plugin-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[backhaul.destinations]\njobs = plugin:Jobs\n")


def settings(site: Site, **given: Any) -> None:
    """Sets keys of the destination."""
    file = site.root / "backhaul.yml"
    project = json.loads(file.read_text())
    url = project["destinations"]["api"]["base_url"]
    project["destinations"]["api"] = {"type": "jobs", "base_url": url, **given}
    file.write_text(json.dumps(project))
