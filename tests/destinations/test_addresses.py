"""Addresses: what `check` remarks, what is refused, and the key in the path of a request."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from places import project

from backhaul.delivery.address import remarks
from backhaul.delivery.transport import ANSWER_LIMIT, Internet
from backhaul.errors import Unsettled, UsageError
from backhaul.testing.serving import serving

SYNC = {"object": "user", "mode": "mirror", "identify": {"id": "id"}, "fields": {"name": "name"}, "freshness": {"sample": 0},
        "guards": {"max_deletes": "off"}}  # fmt: skip


@pytest.mark.parametrize("url, said", [
    ("http://169.254.169.254", "link-local"), ("http://[::ffff:a9fe:a9fe]/x", "link-local"), ("http://2852039166/", "link-local"),
    ("https://10.0.0.1:8443", "10.0.0.1 is a private address"), ("https://192.168.1.1", "private"), ("https://100.64.0.1", "private"),
    ("https://[fd00::1]", "private"), ("http://10.0.0.1", "not encrypted"), ("http://8.8.8.8", "not encrypted"),
    ("https://0.0.0.0", "no address of one host"), ("https://224.0.0.1", "no address of one host"),
])  # fmt: skip
async def test_where_an_address_leads_is_said(url: str, said: str) -> None:
    assert any(said in one for one in await remarks(url))


@pytest.mark.parametrize(
    "url", ["https://8.8.8.8", "http://127.0.0.1:8100", "http://localhost:1", "http://[::1]:1", ""]
)
async def test_nothing_is_said_of_others(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert await remarks(url) == []


async def test_a_proxy_that_is_not_used_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    assert "HTTPS_PROXY is set and is not used" in (await remarks("https://8.8.8.8"))[0]


def http(url: str, user: dict[str, Any]) -> dict[str, Any]:
    return {"type": "http", "base_url": url, "objects": {"user": {"key": "id", **user}}}


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/a b", "http://127.0.0.1/\r\nX: y", " http://127.0.0.1", "http://127.0.0.1\t"]
)
def test_white_space_in_an_address_is_refused(tmp_path: Path, url: str) -> None:
    upsert = {"request": "POST /u", "body": {"r": "$records"}}
    with pytest.raises(UsageError, match="white space"):
        project(tmp_path, http(url, {"upsert": upsert}), SYNC, "select 1 as id, 'a' as name")


@pytest.mark.parametrize("operation, said", [
    ({"request": "PUT /u/$key", "body": "$record", "batch_size": 2}, "batch_size: 1"),
    ({"request": "PUT /u/$id", "body": "$record"}, "only \\$key can stand in a path"),
    ({"request": "PUT /u/$keys", "body": "$record"}, "only \\$key can stand in a path"),
])  # fmt: skip
def test_a_path_takes_the_key_of_one_record_alone(
    tmp_path: Path, operation: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        project(
            tmp_path, http("http://127.0.0.1:1", {"upsert": operation}), SYNC, "select 1 as id, 'a' as name"
        )


def test_the_key_stands_in_the_path(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    async def take(request: web.Request) -> web.Response:
        seen.append((request.method, request.raw_path))
        return web.json_response({})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", take)
    keys = ["a b", "x/y", "q?k=1#f", "é", "50%", "..", "../admin"]
    rows = " union all ".join(f"select '{key}' as id, 'n' as name" for key in keys)
    user = {
        "upsert": {"request": "PUT /users/$key", "body": "$record"},
        "delete": {"request": "DELETE /users/$key", "body": {}},
    }
    with serving(app) as url, project(tmp_path, http(url, user), SYNC, rows) as made:
        done = made.run("s")
        assert (done.delivered, done.rejected) == (6, 1)
        assert sorted(path for _, path in seen) == sorted(
            f"/users/{key}" for key in ("a%20b", "x%2Fy", "q%3Fk=1%23f", "%C3%A9", "50%25", "..%2Fadmin")
        )


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw"])
async def test_a_bomb_is_not_unpacked(encoding: str) -> None:
    small = json.dumps({"ok": "é" * 1000}).encode()
    packer = {"gzip": gzip.compress, "deflate": zlib.compress}.get(
        encoding, lambda data: zlib.compress(data)[2:-4]
    )
    bodies = {
        "/bomb": packer(bytes(8 << 20)),
        "/large": packer(b"".join(os.urandom(1) * 64 for _ in range((ANSWER_LIMIT >> 6) + 1))),
        "/small": packer(small),
    }

    async def answer(request: web.Request) -> web.Response:
        body = bodies.get(request.path, b"not packed")
        return web.Response(
            body=body, headers={"Content-Encoding": "gzip" if encoding == "gzip" else "deflate"}
        )

    app = web.Application()
    app.router.add_get("/{path}", answer)
    internet = Internet(30.0)
    try:
        with serving(app) as url:
            got = await internet.exchange("GET", f"{url}/small", None, None, {}, lambda: None)
            assert got.body == small
            for path, said in (
                ("bomb", "more than 500 times its size"),
                ("large", "more than 64 MiB"),
                ("broken", "cannot be unpacked"),
            ):
                with pytest.raises(Unsettled, match=said):
                    await internet.exchange("GET", f"{url}/{path}", None, None, {}, lambda: None)
    finally:
        await internet.close()
