"""An HTTP sink that reads every request whole and answers 200: never the bottleneck of a measurement.

`python -m benchmarks.sink PORT` serves until it is terminated. GET /count gives the requests and body bytes so far, GET /times
when each request came, in seconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from array import array

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Sink(asyncio.Protocol):
    """One connection; counts are of all connections."""

    requests = 0
    body_bytes = 0
    times = array("d")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.head = b""
        self.missing = 0

    def data_received(self, data: bytes) -> None:
        while data:
            if self.missing:
                taken = min(self.missing, len(data))
                self.missing -= taken
                data = data[taken:]
                if not self.missing:
                    self._answer()
                continue
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data, self.head = self.head[:end], self.head[end + 4 :], b""
            self._begin(head)

    def _begin(self, head: bytes) -> None:
        if head.startswith(b"GET"):
            body = f'{{"requests": {Sink.requests}, "bytes": {Sink.body_bytes}}}'.encode()
            if head.startswith(b"GET /times"):
                body = json.dumps(list(Sink.times)).encode()
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            return
        Sink.times.append(time.monotonic())
        lower = head.lower()
        start = lower.index(b"content-length:") + 15
        end = lower.find(b"\r\n", start)
        self.missing = int(lower[start : end if end > 0 else None])
        Sink.body_bytes += self.missing

    def _answer(self) -> None:
        Sink.requests += 1
        self.transport.write(_OK)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", port)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
