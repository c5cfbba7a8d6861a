"""A csv file keeps the contract, wherever it lies, in the encodings that people's programs write, and keeps its encoding."""

from __future__ import annotations

import csv
import io
from datetime import datetime
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from connectors.base import Connector
from connectors.workbook import WorkbookConnector
from tests.contract.dataset import make_node, row, table
from tests.contract.suite import ConnectorContract, Row
from tests.contract.test_workbook_xlsx import KINDS, SHOWN, STATES, returns_row
from tests.stores import PLACES, Place

NAME, RECEIPTS, RETURNS, DESK = "台账.csv", "台账.回执.csv", "台账.退回待改.csv", "台账.校核.csv"


class CsvFile(ConnectorContract):
    """People edit it with a program that knows nothing of the engine."""

    encoding: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}
    kind: ClassVar[str] = "local"
    place: Place

    def start(self) -> None:
        self.place = PLACES[self.kind](self.folder)
        self._save([])

    def connector(self) -> Connector:
        return WorkbookConnector(make_node(self.dataset, {**self.place.options(NAME), **self.options}))

    def people_write(self, rows: list[Row]) -> None:
        lines = {self._key(values): values for values in self.stored()}
        for values in rows:
            typed = {name: _typed_in(value) for name, value in values.items()}
            lines[self._key(typed)] = {**lines.get(self._key(typed), {}), **typed}
        self._save(list(lines.values()))

    def people_delete(self, key: Row) -> None:
        gone = self._key({name: _typed_in(value) for name, value in key.items()})
        self._save([values for values in self.stored() if self._key(values) != gone])

    def stored(self) -> list[Row]:
        fields = {spec.label: name for name, spec in self.dataset.fields.items()}
        lines = csv.DictReader(io.StringIO(self.place.read(NAME).decode(self.encoding), newline=""))
        return [{fields[title]: cell for title, cell in line.items()} for line in lines]

    def people_see_corrections(self) -> dict[str, Row]:
        if DESK not in self.place.names():
            return {}
        _, *lines = _cells(self.place.read(DESK))
        names = ["correction_id", *self.dataset.key, *SHOWN]
        found = [dict(zip(names, (cell.removeprefix("'") for cell in line))) for line in lines]
        return {
            line.pop("correction_id"): {**line, "kind": KINDS[line["kind"]], "state": STATES[line["state"]]}
            for line in found
        }

    def people_rule(self, correction_id: str, ruling: str, reason: str | None) -> None:
        lines = _cells(self.place.read(DESK))
        (line,) = [cells for cells in lines if cells[0] == correction_id]
        line[-2:] = [ruling, reason or ""]
        text = io.StringIO(newline="")
        csv.writer(text).writerows(lines)
        self.place.write(DESK, text.getvalue().encode(self.encoding))

    def people_see_returns(self) -> list[Row]:
        if RETURNS not in self.place.names():
            return []
        lines = csv.DictReader(io.StringIO(self.place.read(RETURNS).decode("utf-8-sig"), newline=""))
        return [returns_row(self.dataset, line) for line in lines]

    def people_see_receipts(self) -> list[Row]:
        if RECEIPTS not in self.place.names():
            return []
        header, *lines = csv.reader(io.StringIO(self.place.read(RECEIPTS).decode("utf-8-sig"), newline=""))
        assert header == ["时间", "收发", "对方", "写入行数", "删除行数", "批次"]
        return [dict(zip(("at", "way", "other", "written", "deleted", "run_id"), line)) for line in lines]

    def desk_place(self) -> object:
        return {name: self.place.read(name) for name in (RECEIPTS, DESK) if name in self.place.names()}

    def _save(self, rows: list[Row]) -> None:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow([spec.label for spec in self.dataset.fields.values()])
        writer.writerows([values.get(name, "") for name in self.dataset.fields] for values in rows)
        self.place.write(NAME, text.getvalue().encode(self.encoding))

    def _key(self, values: Row) -> tuple[str, ...]:
        return tuple(values[name] for name in self.dataset.key)


class TestCsvInUtf8(CsvFile):
    encoding = "utf-8-sig"

    def test_the_file_keeps_its_mark_when_it_is_written(self) -> None:
        self.people_write([row("R1", note="一")])
        self.write(table(self.dataset, [row("R1", note="二")]))
        assert self.place.read(NAME).startswith(b"\xef\xbb\xbf")


class TestCsvInGb18030(CsvFile):
    encoding = "gb18030"
    options: ClassVar[dict[str, Any]] = {"encoding": "gb18030"}


class TestCsvInUtf8OnSftp(CsvFile):
    encoding = "utf-8-sig"
    kind = "sftp"


class TestCsvInGb18030OnSftp(CsvFile):
    encoding = "gb18030"
    kind = "sftp"


class TestCsvInUtf8InAnObjectStore(CsvFile):
    encoding = "utf-8-sig"
    kind = "s3"


class TestCsvInGb18030InAnObjectStore(CsvFile):
    encoding = "gb18030"
    kind = "s3"


class TestCsvInGb18030Undeclared(CsvFile):
    """What most programs save as 'CSV' on a Chinese machine, and nobody knows it."""

    encoding = "gb18030"

    def test_the_file_keeps_its_encoding_when_it_is_written(self) -> None:
        self.people_write([row("R1", note="一")])
        self.write(table(self.dataset, [row("R1", note="二")]))
        assert "二".encode("gb18030") in self.place.read(NAME)


def _cells(content: bytes) -> list[list[str]]:
    """A table as a program opens it: in UTF-8 if it can be, else in GB18030."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("gb18030")
    return list(csv.reader(io.StringIO(text, newline="")))


def _typed_in(value: Any) -> str:
    if isinstance(value, datetime):
        value = value.astimezone(ZoneInfo("Asia/Shanghai")).replace(tzinfo=None)
        return value.isoformat(" ", "milliseconds")
    if isinstance(value, bool):
        return "是" if value else "否"
    return "" if value is None else str(value)
