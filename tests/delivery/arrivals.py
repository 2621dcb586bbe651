"""An HTTP server in a process of its own that counts requests: `python arrivals.py`; prints its address.

GET /count gives how many came, as JSON. Any other request is answered 200, or 429 with a Retry-After where its path is
/refuse; those to /warm-up are not counted.
"""

from __future__ import annotations

import asyncio

counted = 0


class Arrivals(asyncio.Protocol):
    """One connection; requests have no body."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        for line in data.split(b"\r\n"):
            if line.startswith(b"GET /count"):
                self._answer(b"200 OK", b"%d" % counted)
            elif line.startswith(b"POST "):
                self._count(line)

    def _count(self, line: bytes) -> None:
        global counted
        counted += b"/warm-up " not in line
        self._answer(b"429 Slow\r\nRetry-After: 1.5" if b"/refuse " in line else b"200 OK", b"")

    def _answer(self, head: bytes, body: bytes) -> None:
        self.transport.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (head, len(body), body))


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Arrivals, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)  # noqa: T201
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
