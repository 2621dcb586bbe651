"""What a user may set of every destination."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr, field_validator, model_validator
from pydantic import Field as Setting

from backhaul.values import Duration, RateLimit, Share

Secret = SecretStr
_NOT_IN_URLS = re.compile(r"[\s\x00-\x20\x7f]")


def _part(share: Share) -> Share:
    if not share.relative or not 1 <= share.number <= 100:
        raise ValueError(f"{share} is not a part of a limit: write it as 80%, between 1% and 100%")
    return share


class DestinationConfig(BaseModel):
    """Keys that every destination takes in backhaul.yml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate_limits: tuple[RateLimit, ...] | None = None
    """Windows such as `100/10s` or `250000/1d`; they replace the destination's own, but for those of single endpoints."""
    endpoint_limits: dict[str, tuple[RateLimit, ...]] = Setting(default_factory=dict)
    """Windows of endpoints that are limited by themselves, by the names on the destination's page; they replace its own."""
    concurrency: int | None = Setting(default=None, ge=1, le=1000)
    """Requests in flight at most."""
    share: Annotated[Share, AfterValidator(_part)] = Share(80.0, relative=True)
    """The part of every limit of a day or longer that is used; the rest is left to your other tools."""
    budget: str | None = Setting(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    """The name of a budget to share. Unset: destinations with the same type, address and credential share one."""
    timeout: Duration = Duration(60.0)
    """Total for one request, from connecting to the last byte of the answer."""
    read_lag: Duration | None = None
    """How long the destination may take to show what was written; unset: the connector's own. What differs or is not
    there is asked about again until then."""

    known_endpoints: ClassVar[tuple[str, ...]] = ()
    """The endpoints that have limits of their own."""

    @field_validator("endpoint_limits")
    @classmethod
    def _known(cls, given: dict[str, tuple[RateLimit, ...]]) -> dict[str, tuple[RateLimit, ...]]:
        if strange := given.keys() - set(cls.known_endpoints):
            known = ", ".join(cls.known_endpoints)
            raise ValueError(
                f"{min(strange)!r} has no limit of its own: {f'there is {known}' if known else 'use rate_limits'}"
            )
        return given

    @model_validator(mode="after")
    def _addresses(self) -> Self:
        for name, value in self:
            text = value.get_secret_value() if isinstance(value, SecretStr) else value
            if name.endswith("url") and isinstance(text, str) and _NOT_IN_URLS.search(text):
                raise ValueError(f"{name} has white space or a control character in it")
        return self


class JobsConfig(DestinationConfig):
    """Keys of destinations that have jobs."""

    job_timeout: Duration = Duration(3600.0)
    """How long a run waits for a batch that the destination works on by itself; a later run asks again."""
