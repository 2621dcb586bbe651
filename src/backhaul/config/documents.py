"""YAML into plain data with the line and column of every key and value. Raises nothing but UsageError."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from backhaul.errors import Problem, UsageError

Where = tuple[str | int, ...]
"""The way to a value: keys and list indexes from the top of the file."""

FILE_LIMIT = 1024 * 1024
NODE_LIMIT = 100_000
DEPTH_LIMIT = 64

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]{0,30})")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]{1,4})?")
_SPECIAL: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_TYPES = ("str", "int", "float", "bool", "null", "timestamp", "seq", "map", "value")
_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in _TYPES)


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a value starts, counted from 1; the text of a block scalar starts one line below its `|`."""

    line: int
    column: int
    block: bool = False


@dataclass(slots=True)
class Document:
    """One file: its data, and where each key and each value stands. `file` is relative to the project."""

    file: str
    data: Any = None
    keys: dict[Where, Spot] = field(default_factory=dict)
    values: dict[Where, Spot] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list, repr=False)

    def problem(self, where: Where, message: str, hint: str | None = None) -> Problem:
        """A problem at the key of `where`, or of its nearest parent that stands in the file."""
        spot = self.spot(where)
        return Problem(message, self.file, spot.line, spot.column, hint)

    def spot(self, where: Where) -> Spot:
        known = self.resolve(where)
        return self.keys.get(known) or self.values.get(known) or Spot(1, 1)

    def resolve(self, where: Where) -> Where:
        """The part of `where` that stands in the file; names that only a validator knows are left out."""
        known: Where = ()
        for part in where:
            if (*known, part) in self.values:
                known = (*known, part)
        return known

    def within(self, where: Where, line: int, column: int) -> tuple[int, int]:
        """The place in the file of a place in a value's own text; both count from 1."""
        spot = self.values.get(self.resolve(where), Spot(1, 1))
        if spot.block:
            below = next((text for text in self.lines[spot.line :] if text.strip()), "")
            return spot.line + line, column + len(below) - len(below.lstrip())
        return (spot.line, spot.column + column - 1) if line == 1 else (spot.line + line - 1, column)


def read(path: Path, file: str) -> Document:
    """Reads one YAML file, which `file` names in messages.

    Raises:
        UsageError: with one problem.
    """
    return parse(read_text(path, file), file)


def read_text(path: Path, file: str) -> str:
    """A text file of the project: UTF-8 without a byte order mark, at most 1 MiB."""
    try:
        if not path.is_file():
            raise refusal(file, "is not a file")
        with path.open("rb") as stream:
            content = stream.read(FILE_LIMIT + 1)
    except OSError as error:
        raise refusal(file, f"cannot be read: {error.strerror}") from None
    if len(content) > FILE_LIMIT:
        raise refusal(file, "is larger than 1 MiB")
    return decode(content, file)


