"""The types that the values of a CSV file suggest, found once for a person to look over: nothing is inferred in a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from backhaul.engine_errors import in_one_line
from backhaul.errors import SourceError
from backhaul.sql import ident, literal
from backhaul.warehouses.csv_files import DELIMITERS, Format, read_header, scan

_WHOLE = "-?(0|[1-9][0-9]{0,17})"
"""No zeros in front: 01220 is a text."""
_DECIMAL = r"-?(0|[1-9][0-9]{0,11})\.[0-9]{1,6}"
_DATE = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME = f"{_DATE}[ T][0-9]{{2}}:[0-9]{{2}}(:[0-9]{{2}}(\\.[0-9]{{1,6}})?)?"
_FORMS = {
    "bigint": _WHOLE,
    "boolean": "true|false",
    "date": _DATE,
    "timestamp": _TIME,
    "timestamptz": f"{_TIME}(Z|[+-][0-9]{{2}}:[0-9]{{2}})",
}
"""How all values of a column of this type are written; of any other it stays text."""


@dataclass(frozen=True, slots=True)
class CsvModel:
    """A CSV file as a model: its columns in their order, which of them names one row each, and the types of those that hold more
    than text."""

    table: str
    columns: tuple[str, ...]
    key: str
    types: dict[str, str]
    reserved: frozenset[str]
    """Words that SQL needs in quotes where they are names."""


def infer_model(path: Path) -> CsvModel:
    """Raises: SourceError: the file cannot be read."""
    import duckdb

    form = Format(DELIMITERS[path.suffix.lower()], '"', '"')
    names = read_header(path, form)
    with duckdb.connect(":memory:") as engine:
        try:
            query = f"SELECT count(*), {', '.join(map(_facts, names))} FROM {scan(path, form)}"
            rows, *facts = engine.execute(query).fetchall()[0]
            words = engine.execute("SELECT keyword_name FROM duckdb_keywords()").fetchall()
        except duckdb.Error as error:
            raise SourceError(in_one_line(error), hint="correct the file; nothing was made") from None
    each = dict(zip(names, facts, strict=True))
    keys = (name for name, known in each.items() if known["there"] == known["different"] == rows)
    types = {name: kind for name, known in each.items() if (kind := _type(known))}
    return CsvModel(
        path.stem, tuple(names), next(keys, names[0]), types, frozenset(word for (word,) in words)
    )


def _facts(name: str) -> str:
    """SQL of what there is to know of a column, as one struct."""
    column = ident(name)
    every = [
        f"{kind} := bool_and(regexp_full_match({column}, {literal(form)}))" for kind, form in _FORMS.items()
    ]
    number = f"regexp_full_match({column}, {literal(f'{_WHOLE}|{_DECIMAL}')})"
    # 1.1 beside 1.10 are versions rather than numbers
    scale = f"nullif(length(split_part({column}, '.', 2)), 0)"
    return (
        f"struct_pack(there := count({column}), different := count(DISTINCT {column}), {', '.join(every)}, "
        f'"decimal" := bool_and({number}) AND min({scale}) = max({scale}), scale := max({scale}))'
    )


def _type(known: dict[str, object]) -> str:
    if known["decimal"]:
        return f"decimal(18,{known['scale']})"
    return next((kind for kind in _FORMS if known[kind]), "")
