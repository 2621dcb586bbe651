"""SQL that users write, checked for its shape: a model is one SELECT, a field is one expression. Columns are
checked where they are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlglot import exp

_QUERY_STARTS = frozenset({"SELECT", "WITH", "FROM", "VALUES", "L_PAREN", "TABLE"})
_BEFORE = "SELECT "


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a text of SQL; the place counts from 1, in the text."""

    message: str
    line: int = 1
    column: int = 1


def check_model(text: str, dialect: str = "duckdb") -> Fault | None:
    """A model is exactly one query that only reads."""
    tokens = _tokens(text, dialect)
    if isinstance(tokens, Fault):
        return tokens
    if not tokens:
        return Fault("there is no SQL here")
    ends = [index for index, token in enumerate(tokens) if token.token_type.name == "SEMICOLON"]
    after = [token for token in tokens[ends[0] :] if token.token_type.name != "SEMICOLON"] if ends else []
    if after:
        return _fault("a second statement starts here; a model is one SELECT", after[0], text)
    if tokens[0].token_type.name not in _QUERY_STARTS:
        return _fault(f"a model is one SELECT, and this starts with {tokens[0].text[:30]}", tokens[0], text)
    tree = _parse(text, dialect)
    return tree if isinstance(tree, Fault) else _not_reading(tree, text)


def _not_reading(tree: exp.Expr | None, text: str) -> Fault | None:
    from sqlglot import exp

    if not isinstance(tree, exp.Query | exp.Values):
        return Fault("a model is one SELECT")
    for node in tree.find_all(exp.DML, exp.DDL, exp.Into, exp.Command, exp.Lock):
        if not isinstance(node, exp.Query):
            name = type(node).__name__.upper()
            return Fault(f"a model only reads, and this holds {'FOR UPDATE' if name == 'LOCK' else name}")
    parameter = tree.find(exp.Placeholder, exp.Parameter)
    return Fault(f"a model takes no parameters, and this holds {parameter.sql()}") if parameter else None


def check_expression(text: str) -> Fault | None:
    """A field's value is exactly one expression: no statement, no list, no alias, no subquery, no comment."""
    from sqlglot import exp

    tokens = _tokens(text, "duckdb")
    if isinstance(tokens, Fault):
        return tokens
    for token in tokens:
        if token.token_type.name == "SEMICOLON":
            return _fault("an expression holds no `;`", token, text)
    if any(token.comments for token in tokens) or not tokens:
        return Fault("a SQL comment cannot stand in an expression; YAML's begin with #")
    tree = _parse(_BEFORE + text, "duckdb")
    if isinstance(tree, Fault):
        shift = len(_BEFORE) if tree.line == 1 else 0
        return Fault(tree.message, tree.line, max(tree.column - shift, 1))
    if not isinstance(tree, exp.Select) or any(
        value for key, value in tree.args.items() if key != "expressions"
    ):
        return Fault("this is more than one SQL expression")
    return _not_one(tree.expressions)


def _not_one(expressions: list[Any]) -> Fault | None:
    from sqlglot import exp

    if len(expressions) != 1:
        return Fault("these are several expressions; a field takes one")
    one = expressions[0]
    if isinstance(one, exp.Alias | exp.Aliases):
        return Fault(f"an expression has no alias (`{one.alias}`)")
    if one.find(exp.Query):
        return Fault("an expression holds no subquery; write it in the model")
    if isinstance(one, exp.Star) or (isinstance(one, exp.Column) and isinstance(one.this, exp.Star)):
        return Fault("`*` is not one value")
    if one.find(exp.Unnest, exp.Explode):
        return Fault("an expression gives one value; write unnest in the model")
    if one.find(exp.AggFunc, exp.Window):
        return Fault("an expression sees one row; write aggregates and windows in the model")
    if one.find(exp.Placeholder, exp.Parameter, exp.DML, exp.DDL, exp.Command):
        return Fault("an expression takes no parameters and no statements")
    return None


def _tokens(text: str, dialect: str) -> list[Any] | Fault:
    from sqlglot import tokenize
    from sqlglot.errors import TokenError

    try:
        return list(tokenize(text, read=dialect))
    except TokenError as error:
        return Fault(f"this is not valid SQL: {_first_line(error)}")


def _parse(text: str, dialect: str) -> exp.Expr | Fault | None:
    import sqlglot
    from sqlglot.errors import ParseError, SqlglotError

    try:
        return sqlglot.parse(text, read=dialect)[0]
    except ParseError as error:
        first = error.errors[0] if error.errors else {}
        at = f" near {first['highlight'][:40]!r}" if first.get("highlight") else ""
        message = f"this is not valid SQL: {_said(str(first.get('description', '')))}{at}"
        column = int(first.get("col") or 1) - len(first.get("highlight") or "") + 1
        return Fault(message, int(first.get("line") or 1), max(column, 1))
    except SqlglotError as error:
        return Fault(f"this is not valid SQL: {_first_line(error)}")
    except RecursionError:
        return Fault("this SQL is nested too deeply to be read")


def _said(description: str) -> str:
    """The parser's description of a mistake, without the names of its classes."""
    if "<class" in description or not description:
        return "something is missing"
    return description.lower()


def _fault(message: str, token: Any, text: str) -> Fault:
    before = text[: token.start]
    return Fault(message, before.count("\n") + 1, token.start - (before.rfind("\n") + 1) + 1)


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0][:160]
