"""The words of Salesforce's answers: errors of a request, results of a record. Shapes are those of recorded answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import web


class Refusal(Exception):
    """What Salesforce says to one record that it does not take."""

    def __init__(self, code: str, message: str, fields: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.fields = list(fields)

    def result(self) -> dict[str, Any]:
        """As one result of a collection."""
        error = {"statusCode": self.code, "message": str(self), "fields": self.fields}
        return {"success": False, "errors": [error]}


class Whole(Exception):
    """What Salesforce says to a request as a whole."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status

    def answer(self) -> web.Response:
        return problem(self.status, self.code, str(self))


def stamp(moment: datetime | None = None) -> str:
    """A moment as Salesforce gives it back: UTC, whole seconds."""
    return (moment or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000")


def answer(body: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=orjson.dumps(body), status=status, content_type="application/json", charset="UTF-8"
    )


def problem(status: int, code: str, message: str, **more: Any) -> web.Response:
    return answer([{"message": message, "errorCode": code, **more}], status)


def success(record_id: str, **more: Any) -> dict[str, Any]:
    return {"id": record_id, "success": True, "errors": [], **more}


def not_found() -> Whole:
    return Whole("NOT_FOUND", "The requested resource does not exist", 404)


def written(body: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The records of a collection.

    Raises:
        Whole: there is no such list.
    """
    found = body.get(name)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise Whole("JSON_PARSER_ERROR", f"Can not deserialize: {name} is not a list of records")
    return found
