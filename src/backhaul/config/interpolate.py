"""`${NAME}`, `${NAME:-default}` and `${file:/path}` in the texts of a document; `$${` is a literal `${`."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backhaul.config.documents import Document, Where, read_text
from backhaul.errors import Problem, UsageError

SECRET_FILE_LIMIT = 64 * 1024
_OTHERS, _WRITABLE = 0o077, 0o022
"""What a file of secrets allows its group and everybody."""
_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)(\})?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Text:
    """One text of the file: what the user wrote himself, and what references brought."""

    literal: str
    """With every reference taken out, and the defaults of references put in its place."""
    brought: tuple[str, ...]
    referenced: bool
    defaults: tuple[str, ...] = ()
    """The defaults of references that stand in for what was not there."""


@dataclass(slots=True)
class Interpolated:
    """A document's data with references replaced. Values at `broken` are stand-ins."""

    data: Any
    texts: dict[Where, Text] = field(default_factory=dict)
    broken: set[Where] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    @property
    def brought(self) -> frozenset[str]:
        return frozenset(value for text in self.texts.values() for value in text.brought)


def environment(file: Path, environ: Mapping[str, str]) -> tuple[dict[str, str], list[Problem]]:
    """The variables of a `.env` file, and its broken lines; the real environment wins.

    Raises:
        UsageError: it is no text file.
    """
    from dotenv.parser import parse_stream

    if not file.exists():
        return dict(environ), []
    if (mode := file.stat().st_mode) & _OTHERS:
        try:
            file.chmod(0o600)
        except OSError:  # somebody else's, or on a disk that cannot be written
            if mode & _WRITABLE:
                raise UsageError(
                    f"{file.name} can be written by others, who could swap its secrets",
                    hint=f"chmod 600 {file.name}",
                ) from None
    values: dict[str, str] = {}
    problems: list[Problem] = []
    for binding in parse_stream(io.StringIO(read_text(file, file.name))):
        if binding.error:
            problems.append(Problem("this is not NAME=value", file.name, binding.original.line, 1))
        elif binding.key is not None and binding.value is not None:
            values[binding.key] = binding.value
    return values | dict(environ), problems


def interpolate(document: Document, variables: Mapping[str, str], root: Path) -> Interpolated:
    """Replaces every reference in every text, and lists what is wrong with them."""
    result = Interpolated(None)
    result.data = _walk(document.data, (), _Resolver(document, variables, root, result))
    return result


def _walk(value: Any, where: Where, resolver: _Resolver) -> Any:
    if isinstance(value, dict):
        return {key: _walk(item, (*where, key), resolver) for key, item in value.items()}
    if isinstance(value, list):
        return [_walk(item, (*where, index), resolver) for index, item in enumerate(value)]
    return resolver.text(value, where) if isinstance(value, str) else value


class _Refused(Exception):
    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(slots=True)
class _Resolver:
    document: Document
    variables: Mapping[str, str]
    root: Path
    result: Interpolated

    def text(self, text: str, where: Where) -> str:
        literal: list[str] = []
        whole: list[str] = []
        brought: list[str] = []
        defaults: list[str] = []
        end = 0
        for found in _REFERENCE.finditer(text):
            between = text[end : found.start()]
            end = found.end()
            value, is_literal = self._value(found, text, where)
            whole += [between, value]
            literal += [between, value if is_literal else ""]
            if not is_literal:
                brought.append(value)
            elif found[0] != "$${":
                defaults.append(value)
        literal.append(text[end:])
        self.result.texts[where] = Text("".join(literal), tuple(brought), bool(whole), tuple(defaults))
        return "".join([*whole, text[end:]])

    def _value(self, found: re.Match[str], text: str, where: Where) -> tuple[str, bool]:
        """What a reference stands for, and whether the user wrote that in the file."""
        if found[0] == "$${":
            return "${", True
        try:
            if found[2] is None:
                raise _Refused("`${` is never closed", "write a literal ${ as $${")
            return self._lookup(found[1])
        except _Refused as error:
            before = text[: found.start()]
            line, start = before.count("\n") + 1, found.start() - before.rfind("\n")
            line, column = self.document.within(where, line, start)
            self.result.problems.append(Problem(str(error), self.document.file, line, column, error.hint))
            self.result.broken.add(where)
            return "", True

    def _lookup(self, inner: str) -> tuple[str, bool]:
        if inner.startswith("file:"):
            return self._file(inner.removeprefix("file:").strip()), False
        name, has_default, default = inner.partition(":-")
        if not _NAME.fullmatch(name):
            raise _Refused("`${...}` holds no variable name", "${NAME}, ${NAME:-default} or ${file:/path}")
        value = self.variables.get(name)
        if has_default and not value:
            return default, True
        if value is None:
            raise _Refused(f"the environment variable {name} is not set", "export it, or put it in .env")
        if not value.strip():
            raise _Refused(f"the environment variable {name} is set but empty")
        if value.endswith("\n") and "\n" not in value.rstrip("\r\n"):
            raise _Refused(f"the environment variable {name} ends in a line break", "set it without one")
        return value, False

    def _file(self, name: str) -> str:
        try:
            with (self.root / name).open("rb") as stream:
                if os.fstat(stream.fileno()).st_mode & _OTHERS:
                    raise _Refused(f"others can read or write the file {name}", f"chmod 600 {name}")
                content = stream.read(SECRET_FILE_LIMIT + 1)
            text = content.decode("utf-8")
        except OSError as error:
            raise _Refused(f"the file {name} cannot be read: {error.strerror}") from None
        except ValueError:
            raise _Refused(f"the file {name} is not UTF-8 text") from None
        if len(content) > SECRET_FILE_LIMIT:
            raise _Refused(f"the file {name} is larger than 64 KiB")
        text = text[:-1].removesuffix("\r") if text.endswith("\n") else text
        if not text.strip() or "\x00" in text:
            raise _Refused(f"the file {name} is {'not text' if text.strip() else 'empty'}")
        if text.endswith("\n"):
            raise _Refused(f"the file {name} ends in more than one line break")
        return text
