"""Numbers of the warehouse that are none, or too large: each rejects its record in its field's name, and no other."""

from __future__ import annotations

import psycopg
import pytest
from sites import Site

ROWS = {1: "1.50", 2: "'NaN'", 3: "'Infinity'", 4: "'-Infinity'", 5: "1e30", 6: "NULL", 7: "-0.25"}


@pytest.fixture
def shop(site: Site, postgres_db: str) -> Site:
    """A model in PostgreSQL, `t (id, name, price numeric)`, with one value of each kind."""
    site.settings = {"warehouses": {"main": {"type": "postgres", "dsn": postgres_db}}}
    site.sync = {"fields": {"name": "name", "price": "price"}, "nulls": "clear"}
    site.write()
    site.settings["dsn"] = postgres_db
    query(site, "CREATE TABLE t (id int PRIMARY KEY, name text, price numeric)")
    for key, price in ROWS.items():
        query(site, f"INSERT INTO t VALUES ({key}, 'n{key}', {price})")
    return site


def query(site: Site, sql: str) -> None:
    with psycopg.connect(site.settings["dsn"], autocommit=True) as db:
        db.execute(sql.encode())


def mapped(site: Site, **sync: object) -> Site:
    dsn = site.settings.pop("dsn")
    site.sync |= sync
    site.write()
    site.settings["dsn"] = dsn
    return site


def said(site: Site) -> dict[int, tuple[str, str]]:
    return {letter["key"]: (letter["error"]["code"], letter["error"]["message"]) for letter in site.letters()}


def test_a_numeric_nan_rejects_its_record_and_no_other(shop: Site) -> None:
    report = shop.run().report
    assert (report.status, report.delivered, report.rejected) == ("partial", 3, 4), report.error
    assert {key: record["price"] for key, record in shop.sink.records.items()} == {
        "1": 1.5, "6": None, "7": -0.25,
    }  # fmt: skip
    does_not_fit = "in column price does not fit DECIMAL(38,18)"
    assert said(shop) == {
        2: ("type", f"price: NaN {does_not_fit}"),
        3: ("type", f"price: Infinity {does_not_fit}"),
        4: ("type", f"price: -Infinity {does_not_fit}"),
        5: ("type", f"price: 1{'0' * 30} {does_not_fit}"),
    }
    assert [letter["field"] for letter in report.refused] == ["price"]
    assert shop.run().report.requests == 0


def test_it_comes_back_by_itself_when_its_value_is_mended(shop: Site) -> None:
    shop.run()
    query(shop, "UPDATE t SET price = 2 WHERE id IN (2, 3, 4, 5)")
    report = shop.run().report
    assert (report.status, report.delivered) == ("succeeded", 4)
    assert shop.letters() == []
    assert shop.sink.records["2"]["price"] == 2


def test_nan_is_not_the_null_that_was_delivered(shop: Site) -> None:
    """I3: a value that stands as NULL on the way must not pass for one that was acknowledged."""
    query(shop, "DELETE FROM t WHERE id IN (2, 3, 4, 5)")
    assert shop.run().report.status == "succeeded"
    query(shop, "UPDATE t SET price = 'NaN' WHERE id = 6")
    report = shop.run().report
    assert (report.status, report.rejected, list(said(shop))) == ("partial", 1, [6])
    query(shop, "UPDATE t SET price = NULL WHERE id = 6")
    report = shop.run().report
    assert (report.status, report.requests, shop.letters()) == ("succeeded", 0, [])


@pytest.mark.parametrize(
    "expr", ["coalesce(price, 0)", "round(price * 2, 2)", "model.price", "CAST(price AS VARCHAR)"]
)
def test_an_expression_that_reads_it_is_rejected_too(shop: Site, expr: str) -> None:
    mapped(shop, fields={"name": "name", "total": expr})
    report = shop.run().report
    assert (report.delivered, report.rejected) == (3, 4), report.error
    assert said(shop)[2][1].startswith("total: NaN in column price")


def test_a_column_that_nobody_maps_hurts_nobody(shop: Site) -> None:
    mapped(shop, fields={"name": "name"})
    report = shop.run().report
    assert (report.status, report.delivered) == ("succeeded", len(ROWS))


def test_a_mapping_of_the_row_as_a_whole_names_the_column(shop: Site) -> None:
    mapped(shop, fields={"everything": "to_json(model)"}, freshness={"sample": 0})
    report = shop.run().report
    assert (report.status, shop.sink.seen) == ("failed", [])
    assert "in column price does not fit" in str(report.error)
    query(shop, "DELETE FROM t WHERE id IN (2, 3, 4, 5)")
    assert shop.run().report.status == "succeeded"
    assert set(shop.sink.records["1"]["everything"]) == {"id", "name", "price"}


def test_why_tells_what_was_wrong(shop: Site) -> None:
    shop.run()
    told = shop.call("why", "users", "2", "--json").stdout
    assert "NaN in column price does not fit" in told


def test_a_key_that_is_no_number_stops_the_run_and_says_so(shop: Site) -> None:
    mapped(shop, model={"warehouse": "main", "table": "t", "primary_key": "price"}, fields={"name": "name"})
    report = shop.run().report
    assert (report.status, shop.sink.seen) == ("failed", [])
    assert str(report.error).startswith(
        "5 rows have NULL, or a number that does not fit, in the primary key (price), such as id "
    )
