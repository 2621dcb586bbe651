"""The simulated org's composite resource: subrequests in one request and, where asked, one transaction (REST API guide)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson
from aiohttp import web

from backhaul.sandbox.kit import RECORDS
from backhaul.sandbox.salesforce import rest
from backhaul.sandbox.salesforce.answers import Refusal, Whole, answer, problem, written

if TYPE_CHECKING:
    from backhaul.sandbox.salesforce.api import SalesforceSandbox

_SUBREQUESTS, _COLLECTIONS = 25, 5
"""At most in one request; how many of them may be collections or queries is from issue threads of client libraries."""
_REFERENCE = re.compile(r"[A-Za-z0-9_]+")
_INHERITED = {"accept", "authorization", "content-type"}
_HALTED = "The transaction was rolled back since another operation in the same transaction failed."
_COLLECTION = re.compile(r"/composite/sobjects(?:/(?P<object>[^/]+)/(?P<field>[^/]+))?$")
_OF: Mapping[str, Callable[[SalesforceSandbox, web.Request, Mapping[str, Any]], web.Response]] = {
    "POST": rest.create_all, "PATCH": rest.update_all, "DELETE": rest.delete_all,
}  # fmt: skip


class _Sub(dict[Any, Any]):
    """What an endpoint asks of a request."""

    def __init__(self, part: Mapping[str, Any]) -> None:
        super().__init__()
        url = urlsplit(str(part.get("url")))
        self.path = url.path
        self.query = dict(parse_qsl(url.query))
        self.headers = {str(name): str(value) for name, value in (part.get("httpHeaders") or {}).items()}
        self.match_info: dict[str, str] = {}


def composite(org: SalesforceSandbox, request: web.Request, body: Mapping[str, Any]) -> web.Response:
    """Raises: Whole where the request itself is not understood."""
    parts, together = written(body, "compositeRequest"), bool(body.get("allOrNone"))
    _check(parts)
    before = rest.snapshot(org) if together else None
    results, sent, failed = [], 0, False
    for part in parts:
        sub = _Sub(part)
        if failed and together:
            results.append(_told(part, problem(400, "PROCESSING_HALTED", _HALTED)))
            continue
        said = _one(org, sub, part, together)
        sent += sub.get(RECORDS, 0)
        failed = failed or said.status >= 400 or _refused(said)
        results.append(_told(part, said))
    if failed and before is not None:
        rest.roll_back(org, before)
        results = [
            result if _failed(result) else _told(part, problem(400, "PROCESSING_HALTED", _HALTED))
            for part, result in zip(parts, results, strict=True)
        ]
    request[RECORDS] = sent
    return answer({"compositeResponse": results})


def _check(parts: list[dict[str, Any]]) -> None:
    """Raises: Whole."""
    if len(parts) > _SUBREQUESTS:
        raise Whole("LIMIT_EXCEEDED", f"The request can\u2019t contain more than {_SUBREQUESTS} operations.")
    collections = sum("/composite/sobjects" in str(part.get("url")) for part in parts)
    if collections > _COLLECTIONS:
        words = f"The request can\u2019t contain more than {_COLLECTIONS} collections operations."
        raise Whole("LIMIT_EXCEEDED", words)
    names = [str(part.get("referenceId") or "") for part in parts]
    if len(set(names)) < len(names) or not all(_REFERENCE.fullmatch(name) for name in names):
        raise Whole(
            "INVALID_INPUT",
            "A subrequest's referenceId is missing, used twice, or not made of letters and digits",
        )
    for part in parts:
        if _INHERITED & {str(name).lower() for name in part.get("httpHeaders") or ()}:
            raise Whole("INVALID_INPUT", "A subrequest may not set this header")


def _one(org: SalesforceSandbox, sub: _Sub, part: Mapping[str, Any], together: bool) -> web.Response:
    method, found = str(part.get("method")), _COLLECTION.search(sub.path)
    if found is None or not sub.path.startswith(f"/services/data/{org.version}/") or method not in _OF:
        return problem(404, "NOT_FOUND", "The requested resource does not exist")
    sub.match_info = {name: unquote(value) for name, value in found.groupdict().items() if value}
    body = dict(part.get("body") or {}) | ({"allOrNone": True} if together else {})
    if together and method == "DELETE":
        sub.query["allOrNone"] = "true"
    endpoint = rest.upsert_all if sub.match_info else _OF[method]
    try:
        return endpoint(org, cast("web.Request", sub), body)
    except Whole as error:
        return error.answer()
    except Refusal as error:
        return problem(400, error.code, str(error), fields=error.fields)


def _refused(said: web.Response) -> bool:
    body = orjson.loads(cast("bytes", said.body))
    return isinstance(body, list) and any(not item.get("success", True) for item in body)


def _told(part: Mapping[str, Any], said: web.Response) -> dict[str, Any]:
    body = orjson.loads(cast("bytes", said.body))
    return {
        "body": body,
        "httpHeaders": {},
        "httpStatusCode": said.status,
        "referenceId": part["referenceId"],
    }


def _failed(result: Mapping[str, Any]) -> bool:
    body = result["body"]
    return result["httpStatusCode"] >= 400 or any(not item.get("success", True) for item in body)
