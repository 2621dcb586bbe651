"""The keys of `type: hubspot`, and the limits that go with an account's plan."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field as Setting
from pydantic import model_validator

from backhaul.destinations.hubspot.answers import DAY
from backhaul.destinations.kit import DestinationConfig, Secret
from backhaul.types import Rate

_TIERS = {
    "free": (100, 250_000),
    "starter": (100, 250_000),
    "professional": (190, 650_000),
    "enterprise": (190, 1_000_000),
}
"""Requests of a private app in ten seconds and in a day, by plan (HubSpot's changelog: increasing our API limits)."""
_OAUTH = (Rate("burst", 110, 10),)
"""An OAuth app's, in each account; a day has no limit of its own (usage guidelines)."""
ASSOCIATIONS = Rate("associations", 500_000, DAY, "associations")
"""Of the requests for associations, which count as requests too; from memory."""


class HubSpotConfig(DestinationConfig):
    """A HubSpot account, by the token of a private app, or as an OAuth app (scopes: crm.objects.*.read, .write,
    crm.schemas.*.read)."""

    access_token: Secret | None = None
    """The private app's token."""
    client_id: str | None = None
    """The OAuth app's id; goes with client_secret and refresh_token, in place of access_token."""
    client_secret: Secret | None = None
    refresh_token: Secret | None = None
    """What the account's owner granted to the OAuth app."""
    base_url: str = "https://api.hubapi.com"
    """Another address, such as a simulation's."""
    tier: Literal["free", "starter", "professional", "enterprise"] = "free"
    """The account's plan, which sets the limits; an OAuth app has limits of its own. With an API limit pack: `rate_limits`."""
    api_version: str = Setting(default="v3", pattern=r"^(v3|\d{4}-\d{2})$")
    """v3, or a dated version such as 2026-09."""

    known_endpoints: ClassVar = ("associations",)

    @model_validator(mode="after")
    def _one_credential(self) -> HubSpotConfig:
        app = (self.client_id, self.client_secret, self.refresh_token)
        if (self.access_token is None) == (None in app) or (self.access_token is not None and any(app)):
            raise ValueError("give access_token, or client_id, client_secret and refresh_token")
        return self

    @property
    def own_limits(self) -> tuple[Rate, ...]:
        """Of requests to HubSpot, by what it is signed in with and its plan."""
        burst, day = _TIERS[self.tier]
        own = _OAUTH if self.client_id else (Rate("burst", burst, 10), Rate("day", day, DAY))
        return (*own, ASSOCIATIONS)
