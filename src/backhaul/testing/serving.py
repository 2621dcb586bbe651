"""Serves an aiohttp application from a thread of its own, so that a test can run the engine beside it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web


@contextmanager
def serving(app: web.Application) -> Iterator[str]:
    """The application's address on 127.0.0.1, until the block ends."""
    loop = asyncio.new_event_loop()
    started: list[str] = []
    ready = threading.Event()
    over = asyncio.Event()

    async def serve() -> None:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        started.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        ready.set()
        await over.wait()
        await runner.cleanup()

    def run() -> None:
        loop.run_until_complete(serve())
        loop.close()

    thread = threading.Thread(target=run, name="serving", daemon=True)
    thread.start()
    if not ready.wait(10):
        raise TimeoutError("the application did not start")
    try:
        yield started[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)


def dated(app: web.Application, date: str) -> web.Application:
    """The application, whose answers are dated as given (RFC 9110, 5.6.7): how long a day lasts is told from that."""

    async def prepare(_: web.Request, response: web.StreamResponse) -> None:
        response.headers["Date"] = date

    app.on_response_prepare.append(prepare)
    return app
