"""A vendor's OpenAPI document, and exchanges held against it. Documents are kept beside the repository, not in it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import orjson
import yaml

SHARED = Path(os.environ.get("BACKHAUL_SHARED", Path(__file__).resolve().parents[3] / "shared"))
SPECS = SHARED / "reference" / "specs"


class Document:
    """One document (OpenAPI 3.0)."""

    def __init__(self, file: Path) -> None:
        text = file.read_bytes()
        self.body = orjson.loads(text) if file.suffix == ".json" else yaml.load(text, Loader=yaml.CSafeLoader)
        self._paths = {
            re.compile("^" + re.sub(r"\{[^}]+\}", "[^/]+", path) + "$"): item
            for path, item in sorted(self.body["paths"].items(), key=lambda pair: "{" in pair[0])
        }

    def operation(self, method: str, path: str) -> Mapping[str, Any]:
        """Raises: LookupError where the document has no such operation."""
        for pattern, item in self._paths.items():
            if pattern.match(path) and method.lower() in item:
                return item[method.lower()]
        raise LookupError(f"{method} {path}")

    def check_request(self, method: str, path: str, body: Any) -> None:
        """Raises: jsonschema's ValidationError."""
        described = self.operation(method, path).get("requestBody")
        if described is not None:
            self._check(described, body)

    def check_answer(self, method: str, path: str, status: int, body: Any) -> None:
        """A status that the operation does not name is held against nothing. Raises: jsonschema's ValidationError."""
        described = self.operation(method, path)["responses"].get(str(status))
        if described is not None:
            self._check(described, body)

    def _check(self, described: Mapping[str, Any], body: Any) -> None:
        from openapi_schema_validator import OAS30Validator

        schema = next((media.get("schema") for media in described.get("content", {}).values()), None)
        if schema is None:
            return
        OAS30Validator({**schema, "components": self.body["components"]}).validate(body)


class Swagger(Document):
    """One document (Swagger 2.0). `relaxed`: members that a definition requires and real answers leave out; those of `*` in every
    definition."""

    def __init__(self, file: Path, relaxed: Mapping[str, Collection[str]]) -> None:
        super().__init__(file)
        for name, definition in self.body["definitions"].items():
            spared = {*relaxed.get(name, ()), *relaxed.get("*", ())}
            kept = [member for member in definition.get("required", ()) if member not in spared]
            definition.pop("required", None)
            definition |= {"required": kept} if kept else {}

    def check_request(self, method: str, path: str, body: Any) -> None:
        """Raises: jsonschema's ValidationError."""
        for parameter in self.operation(method, path).get("parameters", ()):
            if parameter["in"] == "body":
                self._check(parameter, body)

    def _check(self, described: Mapping[str, Any], body: Any) -> None:
        from openapi_schema_validator import OAS30Validator

        schema = {**described["schema"], "definitions": self.body["definitions"]}
        OAS30Validator(schema).validate(body)
