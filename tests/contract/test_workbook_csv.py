"""A csv file keeps the contract in the encodings that people's programs write, and keeps its encoding."""

from __future__ import annotations

import csv
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from connectors.base import Connector
from connectors.workbook import WorkbookConnector
from tests.contract.dataset import make_node, row, table
from tests.contract.suite import ConnectorContract, Row


class CsvFile(ConnectorContract):
    """People edit it with a program that knows nothing of the engine."""

    encoding: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}

    @property
    def path(self) -> Path:
        return self.folder / "甲社区" / "台账.csv"

    def start(self) -> None:
        self.path.parent.mkdir()
        self._save([])

    def connector(self) -> Connector:
        return WorkbookConnector(make_node(self.dataset, {"path": str(self.path), **self.options}))

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
        with self.path.open(encoding=self.encoding, newline="") as text:
            return [{fields[title]: cell for title, cell in line.items()} for line in csv.DictReader(text)]

    def _save(self, rows: list[Row]) -> None:
        with self.path.open("w", encoding=self.encoding, newline="") as text:
            writer = csv.writer(text)
            writer.writerow([spec.label for spec in self.dataset.fields.values()])
            writer.writerows([values.get(name, "") for name in self.dataset.fields] for values in rows)

    def _key(self, values: Row) -> tuple[str, ...]:
        return tuple(values[name] for name in self.dataset.key)


class TestCsvInUtf8(CsvFile):
    encoding = "utf-8-sig"

    def test_the_file_keeps_its_mark_when_it_is_written(self) -> None:
        self.people_write([row("R1", note="一")])
        self.write(table(self.dataset, [row("R1", note="二")]))
        assert self.path.read_bytes().startswith(b"\xef\xbb\xbf")


class TestCsvInGb18030(CsvFile):
    encoding = "gb18030"
    options: ClassVar[dict[str, Any]] = {"encoding": "gb18030"}


class TestCsvInGb18030Undeclared(CsvFile):
    """What most programs save as 'CSV' on a Chinese machine, and nobody knows it."""

    encoding = "gb18030"

    def test_the_file_keeps_its_encoding_when_it_is_written(self) -> None:
        self.people_write([row("R1", note="一")])
        self.write(table(self.dataset, [row("R1", note="二")]))
        assert "二".encode("gb18030") in self.path.read_bytes()


def _typed_in(value: Any) -> str:
    if isinstance(value, datetime):
        value = value.astimezone(ZoneInfo("Asia/Shanghai")).replace(tzinfo=None)
        return value.isoformat(" ", "milliseconds")
    if isinstance(value, bool):
        return "是" if value else "否"
    return "" if value is None else str(value)
