"""The documents of a simulated Klaviyo (JSON:API)."""

from __future__ import annotations

import time
from typing import Any

import orjson
from aiohttp import web

Body = dict[str, Any]


def profile_document(own: str, attributes: Body) -> Body:
    links = {"self": f"https://a.klaviyo.com/api/profiles/{own}/"}
    return {"type": "profile", "id": own, "attributes": attributes, "links": links}


def list_document(own: str) -> Body:
    links = {"self": f"https://a.klaviyo.com/api/lists/{own}/"}
    about = {
        "name": f"List {own}",
        "created": stamp(),
        "updated": stamp(),
        "opt_in_process": "single_opt_in",
    }
    return {"type": "list", "id": own, "attributes": about, "links": links}


def inner(held: Any, *names: str) -> Any:
    """A member of a member; None where there is none."""
    for name in names:
        held = held.get(name) if isinstance(held, dict) else None
    return held


def body_of(body: bytes) -> Body:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def respond(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/vnd.api+json")


def stamp() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
