"""An xlsx workbook keeps the contract: people work in it with a spreadsheet program."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from openpyxl import load_workbook

from connectors.base import Connector
from connectors.workbook import WorkbookConnector
from tests.contract.dataset import make_node
from tests.contract.suite import ConnectorContract, Row

SHEET = "数据"


class TestWorkbook(ConnectorContract):
    @property
    def path(self) -> Path:
        return self.folder / "甲社区" / "台账.xlsx"

    def connector(self) -> Connector:
        return WorkbookConnector(make_node(self.dataset, {"path": str(self.path)}))

    def people_write(self, rows: list[Row]) -> None:
        book = load_workbook(self.path)
        sheet = book[SHEET]
        columns = self._columns(sheet)
        lines = {self._key(values): number for number, values in self._lines(sheet)}
        below = max(lines.values(), default=1)
        for values in rows:
            key = tuple(values[name] for name in self.dataset.key)
            number = lines.get(key)
            if number is None:
                number = below = below + 1
                lines[key] = number
            for name, value in values.items():
                cell = sheet.cell(number, columns[name])
                cell.value = _typed_in(value)
                if isinstance(value, str):
                    cell.data_type = "s"
        book.save(self.path)

    def people_delete(self, key: Row) -> None:
        book = load_workbook(self.path)
        sheet = book[SHEET]
        (number,) = [at for at, values in self._lines(sheet) if self._key(values) == tuple(key.values())]
        sheet.delete_rows(number)
        book.save(self.path)

    def stored(self) -> list[Row]:
        book = load_workbook(self.path, data_only=True)
        return [values for _, values in self._lines(book[SHEET])]

    def _columns(self, sheet: Any) -> dict[str, int]:
        titles = {cell.value: cell.column for cell in sheet[1]}
        return {name: titles[spec.label] for name, spec in self.dataset.fields.items()}

    def _lines(self, sheet: Any) -> list[tuple[int, Row]]:
        """Row number and values by field of each row that is not blank."""
        columns = self._columns(sheet)
        found = []
        for number, cells in enumerate(sheet.iter_rows(min_row=2, values_only=True), start=2):
            if any(cell is not None for cell in cells):
                found.append((number, {name: cells[at - 1] for name, at in columns.items()}))
        return found

    def _key(self, values: Row) -> tuple[Any, ...]:
        return tuple(values[name] for name in self.dataset.key)


def _typed_in(value: Any) -> Any:
    """As people type it: a moment is the wall clock's."""
    if isinstance(value, datetime):
        return value.astimezone(ZoneInfo("Asia/Shanghai")).replace(tzinfo=None)
    return value
