"""The destination that the guide writes, taken from its page as it stands there, under the conformance suite."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from backhaul.sandbox.kit import RECORDS, Sandbox
from backhaul.testing.conformance import Case, DestinationSuite
from backhaul.testing.remote import SandboxRemote, installed
from backhaul.testing.serving import serving

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "write-a-destination.md"
CLASS, *_ = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
(ENTRY,) = re.findall(r"^```toml\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


class AcmeSandbox(Sandbox):
    """Acme, as the guide's class takes it to be."""

    name = "Acme"

    def __init__(self) -> None:
        super().__init__()
        self.people: dict[str, dict[str, Any]] = {}

    def routes(self, router: web.UrlDispatcher) -> None:
        for path in ("upsert", "delete", "read"):
            router.add_post(f"/people/{path}", self._people)

    def records(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        return {"people": self.people}

    def writes(self, request: web.Request) -> bool:
        return not request.path.endswith("/read")

    def admit(self, request: web.Request) -> web.Response | None:
        return None if request.headers.get("Authorization") == "Bearer sandbox" else self.refusal(401)

    def refusal(self, status: int, code: str = "", retry_after: float | None = None) -> web.Response:
        after = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
        return web.json_response({"message": code or "no"}, status=status, headers=after)

    async def _people(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        if not self.writes(request):
            return web.json_response(
                {"people": [self.people[one] for one in body["ids"] if one in self.people]}
            )
        request[RECORDS] = len(body["people"])
        if any(person["id"] == self.faults.poison_key for person in body["people"]):
            return self.refusal(400, "one of them is not welcome")
        return web.json_response(
            {"people": self.spoil([self._take(request.path, person) for person in body["people"]])}
        )

    def _take(self, path: str, person: dict[str, Any]) -> dict[str, Any]:
        if self.refuses(person["id"]):
            return {"id": person["id"], "ok": False, "code": "unwelcome", "message": "not this one"}
        held = self.people.pop(person["id"], {})
        if path.endswith("/upsert"):
            self.people[person["id"]] = held | person
        return {"id": person["id"], "ok": True}


class AcmeRemote(SandboxRemote[AcmeSandbox]):
    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return self.sandbox.people

    def lose(self, key: str) -> None:
        del self.sandbox.people[key]


class TestGuide(DestinationSuite):
    case = Case(object="people", identify="id", text="email", number="seats")

    @pytest.fixture
    def remote(self) -> Iterator[AcmeRemote]:
        sandbox = AcmeSandbox()
        name, target = re.findall(r"(\w+) = \"(.+)\"", ENTRY)[0]
        with installed(name, target, CLASS), serving(sandbox.app()) as url:
            yield AcmeRemote(sandbox, type="acme", base_url=url, token="sandbox", rate_limits=["100000/1m"])


def test_it_is_one_short_file() -> None:
    assert CLASS.count("\n") < 120
