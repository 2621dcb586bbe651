"""An HTTP server in a process of its own that notes when each request arrived: `python arrivals.py`.

GET /times gives them as JSON: when the server was last known to be awake before it, and when it was seen, in seconds of
the system's monotonic clock. The two are milliseconds apart, and more where the machine paused: the request came in between.
Any other request is answered 200, or 429 with a Retry-After where its path is /refuse.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time

TIMES: list[tuple[float, float]] = []
TICK = 0.002
awake = 0.0


class Arrivals(asyncio.Protocol):
    """One connection; requests have no body."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        for line in data.split(b"\r\n"):
            if line.startswith(b"GET /times"):
                body = json.dumps(TIMES).encode()
                self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            elif line.startswith((b"POST ", b"GET ")):
                TIMES.append((min(awake, now), now))
                refused = b"/refuse " in line
                head = b"429 Slow\r\nRetry-After: 1.5" if refused else b"200 OK"
                self.transport.write(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % head)


async def stay_awake() -> None:
    global awake
    while True:
        awake = time.monotonic()
        await asyncio.sleep(TICK)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Arrivals, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)  # noqa: T201
    await asyncio.gather(server.serve_forever(), stay_awake())


if __name__ == "__main__":
    with contextlib.suppress(PermissionError):
        os.nice(-10)  # a busy machine must not make it see what is on time as late
    asyncio.run(main())
