"""A destination that echoes its request: neither a secret of the project nor a token that it gave is shown or stored."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web
from cli_program import Call

from backhaul.demo.files import write_project
from backhaul.sandbox.kit import Sandbox, simulation
from backhaul.testing.duckdb_file import opened
from backhaul.testing.serving import serving

NAMES = (
    "braze",
    "customerio",
    "hubspot",
    "intercom",
    "iterable",
    "klaviyo",
    "marketo",
    "salesforce",
    "slack",
    "webhook",
    "zendesk",
)
MODEL = (
    "select i as contact_id, 'p' || i || '@example.com' as email, 'Ada' as first_name, 'L' as last_name, 'CTO' as job_title, "
    "'free' as plan, 1.5 as mrr, 3 as seats, 40.0 as health, 0.5 as churn_risk, date '2026-01-02' as last_seen from range(3) t(i)"
)
OAUTH = {"client_id": "echo-app", "client_secret": "echo-app-secret", "refresh_token": "echo-granted-first"}


class Echo:
    """A simulation in front of which every write, or every request, is answered with what it carried."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.status = 400
        self.everything = False
        self.given: set[str] = set()
        """What it gave at run time."""
        self.echoed = 0

    def app(self) -> web.Application:
        app = self.sandbox.app()
        app.middlewares.insert(0, self._echo)
        return app

    @web.middleware
    async def _echo(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if "/oauth" in request.path:
            answer = await handler(request)
            said = json.loads(answer.body)
            self.given |= {value for name, value in said.items() if name.endswith("_token")}
            return answer
        if not (self.everything or self.sandbox.writes(request)):
            return await handler(request)
        self.echoed += 1
        carried = [
            request.headers.get("Authorization", ""),
            request.path_qs,
            *request.headers.values(),
            *request.query.values(),
        ]
        words = " ".join(form for one in carried for form in forms(one))
        text = "x" * 285 + words  # what is cut before it is masked is not recognised
        error = {
            "message": text,
            "code": words,
            "detail": text,
            "title": words,
            "type": words,
            "id": words,
            "index": 0,
        }
        return web.json_response(
            {**error, "success": False, "error": error, "errors": [error]}, status=self.status
        )


def forms(text: str) -> Iterator[str]:
    yield text
    for one in text.split():
        yield from (
            one,
            quote(one, safe=""),
            quote(quote(one, safe=""), safe=""),
            one.encode().hex(),
            b64encode(one.encode()).decode(),
        )


@pytest.mark.parametrize("name", NAMES)
def test_what_a_destination_echoes_is_masked(name: str, tmp_path: Path, call: Call) -> None:
    kind = simulation(name)
    sample, sandbox = kind.sample, kind()
    assert sample is not None
    echo = Echo(sandbox)
    with serving(echo.app()) as url:
        write_project(tmp_path, sample, url)
        secrets = {value for key, value in sample.credentials.items() if key != "client_id"}
        if name == "hubspot":
            sandbox.oauth_app = OAUTH  # type: ignore[attr-defined]
            secrets = {OAUTH["client_secret"], OAUTH["refresh_token"]}
            told = (
                (tmp_path / "backhaul.yml")
                .read_text()
                .replace(
                    'access_token: "${HUBSPOT_ACCESS_TOKEN}"',
                    ", ".join(f'{key}: "${{{key.upper()}}}"' for key in OAUTH),
                )
            )
            (tmp_path / "backhaul.yml").write_text(told)
            (tmp_path / ".env").write_text(
                "".join(f"{key.upper()}={value}\n" for key, value in OAUTH.items())
            )
        (tmp_path / "syncs" / "scores.yml").unlink()
        (tmp_path / "models" / "contacts.sql").write_text(MODEL)
        with opened(tmp_path / "warehouse.duckdb"):
            pass
        shown = ""
        for echo.everything, echo.status, words in (
            (False, 400, "run"), (False, 400, "dead-letters list --json"), (True, 403, "run --json"), (True, 400, "check"),
        ):  # fmt: skip
            said = call(*words.split())
            shown += said.out + said.err
    assert echo.echoed
    assert echo.given or name not in ("hubspot", "marketo", "salesforce")
    kept = b"".join(path.read_bytes() for path in (tmp_path / ".backhaul").rglob("*") if path.is_file())
    for secret in secrets | echo.given:
        for form in forms(secret):
            assert form.rstrip("=") not in shown, (form, shown[max(shown.find(form) - 200, 0) :][:400])
            assert form.encode() not in kept
        assert secret[:-2] not in shown
