"""Workbooks, delimited files, drop folders and hosted tables over a disk that breaks: whatever fails under a method is an error of ours."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from connectors.base import Batch, Connector, no_keys
from connectors.hosted import HostedConnector
from connectors.parquet import ParquetConnector
from connectors.workbook import WorkbookConnector
from federation.errors import Conflict, ConnectorError, SchemaMismatch, Transient
from tests.contract import desk
from tests.contract.dataset import SAMPLE, make_node, table
from tests.contract.sealed import KEY

FIELDS = ("record_id", "community_code", "note", "visits")
ROW = {"record_id": "R1", "community_code": "110101001001", "note": "甲", "visits": 1}


def batch(note: str) -> Batch:
    return Batch((table(SAMPLE, [{**ROW, "note": note}]),), no_keys(make_node(SAMPLE, {}, fields=FIELDS)))


CALLS: dict[str, Callable[[Connector], object]] = {
    "probe": lambda one: one.probe(),
    "inspect": lambda one: one.inspect(),
    "prepare": lambda one: one.prepare(),
    "changes": lambda one: one.changes(None),
    "fetch": lambda one: one.fetch(table(SAMPLE, [{"record_id": "R1"}])),
    "apply": lambda one: one.apply(batch("乙")),
    "show_returns": lambda one: one.show_returns(desk.returns(SAMPLE, desk.returned("a", "R1"))),
}
FILES: dict[str, Callable[[Path], Connector]] = {
    "xlsx": lambda folder: WorkbookConnector(make_node(SAMPLE, {"path": str(folder / "台账.xlsx")}, fields=FIELDS)),
    "csv": lambda folder: WorkbookConnector(make_node(SAMPLE, {"path": str(folder / "台账.csv")}, fields=FIELDS)),
    "parquet": lambda folder: ParquetConnector(make_node(SAMPLE, {"path": folder / "drops"}, fields=FIELDS)),
}
BREAKING: dict[str, tuple[Any, str]] = {
    "reading": (Path, "read_bytes"),
    "looking": (Path, "stat"),
    "listing": (os, "scandir"),
    "opening": (os, "open"),
    "opening by path": (Path, "open"),
    "locking": (fcntl, "flock"),
    "renaming": (Path, "rename"),
    "replacing": (Path, "replace"),
}


@pytest.mark.parametrize("what", BREAKING)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", FILES)
def test_whatever_the_disk_refuses_under_a_method_is_an_error_of_ours(
    kind: str, call: str, what: str, tmp_path: Path
) -> None:
    one = FILES[kind](tmp_path)
    one.prepare()
    one.apply(batch("甲"))
    for number in (errno.EIO, errno.EACCES, errno.ENOLCK):
        with pytest.MonkeyPatch.context() as patch:
            broken = broken_by(patch, BREAKING[what], OSError(number, os.strerror(number)))
            found = raised(one, call)
        if found is not None:
            assert found.zh and found.en and found.where
            assert broken in causes(found) or isinstance(found, SchemaMismatch | Conflict)


@pytest.mark.parametrize("call", CALLS)
def test_whatever_the_database_of_hosted_records_refuses_is_an_error_of_ours(call: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'hosted.db'}"
    one = HostedConnector(make_node(SAMPLE, {"url": url, "keys": (KEY,)}, fields=FIELDS))
    one.prepare()
    one.apply(batch("甲"))
    for cause, kind in (("disk I/O error", ConnectorError), ("database is locked", Transient)):
        error = OperationalError("SELECT 1", {}, sqlite3.OperationalError(cause))
        with pytest.MonkeyPatch.context() as patch:
            broken_by(patch, (Connection, "execute"), error)
            found = raised(one, call)
        assert isinstance(found, kind) and error in causes(found), call


def broken_by(patch: pytest.MonkeyPatch, where: tuple[Any, str], error: Exception) -> Exception:
    def breaks(*_: Any, **__: Any) -> None:
        raise error

    patch.setattr(*where, breaks)
    return error


def raised(one: Connector, call: str) -> ConnectorError | None:
    """What a method raises, if that is an error of ours; any other goes through and fails the test."""
    try:
        CALLS[call](one)
    except ConnectorError as error:
        return error
    return None


def causes(error: BaseException | None) -> list[BaseException]:
    found = []
    while error is not None:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
