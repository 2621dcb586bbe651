"""Text that cannot become UTF-8: finds the column, so that an error names it instead of quoting its bytes.

PostgreSQL converts text to UTF-8 whatever the database's encoding, but not in a database of SQL_ASCII, which stores bytes without
knowing what they mean; and some encodings have characters without an equivalent (PostgreSQL documentation, 24.3).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from backhaul.errors import SourceError
from backhaul.sql import ident

if TYPE_CHECKING:
    import pyarrow as pa

_UNCONVERTIBLE = re.compile(r"has no equivalent in encoding|invalid byte sequence for encoding")
HINT = "convert it in the model, or correct it in the database (docs/warehouses.md, Encodings of PostgreSQL)"


def not_utf8(name: str | None) -> str:
    return (
        f"{f'the column {name}' if name else 'a column'} holds text that cannot be converted to UTF-8; {HINT}"
    )


def is_unconvertible(error: Exception | str) -> bool:
    return bool(_UNCONVERTIBLE.search(str(error)))


def validated(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield batches of a database that does not validate its text itself.

    Raises:
        SourceError: a text is not UTF-8.
    """
    import pyarrow as pa

    for batch in batches:
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            try:
                column.validate(full=True)
            except pa.ArrowInvalid:
                raise SourceError(not_utf8(name)) from None
        yield batch


def find_failing(connection: Any, select: str, columns: Sequence[str]) -> tuple[str | None, str | None]:
    """Return the first column that the server cannot compute or convert for some row, and the SQLSTATE. Reads the model once a
    column, after a read has failed. The name is None where the model fails whichever column is asked for."""
    import psycopg

    for name in (None, *columns):
        converted = "*" if name is None else f"pg_catalog.convert_to({ident(name)}::text, 'UTF8')"
        try:
            with connection.transaction():
                connection.execute(
                    f"SELECT pg_catalog.count({converted}) FROM ({select}\n) AS model".encode()
                )
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            return name, error.sqlstate
    return None, None
