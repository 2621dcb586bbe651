"""moto's DynamoDB as a process of its own: `python dynamodb_server.py`; prints its port.

One request at a time, so that its conditions and writes are one step, as DynamoDB's are; but whoever is slow to send one, or
was stopped over it, keeps nobody waiting. What it copies for each item of a transaction, the whole table, it copies once a
transaction.
"""

from __future__ import annotations

import copy
import io
import threading
from types import SimpleNamespace
from typing import Any

from moto.dynamodb import models
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

_copies: dict[int, Any] = {}


def _copied(value: Any, memo: Any = None) -> Any:
    if not isinstance(value, models.Table):
        return copy.deepcopy(value, memo)
    if id(value) not in _copies:
        _copies[id(value)] = copy.deepcopy(value, memo)
    return _copies[id(value)]


class OneAtATime:
    """The application, asked only once a request is here as a whole."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._turn = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        """Answers one request."""
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        with self._turn:
            return list(self._app({**environ, "wsgi.input": io.BytesIO(body)}, start_response))


class Quiet(WSGIRequestHandler):
    """Keeps connections, says nothing."""

    def log(self, type: str, message: str, *args: Any) -> None:
        """Nothing."""


def main() -> None:
    transact = models.DynamoDBBackend.transact_write_items

    def transact_write_items(backend: Any, items: Any) -> None:
        _copies.clear()
        transact(backend, items)

    models.DynamoDBBackend.transact_write_items = transact_write_items  # type: ignore[method-assign]
    models.copy = SimpleNamespace(deepcopy=_copied, copy=copy.copy)  # type: ignore[attr-defined]
    app = OneAtATime(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    print(server.port, flush=True)  # noqa: T201
    server.serve_forever()


main()
