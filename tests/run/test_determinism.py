"""A model that gives other values each time it is read: the run and `status` say so."""

from __future__ import annotations

from sites import Site

ASKED = "is the model deterministic?"


def _notices(site: Site) -> list[str]:
    return [notice for notice in site.run().report.notices if ASKED in notice]


def _random(site: Site, rows: int = 40) -> None:
    site.sync = {"model": {"warehouse": "main", "sql": "select *, random() as r from t", "primary_key": "id"},
                 "fields": {"name": "name", "score": "r"}}  # fmt: skip
    site.write()
    site.fill(rows)


def test_a_model_that_changes_every_row_in_each_run_is_named(site: Site) -> None:
    _random(site)
    assert [_notices(site) for _ in range(3)] == [[], [], []]
    site.sql("insert into t values (77, 'new', 1)")
    (notice,) = _notices(site)
    assert notice.startswith("40 of 41 rows changed in each of the last 3 runs; is the model deterministic?")
    with site.project as project:
        assert project.status()[0]["last_run"]["notices"] == [notice]
    status = site.call("status")
    said = status.stdout
    assert ASKED in " ".join(said.split())


def test_runs_that_change_some_rows_or_few_are_not(site: Site) -> None:
    _random(site, rows=9)
    assert [_notices(site) for _ in range(4)] == [[]] * 4
    site.sync = {}
    site.write()
    site.fill(40).run()
    for turn in range(4):
        assert not _notices(site.sql(f"update t set name = 'n{turn}' where id > 0"))


def test_rows_that_are_sent_again_for_another_reason_are_not(site: Site) -> None:
    _random(site)
    site.run()
    site.run()
    site.run()
    with site.project as project:
        project.reset("users")
    assert _notices(site) == []
