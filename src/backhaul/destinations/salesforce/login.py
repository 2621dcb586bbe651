"""Three ways to an access token (Salesforce help: OAuth authorization flows). None of the answers says how long a token
lives: it is good until it is refused."""

from __future__ import annotations

import time

from pydantic import Field as Setting
from pydantic import model_validator

from backhaul.destinations.kit import JobsConfig, Secret
from backhaul.errors import Halt
from backhaul.values import Duration

_ASSERTION = 180.0
"""Seconds for which a signed assertion may be used."""


class SalesforceConfig(JobsConfig):
    """A Salesforce org, by a connected app: client_secret alone (client credentials), refresh_token, or username and
    private_key (JWT bearer)."""

    base_url: str
    """The org's My Domain, such as https://acme.my.salesforce.com, or a simulation's address."""
    client_id: str
    """The connected app's consumer key."""
    client_secret: Secret | None = None
    refresh_token: Secret | None = None
    username: str | None = None
    """Whom the app acts as, by JWT bearer."""
    private_key: Secret | None = None
    """PEM of the RSA key whose certificate the connected app has."""
    audience: str = "https://login.salesforce.com"
    """Who an assertion is for; https://test.salesforce.com for a Salesforce sandbox."""
    api_version: str = Setting(default="67.0", pattern=r"^\d{2,3}\.0$")
    parents: tuple[str, ...] = ()
    """Relationships whose records are named by an external id of theirs, such as Account or Region__r."""
    works_on: Duration = Duration(600.0)
    """How long Salesforce may work on a request that nobody waits for any more (its limit is ten minutes); creates without an
    answer are looked up after that."""
    bulk_above: int = Setting(default=2000, ge=0)
    """Records of a plan above which upserts and inserts go as jobs of the Bulk API."""
    atomic: bool = False
    """The records of a request, up to 1,000, are applied together or not at all; none go as jobs."""
    save_duplicates: bool = False
    """Records that a duplicate rule only warns of are saved."""
    assignment_rules: bool = True
    """Assignment rules run for accounts, cases and leads, as Salesforce does by itself."""

    @model_validator(mode="after")
    def _one_way(self) -> SalesforceConfig:
        by_key = (self.username is not None, self.private_key is not None)
        if any(by_key) and not all(by_key):
            raise ValueError("username and private_key go together")
        if all(by_key) and (self.refresh_token or self.client_secret):
            raise ValueError(
                "give username and private_key, or refresh_token, or client_secret: not two ways"
            )
        if not any(by_key) and self.refresh_token is None and self.client_secret is None:
            raise ValueError("give client_secret, refresh_token, or username and private_key")
        return self


def grant(config: SalesforceConfig) -> dict[str, str]:
    """The form that asks for a token.

    Raises:
        Halt: the private key cannot be used.
    """
    form = {"client_id": config.client_id}
    if config.private_key is not None:
        return {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": _assertion(config)}
    if config.client_secret is not None:
        form["client_secret"] = config.client_secret.get_secret_value()
    if config.refresh_token is not None:
        return {
            **form,
            "grant_type": "refresh_token",
            "refresh_token": config.refresh_token.get_secret_value(),
        }
    return {**form, "grant_type": "client_credentials"}


def _assertion(config: SalesforceConfig) -> str:
    try:
        import jwt
    except ImportError:
        raise Halt(
            "signing in with a private key needs PyJWT", hint="pip install 'backhaul[salesforce]'"
        ) from None
    claims = {
        "iss": config.client_id, "sub": config.username, "aud": config.audience, "exp": int(time.time() + _ASSERTION),
    }  # fmt: skip
    key = config.private_key.get_secret_value() if config.private_key is not None else ""
    try:
        return jwt.encode(claims, key, algorithm="RS256")
    except (ValueError, TypeError, jwt.PyJWTError):
        raise Halt(
            "private_key is not an RSA key in PEM form",
            hint="it begins with -----BEGIN PRIVATE KEY-----; ${file:…} reads one",
        ) from None
