"""HubSpot as an OAuth app: access tokens by refresh token."""

from __future__ import annotations

import pytest
from hubspot_calls import batch, by_key, connected, person
from pydantic import ValidationError

from backhaul.destinations.hubspot import HubSpotConfig
from backhaul.errors import Halt
from backhaul.sandbox.hubspot import HubSpotSandbox
from backhaul.testing.serving import serving
from backhaul.types import Delivered, Op

APP = {"client_id": "app", "client_secret": "hidden", "refresh_token": "granted"}


@pytest.fixture
def sandbox() -> HubSpotSandbox:
    made = HubSpotSandbox()
    made.oauth_app = APP
    return made


async def test_tokens_are_fetched_and_renewed(sandbox: HubSpotSandbox) -> None:
    with serving(sandbox.app()) as url:
        async with connected(url, access_token=None, **APP) as hubspot:
            for name in ("ada", "bob"):
                outcomes = await hubspot.write(batch(Op.UPSERT, person(name, firstname=name)))
                assert isinstance(by_key(outcomes)[name], Delivered)
                sandbox.end_tokens()
            assert hubspot.token == "oauth-1"


async def test_a_withdrawn_grant_stops_the_run(sandbox: HubSpotSandbox) -> None:
    with serving(sandbox.app()) as url:
        async with connected(url, access_token=None, **{**APP, "refresh_token": "withdrawn"}) as hubspot:
            with pytest.raises(Halt, match="invalid refresh token") as halted:
                await hubspot.describe("contacts")
            assert "withdrawn" not in str(halted.value)


@pytest.mark.parametrize("given", [{}, {**APP, "access_token": "t"}, {"client_id": "app"}])
def test_one_credential_is_needed(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="give access_token, or"):
        HubSpotConfig(**given)
