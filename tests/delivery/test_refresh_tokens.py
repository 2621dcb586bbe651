"""A refresh token that is replaced with each use outlives the process, is asked for by one process at a time, and is encrypted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import HANGS

from backhaul.delivery.connect import connected
from backhaul.delivery.refresh_tokens import RefreshTokens
from backhaul.destinations.salesforce import Salesforce, SalesforceConfig
from backhaul.errors import Halt, Unsettled
from backhaul.sandbox.salesforce import SalesforceSandbox
from backhaul.state.clock import Machine
from backhaul.state.sqlite import SqliteState
from backhaul.state.sqlite_buckets import SqliteBuckets
from backhaul.testing.serving import serving

FIRST = "first-refresh-token"


def buckets(folder: Path) -> Any:
    state = SqliteState(folder)
    try:
        return state.buckets()
    finally:
        state.close()


def stored(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_runs_follow_the_rotation(tmp_path: Path) -> None:
    sandbox = SalesforceSandbox()
    sandbox.rotates, sandbox.connected_app = True, {"client_id": "app", "refresh_token": FIRST}
    seen = [FIRST]
    with serving(sandbox.app()) as url:
        config = SalesforceConfig(base_url=url, client_id="app", refresh_token=FIRST)  # type: ignore[arg-type]
        for _ in range(3):
            async with connected("org", Salesforce, config, buckets(tmp_path / "state")) as remote:
                await remote.destination.describe("Contact")
            seen.append(sandbox.connected_app["refresh_token"])
    assert len(set(seen)) == 4
    assert not any(token.encode() in stored(tmp_path / "state") for token in seen)


class Vendor:
    """Takes the newest refresh token alone, and takes a while."""

    def __init__(self) -> None:
        self.valid, self.asked = FIRST, 0

    async def ask(self, token: str) -> dict[str, Any]:
        await asyncio.sleep(0.01)
        if token != self.valid:
            raise Halt("invalid_grant")
        self.asked += 1
        self.valid = f"{FIRST}-{self.asked}"
        return {"access_token": "a", "refresh_token": self.valid}

    async def ask_unheard(self, token: str) -> dict[str, Any]:
        await self.ask(token)
        raise Unsettled("the connection broke")


async def test_many_processes_ask_one_after_another(tmp_path: Path) -> None:
    vendor, opened = Vendor(), [buckets(tmp_path) for _ in range(4)]
    await asyncio.gather(*(RefreshTokens(one, ("v",), FIRST, 30.0).spend(vendor.ask) for one in opened))
    assert vendor.asked == 4
    for one in opened:
        await one.close()


async def test_a_successor_that_was_lost_is_said(tmp_path: Path) -> None:
    vendor, opened = Vendor(), buckets(tmp_path)
    tokens = RefreshTokens(opened, ("v",), FIRST, 30.0)
    with pytest.raises(Unsettled):
        await tokens.spend(vendor.ask_unheard)
    for _ in range(2):
        with pytest.raises(Halt, match="the new one was lost") as lost:
            await tokens.spend(vendor.ask)
        assert "authorise the app again" in str(lost.value.hint)
    await opened.close()


async def test_a_refusal_alone_is_no_loss(tmp_path: Path) -> None:
    vendor, opened = Vendor(), buckets(tmp_path)
    for _ in range(2):
        with pytest.raises(Halt, match="invalid_grant"):
            await RefreshTokens(opened, ("v",), "wrong", 30.0).spend(vendor.ask)
    await RefreshTokens(opened, ("v",), FIRST, 30.0).spend(vendor.ask)
    await opened.close()


async def test_the_turn_of_a_process_that_died_ends(tmp_path: Path) -> None:
    moment = [1000.0]
    clock = Machine("given", lambda: moment[0], lambda: moment[0])
    buckets(tmp_path)
    opened = SqliteBuckets(tmp_path / "state.db", clock)
    vendor = Vendor()
    dead = RefreshTokens(opened, ("v",), FIRST, 1.0)
    asked = asyncio.Event()

    async def hang(token: str) -> dict[str, Any]:
        asked.set()
        await asyncio.Event().wait()
        return {}

    hung = asyncio.create_task(dead.spend(hang))
    await asyncio.wait_for(asked.wait(), HANGS)
    hung.cancel()
    waiting = asyncio.create_task(RefreshTokens(opened, ("v",), FIRST, 1.0).spend(vendor.ask))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    moment[0] += 60.0
    await asyncio.wait_for(waiting, HANGS)
    await opened.close()
