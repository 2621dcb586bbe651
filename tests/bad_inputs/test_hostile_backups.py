"""`state restore` of an archive that somebody made to do harm: exit 2, one line, the state untouched."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from bad_project import BadProject

Entries = dict[str, bytes]


@pytest.fixture
def archive(bad: BadProject) -> Path:
    """A good backup."""
    bad.runs()
    made = bad.call("state", "backup", str(bad.root / "good.tar"))
    assert made.code == 0, made
    return bad.root / "good.tar"


def parts(archive: Path) -> tuple[dict[str, Any], Entries]:
    with tarfile.open(archive) as tar:
        held = {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]
    return json.loads(held.pop("manifest.json")), held


def write(target: Path, manifest: Mapping[str, Any], entries: Entries) -> Path:
    with tarfile.open(target, "w") as tar:
        for name, data in {"manifest.json": json.dumps(manifest).encode(), **entries}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return target


def altered(entries: Entries, folder: Path, *statements: str) -> bytes:
    file = folder / "altered.db"
    file.write_bytes(entries["state.db"])
    with sqlite3.connect(file) as database:
        for statement in statements:
            database.execute(statement)
    database.close()
    return file.read_bytes()


def rule_out(bad: BadProject, archive: Path, change: Callable[[dict[str, Any], Entries], None]) -> str:
    manifest, entries = parts(archive)
    change(manifest, entries)
    said = bad.call("state", "restore", str(write(bad.root / "hostile.tar", manifest, entries)), "--yes")
    assert said.code == 2, said
    assert "nothing was changed" in said.err
    assert said.err.count("\n") <= 2
    assert bad.call("state", "check").code == 0
    assert len(bad.acknowledged()) == 3
    return said.err


@pytest.mark.parametrize("plan", ["/srv/customers", "../../customers", "p-/../../x", ""])
@pytest.mark.parametrize("table", ["history", "plans"])
def test_an_id_that_is_a_path(bad: BadProject, archive: Path, plan: str, table: str) -> None:
    def change(manifest: dict[str, Any], entries: Entries) -> None:
        statement = f"update history set plan = '{plan}'"
        if table == "plans":
            columns = "id, scope, file, header, status, created_at"
            statement = f"insert into plans ({columns}) values ('{plan}', 's', 'f', '{{}}', 'held', '2026')"
        entries["state.db"] = altered(entries, bad.root, statement)
        manifest["files"]["state.db"] = hashlib.sha256(entries["state.db"]).hexdigest()

    assert "which is no id of backhaul's" in rule_out(bad, archive, change)


@pytest.mark.parametrize("change", [
    lambda manifest, entries: manifest.update(files={}),
    lambda manifest, entries: manifest.update(made_at="\x1b[31mred"),
    lambda manifest, entries: manifest["files"].update({"../outside": "0" * 64}),
    lambda manifest, entries: entries.update({"../outside": b"x"}),
    lambda manifest, entries: entries.pop("state.db"),
])  # fmt: skip
def test_a_list_of_files_that_is_not_ours(
    bad: BadProject, archive: Path, change: Callable[..., None]
) -> None:
    def both(manifest: dict[str, Any], entries: Entries) -> None:
        change(manifest, entries)
        if not manifest["files"]:
            entries.clear()

    said = rule_out(bad, archive, both)
    assert "\x1b" not in said


def test_a_sparse_entry(bad: BadProject, archive: Path) -> None:
    manifest, _ = parts(archive)
    hostile = bad.root / "hostile.tar"
    write(hostile, manifest, {})
    size = 3 << 30
    header = tarfile.TarInfo("state.db")
    header.size, header.type = 0, tarfile.GNUTYPE_SPARSE
    raw = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    raw[483:495] = b"%011o\0" % size
    raw[148:156] = b"        "
    raw[148:156] = b"%06o\0 " % sum(raw)
    data = hostile.read_bytes().rstrip(b"\0")
    data += b"\0" * (-len(data) % 512)
    hostile.write_bytes(data + bytes(raw) + b"\0" * 1024)
    said = bad.call("state", "restore", str(hostile), "--yes")
    assert said.code == 2, said
    assert "larger than what the file holds" in said.err
    assert not list(bad.root.glob(".restoring-*"))
