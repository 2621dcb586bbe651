"""Values users write in files with a unit: durations, rates, sizes, shares."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

_UNITS = {
    "ms": 0.001,
    "s": 1,
    "second": 1,
    "m": 60,
    "min": 60,
    "minute": 60,
    "h": 3600,
    "hour": 3600,
    "d": 86400,
    "day": 86400,
}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|[a-z]+?)s?\s*", re.IGNORECASE)
_RATE = re.compile(r"\s*([\d_]+)\s*/\s*(\d*(?:\.\d+)?)\s*(ms|s|[a-z]+?)s?\s*", re.IGNORECASE)
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?i?B)\s*", re.IGNORECASE)
_TABLE = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_SHARE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*")


class Parsed:
    """A value that pydantic reads by its class's `parse`."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": ["string", "number"], "description": (cls.__doc__ or "").split("\n")[0]}

    @classmethod
    def parse(cls, value: Any) -> Any:
        raise NotImplementedError


class Duration(float, Parsed):
    """Seconds; written `30s`, `15 minutes`, `1h`, or a number of seconds."""

    @classmethod
    def parse(cls, value: Any) -> Duration:
        if isinstance(value, bool):
            raise ValueError("expected a duration such as 30s or 15 minutes")
        if isinstance(value, int | float):
            seconds = float(value)
        else:
            found = _DURATION.fullmatch(str(value))
            if not found or found[2].lower() not in _UNITS:
                raise ValueError(f"{value!r} is not a duration: write it as 30s, 15 minutes or 1h")
            seconds = float(found[1]) * _UNITS[found[2].lower()]
        if not 0 < seconds <= 366 * 86400:
            raise ValueError(f"{value!r} is not a duration between 1ms and 366 days")
        return cls(seconds)


class Retention(Duration):
    """How long something is kept: a duration such as `30d`, or 0 for not at all."""

    @classmethod
    def parse(cls, value: Any) -> Retention:
        return cls(0) if str(value) in ("0", "0.0") else cls(super().parse(value))


@dataclass(frozen=True, slots=True)
class RateLimit(Parsed):
    """So many requests in so long; written `100/10s` or `250000/1d`."""

    count: int
    per: float

    @classmethod
    def parse(cls, value: Any) -> RateLimit:
        if isinstance(value, cls):
            return value
        found = _RATE.fullmatch(str(value))
        unit = found[3].lower() if found else ""
        if not found or unit not in _UNITS or int(found[1]) < 1:
            raise ValueError(f"{value!r} is not a rate limit: write it as 100/1s or 250000/1d")
        per = float(found[2] or 1) * _UNITS[unit]
        if not per > 0:
            raise ValueError(f"{value!r} has no time in it: write it as 100/1s or 250000/1d")
        return cls(int(found[1]), per)

    def __str__(self) -> str:
        return f"{self.count}/{self.per:g}s"


class Size(int, Parsed):
    """Bytes; written `1 GiB`, `512MB`, or a number of bytes."""

    @classmethod
    def parse(cls, value: Any) -> Size:
        if isinstance(value, int) and not isinstance(value, bool):
            return cls(value)
        found = _SIZE.fullmatch(str(value))
        if not found:
            raise ValueError(f"{value!r} is not a size: write it as 1 GiB or 512 MB")
        unit = found[2].upper()
        base = 1024 if "I" in unit else 1000
        return cls(float(found[1]) * base ** "BKMGT".index(unit[0]))


@dataclass(frozen=True, slots=True)
class Share(Parsed):
    """A number of records, or a share of them; written `100` or `5%`."""

    number: float
    relative: bool = False

    @classmethod
    def parse(cls, value: Any) -> Share:
        if isinstance(value, cls):
            return value
        found = None if isinstance(value, bool) else _SHARE.fullmatch(str(value))
        if not found:
            raise ValueError(f"{value!r} is neither a number of records nor a share: write it as 100 or 5%")
        number, relative = float(found[1]), found[2] == "%"
        if relative and number > 100:
            raise ValueError(f"{value!r} is more than 100%")
        return cls(number, relative)

    def of(self, total: int) -> float:
        """The number of records this allows, out of `total`."""
        return total * self.number / 100 if self.relative else self.number

    def __str__(self) -> str:
        return f"{self.number:g}%" if self.relative else f"{self.number:g}"


@dataclass(frozen=True, slots=True)
class TableAddress:
    """Where a state in DynamoDB is: `dynamodb://TABLE?region=eu-central-1&endpoint=http://127.0.0.1:8000`."""

    table: str
    region: str | None = None
    """None: the one that AWS's own settings name."""
    endpoint: str | None = None
    """None: AWS's."""

    @classmethod
    def parse(cls, value: str) -> TableAddress:
        """Raises: ValueError: it is no such address; says why."""
        form = "write it as dynamodb://TABLE?region=eu-central-1"
        parts = urlsplit(value)
        if parts.scheme != "dynamodb" or parts.path.strip("/") or not _TABLE.fullmatch(parts.netloc):
            raise ValueError(f"a table has 3 to 255 letters, digits, _, . or -: {form}")
        given = parse_qsl(parts.query, keep_blank_values=True)
        unknown = [name for name, _ in given if name not in ("region", "endpoint")]
        if unknown or parts.fragment:
            raise ValueError("after ? there may be region=… and endpoint=…, and nothing else")
        named = {name: held or None for name, held in given}
        endpoint = named.get("endpoint")
        if endpoint and not re.fullmatch(r"https?://[^/?#@\s]+/?", endpoint):
            raise ValueError("the endpoint is no address such as http://127.0.0.1:8000")
        return cls(parts.netloc, named.get("region"), endpoint)
