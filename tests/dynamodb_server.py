"""moto's DynamoDB as a process of its own: `python dynamodb_server.py`; prints its port.

One request at a time, so that its conditions and writes are one step, as DynamoDB's are; but whoever is slow to send one, or
was stopped over it, keeps nobody waiting. Some of moto is replaced by what gives the same in a fraction of the time: a
transaction of a hundred items took it longer than a client waits for an answer on a busy machine.
"""

from __future__ import annotations

import copy
import io
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache, lru_cache
from types import SimpleNamespace
from typing import Any

from moto.core import serialize
from moto.dynamodb import models
from moto.dynamodb.exceptions import MockValidationException
from moto.dynamodb.parsing import ast_nodes, validators
from moto.dynamodb.parsing.expressions import UpdateExpressionParser
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

Key = tuple[Any, Any]


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


def quick_transactions() -> None:
    """Of the table, which moto copies for each item of a transaction, only the items that it may change are copied, once."""
    transact = models.DynamoDBBackend.transact_write_items
    backups: dict[int, Any] = {}
    changed: dict[int, list[Key]] = {}

    def copied(value: Any, memo: Any = None) -> Any:
        if not isinstance(value, models.Table) or id(value) not in changed:
            return copy.deepcopy(value, memo)
        if id(value) not in backups:
            backups[id(value)] = _backup(value, changed[id(value)])
        return backups[id(value)]

    def transact_write_items(backend: Any, items: list[Mapping[str, Any]]) -> None:
        backups.clear()
        changed.clear()
        for item in items:
            for write in item.values():
                if (table := backend.tables.get(write.get("TableName"))) is not None:
                    with suppress(MockValidationException):
                        key = backend.get_keys_value(table, write.get("Key") or write.get("Item"))
                        changed.setdefault(id(table), []).append(key)
        try:
            transact(backend, items)
        finally:
            changed.clear()

    models.DynamoDBBackend.transact_write_items = transact_write_items  # type: ignore[method-assign]
    models.copy = SimpleNamespace(deepcopy=copied, copy=copy.copy)  # type: ignore[attr-defined]


def _backup(table: Any, changed: Iterable[Key]) -> Any:
    """The table as it is now, whatever is written to these items."""
    kept = copy.copy(table)
    kept.items = defaultdict(dict, {key: dict(items) for key, items in table.items.items()})
    for key, sort in changed:
        if (item := kept.items.get(key, {}).get(sort)) is not None:
            kept.items[key][sort] = copy.deepcopy(item)
    return kept


is_node = cache(lambda kind: issubclass(kind, ast_nodes.Node))
is_one_of = cache(lambda kind, kinds: issubclass(kind, kinds))


def quick_expressions() -> None:
    """moto reads an expression anew each time; proves what holds of the whole of each of its nested ends as well; and asks each
    node for its type by way of abstract classes."""
    UpdateExpressionParser.make = staticmethod(lru_cache(64)(UpdateExpressionParser.make))  # type: ignore[method-assign]
    validators.ActionCountValidator.traverse = validators.ActionCountValidator.verify_action_counts  # type: ignore[method-assign]
    validators.OverlappingPathsValidator.traverse = (  # type: ignore[method-assign]
        validators.OverlappingPathsValidator.check_for_overlapping_paths
    )
    validators.deepcopy = (  # type: ignore[attr-defined]
        lambda value: _twin(value) if is_node(type(value)) else copy.deepcopy(value)
    )
    ast_nodes.DepthFirstTraverser.traverse = lambda self, node: _traverse(  # type: ignore[method-assign]
        self, self.nodes_to_be_processed(), node, -1
    )


def _twin(node: Any, parent: Any = None) -> Any:
    """A copy of an expression's tree."""
    if not is_node(type(node)):
        return node
    made = object.__new__(type(node))
    made.__dict__.update(node.__dict__)
    made.parent = parent
    if node.children is not None:
        made.children = [_twin(child, made) for child in node.children]
    return made


def _traverse(traverser: Any, kinds: tuple[type, ...], node: Any, place: int) -> Any:
    if not is_node(type(node)):
        return node
    parent = node.parent
    for number, child in enumerate(node.children or ()):
        traverser.pre_processing_of_child(node, number)
        _traverse(traverser, kinds, child, number)
    if is_one_of(type(node), kinds):
        node = traverser.process(node)
        node.parent = parent
        if parent:
            parent.children[place] = node
    return node


def quick_answers() -> None:
    """A value of an item is looked for under the one name that it has, not under each of ten types and their aliases."""
    whole = serialize.BaseJSONSerializer._serialize_type_structure

    def structure(self: Any, serialized: Any, value: Any, shape: Any, key: str) -> None:
        if shape.name != "AttributeValue" or not isinstance(value, dict):
            whole(self, serialized, value, shape, key)
            return
        found = self.MAP_TYPE()
        for name in value.keys() & shape.members.keys():
            member = shape.members[name]
            member.parent = shape
            self._serialize_structure_member(found, value, member, name)
        self._default_serialize(serialized, found, shape, key)

    serialize.BaseJSONSerializer._serialize_type_structure = structure  # type: ignore[method-assign]


def main() -> None:
    quick_transactions()
    quick_expressions()
    quick_answers()
    app = OneAtATime(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    print(server.port, flush=True)  # noqa: T201
    server.serve_forever()


main()
