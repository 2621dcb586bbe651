"""CSV files are text in every column, in one format; types are declared, and a value that does not fit rejects its record."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from flows import Pipe

import backhaul
from backhaul.errors import UsageError


@pytest.fixture
def pipe(tmp_path: Path) -> Pipe:
    """A file `c.csv` to a table whose columns are all text."""
    (tmp_path / "data").mkdir()
    return Pipe(
        tmp_path, {"type": "files", "path": "data"}, {"type": "sqlite", "path": str(tmp_path / "app.db")}
    )


def deliver(pipe: Pipe, text: str, name: str = "c.csv") -> dict[str, tuple[Any, ...]]:
    """Delivers a file; what the destination holds, by key."""
    (pipe.root / "data" / name).write_text(text)
    columns = text.split("\n")[0].replace("\t", ",").replace(";", ",").split(",")
    with sqlite3.connect(pipe.root / "app.db") as app:
        app.execute(
            f"CREATE TABLE IF NOT EXISTS t ({', '.join(f'{name} TEXT' for name in columns)}, UNIQUE (id))"
        )
    if not (pipe.root / "backhaul.yml").exists():
        pipe.write(fields={name: name for name in columns[1:]})
    report = pipe.run()
    assert report.status == "succeeded", report.error
    with sqlite3.connect(pipe.root / "app.db") as app:
        return {row[0]: row[1:] for row in app.execute("SELECT * FROM t")}


def test_no_type_depends_on_the_data_of_the_day(pipe: Pipe) -> None:
    first = "id,day\nu1,01/02/2026\nu2,03/04/2026\n"
    assert deliver(pipe, first) == {"u1": ("01/02/2026",), "u2": ("03/04/2026",)}
    assert deliver(pipe, first + "u3,01/13/2026\n")["u1"] == ("01/02/2026",)
    assert pipe.run().requests == 0


def test_digits_stay_as_they_are_written(pipe: Pipe) -> None:
    zips = "".join(f"{number},{number + 10000},1.1,1,1\n" for number in range(30_000))
    held = deliver(pipe, f"id,zip,version,amount,hex\n{zips}x,01220,1.10,1234567890123456789.25,0x10\n")
    assert held["x"] == ("01220", "1.10", "1234567890123456789.25", "0x10")
    assert held["7"] == ("10007", "1.1", "1", "1")


def test_nothing_is_a_comment(pipe: Pipe) -> None:
    assert sorted(deliver(pipe, "id,v\n1,x\n#2,y\n3,z\n")) == ["#2", "1", "3"]


def test_a_color_is_not_a_comment(pipe: Pipe) -> None:
    assert deliver(pipe, "id,a\n#FF0000,red\n// a note,x\n") == {"#FF0000": ("red",), "// a note": ("x",)}


def test_quoted_values_and_a_byte_order_mark(pipe: Pipe) -> None:
    text = '\ufeffid,v,w\r\n1,"a ""b"", c",\r\n2,"two\nlines",x\r\n'
    (pipe.root / "data" / "c.csv").write_bytes(text.encode())
    with sqlite3.connect(pipe.root / "app.db") as app:
        app.execute("CREATE TABLE t (id TEXT UNIQUE, v TEXT, w TEXT)")
    assert pipe.write(fields={"v": "v", "w": "w"}).run().status == "succeeded"
    with sqlite3.connect(pipe.root / "app.db") as app:
        assert app.execute("SELECT * FROM t ORDER BY id").fetchall() == [
            ("1", 'a "b", c', None),
            ("2", "two\nlines", "x"),
        ]


@pytest.mark.parametrize(("name", "text", "settings"), [
    ("c.tsv", "id\tv\n1\ta,b\n", {}),
    ("c.csv", "id;v\n1;a,b\n", {"delimiter": ";"}),
])  # fmt: skip
def test_delimiters_are_declared(pipe: Pipe, name: str, text: str, settings: dict[str, str]) -> None:
    pipe.warehouse |= settings
    assert deliver(pipe, text, name) == {"1": ("a,b",)}


RAGGED = {
    "id,a,b\n"
    + "1,x,y\n" * 499
    + "501,x\n"
    + "9,x,y\n": "c.csv, line 501: the header has 3 columns, and this line has 2",
    "id,a,b\n1,x,y\n2,x,y,z\n": "c.csv, line 3: the header has 3 columns, and this line has more",
    'id,a,b\n1,x,y\n2,"x,y\n': "c.csv, line 3: Value with unterminated quote found.",
    "id;a\n1;x\n": "its header has one column, and ';' in its name",
    "id,,b\n1,x,y\n": "column 2 has no name in the header",
    "id,b,B\n1,x,y\n": "the header has two columns named B",
    "": "it has no header",
}


@pytest.mark.parametrize(("text", "said"), RAGGED.items())
def test_a_file_that_is_not_whole_is_named_by_its_line(pipe: Pipe, text: str, said: str) -> None:
    (pipe.root / "data" / "c.csv").write_text(text)
    sqlite3.connect(pipe.root / "app.db").execute(
        "CREATE TABLE t (id TEXT UNIQUE, a TEXT, b TEXT)"
    ).connection.close()
    report = pipe.write(fields={"a": "a"}).run()
    assert report.status == "failed"
    assert said in str(report.error), report.error


TYPED = {
    "n": "bigint",
    "mrr": "decimal(12,2)",
    "at": "date",
    "seen": "timestamptz",
    "on": "boolean",
    "score": "double",
}
FITS = "7,19.90,2026-02-01,2026-02-01T10:00:00+02:00,true,1.5"


def typed(pipe: Pipe, *lines: str, model: dict[str, Any] | None = None) -> None:
    (pipe.root / "data" / "c.csv").write_text("\n".join(["id," + ",".join(TYPED), *lines]) + "\n")
    with sqlite3.connect(pipe.root / "app.db") as app:
        app.execute('CREATE TABLE IF NOT EXISTS t (id TEXT UNIQUE, n, mrr, at, seen, "on", score)')
    pipe.write(
        fields={name: f'"{name}"' for name in TYPED}, model=(model or {"table": "c"}) | {"columns": TYPED}
    )


def test_declared_types_are_those_of_the_values(pipe: Pipe) -> None:
    typed(pipe, f"1,{FITS}", "2,,,,,,")
    assert pipe.run().status == "succeeded"
    with sqlite3.connect(pipe.root / "app.db") as app:
        rows = app.execute("SELECT * FROM t ORDER BY id").fetchall()
    assert rows == [("1", 7, 19.9, "2026-02-01", "2026-02-01T08:00:00Z", 1, 1.5), ("2",) + (None,) * 6]


@pytest.mark.parametrize(("column", "value"), [
    ("n", "0x10"), ("n", "1.0"), ("n", "abc"), ("mrr", "19.905"), ("mrr", "1e2"), ("mrr", "99999999999"), ("mrr", "."),
    ("at", "01/02/2026"), ("seen", "yesterday"), ("on", "maybe"), ("score", "1234567890123456789.25"),
])  # fmt: skip
def test_a_value_that_does_not_fit_rejects_its_record_by_line(pipe: Pipe, column: str, value: str) -> None:
    place = list(TYPED).index(column)
    bad = ",".join(value if at == place else good for at, good in enumerate(FITS.split(",")))
    typed(pipe, f'"two\nlines",{FITS}', "", f"bad,{bad}", f"3,{FITS}")
    report = pipe.run()
    assert (report.status, report.delivered, report.rejected) == ("partial", 2, 1), report.error
    code, message = pipe.refusals()["bad"]
    assert (code, message.split(" does not fit ")[0]) == (
        "type",
        f"{column}: the value on line 5 in column {column}",
    )
    assert value not in message


def test_many_values_that_do_not_fit_have_lines_of_their_own(pipe: Pipe) -> None:
    typed(pipe, *(f"{number},{'x' if number % 1000 == 0 else 7},{FITS[2:]}" for number in range(1, 100_001)))
    report = pipe.run()
    assert (report.delivered, report.rejected) == (99_900, 100)
    assert pipe.refusals()["5000"][1] == "n: the value on line 5001 in column n does not fit BIGINT"


def test_a_model_that_does_not_give_the_rows_of_the_file_names_the_column(pipe: Pipe) -> None:
    names = ", ".join(f'c."{name}"' for name in TYPED)
    typed(pipe, f"1,{FITS}", f"2,x,{FITS[2:]}", model={"sql": f"select id, {names} from c"})
    assert pipe.run().rejected == 1
    assert pipe.refusals()["2"][1] == "n: a value in column n does not fit BIGINT"


def test_a_cursor_follows_the_declared_type(pipe: Pipe) -> None:
    (pipe.root / "data" / "c.csv").write_text("id,n\na,9\nb,10\n")
    with sqlite3.connect(pipe.root / "app.db") as app:
        app.execute("CREATE TABLE t (id TEXT UNIQUE, n)")
    pipe.write(fields={"n": "n"}, model={"table": "c", "cursor": "n", "columns": {"n": "bigint"}})
    assert pipe.run().delivered == 2
    (pipe.root / "data" / "c.csv").write_text("id,n\na,9\nb,10\nc,11\n")
    report = pipe.run()
    assert (report.delivered, report.rows) == (1, 2), report.error


def test_a_key_that_does_not_fit_ends_the_run(pipe: Pipe) -> None:
    (pipe.root / "data" / "c.csv").write_text("id,v\n1,x\nb,y\n")
    with sqlite3.connect(pipe.root / "app.db") as app:
        app.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
    report = pipe.write(fields={"v": "v"}, model={"table": "c", "columns": {"id": "bigint"}}).run()
    assert report.status == "failed"
    assert "1 value of the key id do not fit bigint: the value on line 3" in str(report.error)


def test_types_are_declared_for_csv_alone(pipe: Pipe) -> None:
    import duckdb

    duckdb.execute(f"COPY (SELECT 1 AS id, 2 AS n) TO '{pipe.root}/data/c.parquet'")
    sqlite3.connect(pipe.root / "app.db").execute(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER)"
    ).connection.close()
    report = pipe.write(fields={"n": "n"}, model={"table": "c", "columns": {"n": "bigint"}}).run()
    assert "declares n, which has a type already: INTEGER" in str(report.error)
    assert "`model.columns` declares zz, which the model does not have" in str(
        pipe.write(model={"table": "c", "columns": {"zz": "bigint"}}).run().error
    )
    pipe.warehouse = {"type": "sqlite", "path": "app.db"}
    pipe.write()
    with pytest.raises(UsageError, match="`columns` declares the types of CSV columns, and main is sqlite"):
        backhaul.load(pipe.root)
    pipe.write(model={"table": "c", "columns": {"n": "numbr"}})
    with pytest.raises(UsageError, match="'numbr' is not a column type"):
        backhaul.load(pipe.root)