def decode(content: bytes, file: str) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise refusal(file, "is UTF-16", hint="save it as UTF-8")
    if content.startswith(b"\xef\xbb\xbf"):
        raise refusal(file, "starts with a byte order mark", hint="save it as UTF-8 without BOM")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise refusal(file, "is not UTF-8 text", line, hint="save it as UTF-8") from None
    found = re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]", text)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        raise refusal(file, f"is not a text file: it holds the control character {ord(found[0]):#04x}", line)
    return text


def parse(text: str, file: str) -> Document:
    """Raises: UsageError with one problem."""
    try:
        _measure(text, file)
        node = yaml.compose(text, Loader=_loader())
    except yaml.MarkedYAMLError as error:
        raise _syntax(error, text, file) from None
    except (yaml.YAMLError, ValueError) as error:
        raise refusal(file, f"is not valid YAML: {' '.join(str(error).split())[:200]}") from None
    if node is None:
        raise refusal(file, "is empty")
    document = Document(file, lines=text.split("\n"))
    document.data = _Builder(document).build(node, (), 0)
    if not isinstance(document.data, dict):
        raise refusal(file, "must be a mapping of `key: value`", 1, 1)
    return document


def refusal(
    file: str, message: str, line: int | None = None, column: int | None = None, hint: str | None = None
) -> UsageError:
    return UsageError(problems=[Problem(message, file, line, column, hint)])


def _loader() -> Any:
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _measure(text: str, file: str) -> None:
    """Reads the events alone first: composing recurses, and must not meet a file that is deep without end."""
    depth = nodes = 0
    for event in yaml.parse(text, Loader=_loader()):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        nodes += isinstance(event, yaml.NodeEvent)
        if depth > DEPTH_LIMIT or nodes > NODE_LIMIT:
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise refusal(file, _TOO_DEEP if depth > DEPTH_LIMIT else _TOO_MANY, line)


_TOO_DEEP = f"is nested deeper than {DEPTH_LIMIT} levels"
_TOO_MANY = f"holds more than {NODE_LIMIT:,} values, counting each alias"


def _syntax(error: yaml.MarkedYAMLError, text: str, file: str) -> UsageError:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    lines = text.splitlines()
    here = lines[line - 1] if line <= len(lines) else ""
    if "\t" in here[: len(here) - len(here.lstrip())]:
        return refusal(file, "a tab in the indentation", line, column, hint="YAML is indented with spaces")
    if "expected a single document" in str(error.context):
        return refusal(file, "a second document starts here", line, column, hint="one document a file")
    if "nesting depth" in str(error.problem):  # libyaml has a limit of its own, and reads ahead
        return refusal(file, _TOO_DEEP, line)
    return refusal(file, f"this is not valid YAML: {error.problem or error.context}", line, column)


class _Builder:
    """Nodes into data. YAML 1.2's readings: `on`, `off`, `no` and `12:30` are text, keys are always text."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.count = 0

    def build(self, node: yaml.Node, where: Where, depth: int) -> Any:
        self.count += 1
        spot = _spot(node)
        self.document.values[where] = spot
        if self.count > NODE_LIMIT:
            raise self._refusal(spot, _TOO_MANY)
        if depth > DEPTH_LIMIT:
            raise self._refusal(spot, _TOO_DEEP)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, where, depth)
        if node.tag not in _TAGS:
            raise self._refusal(spot, f"the YAML tag {_short(node.tag)} is not supported")
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*where, index), depth + 1) for index, item in enumerate(node.value)]
        return self._scalar(node, spot) if isinstance(node, yaml.ScalarNode) else None

    def _mapping(self, node: yaml.MappingNode, where: Where, depth: int) -> dict[str, Any]:
        if node.tag not in _TAGS:
            raise self._refusal(_spot(node), f"the YAML tag {_short(node.tag)} is not supported")
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, mark = self._key(key_node), key_node.start_mark
            spot = Spot(mark.line + 1, mark.column + 1)
            if key in data:
                first = self.document.keys[(*where, key)].line
                raise self._refusal(spot, f"the key `{_short(key)}` is here twice (first in line {first})")
            self.document.keys[(*where, key)] = spot
            data[key] = self.build(value_node, (*where, key), depth + 1)
        return data

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self._refusal(_spot(node), "a key must be plain text", hint="put ${…} in quotes")
        if node.tag == "tag:yaml.org,2002:merge":
            raise self._refusal(_spot(node), "merge keys (<<) are not supported", hint="use `defaults:`")
        return self._text(node, _spot(node))

    def _scalar(self, node: yaml.ScalarNode, spot: Spot) -> Any:
        text = self._text(node, spot)
        return text if node.style or node.tag.endswith(":str") else plain(text)

    def _text(self, node: yaml.ScalarNode, spot: Spot) -> str:
        text = str(node.value)
        if re.search("[\x00\ud800-\udfff]", text):
            raise self._refusal(spot, "NUL and lone surrogates cannot stand in a text")
        return text

    def _refusal(self, spot: Spot, message: str, hint: str | None = None) -> UsageError:
        return refusal(self.document.file, message, spot.line, spot.column, hint)


def plain(text: str) -> Any:
    """What an unquoted scalar means: null, a boolean, a number, or the text itself."""
    if text in _SPECIAL:
        return _SPECIAL[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and not _leading_zero(text):
        return float(text)
    special = text.lower().lstrip("+-")
    return float(text.lower().replace(".", "")) if special in (".inf", ".nan") else text


def _leading_zero(text: str) -> bool:
    digits = text.lstrip("+-")
    return digits[:1] == "0" and digits[1:2].isdigit()


def _short(text: str) -> str:
    text = text.removeprefix("tag:yaml.org,2002:")
    return repr(text)[1:-1] if len(text) <= 64 else repr(text[:60])[1:-1] + "…"


def _spot(node: yaml.Node) -> Spot:
    mark = node.start_mark
    quoted = getattr(node, "style", None)
    shift = 1 if quoted in ('"', "'") else 0
    return Spot(mark.line + 1, mark.column + 1 + shift, quoted in ("|", ">"))
