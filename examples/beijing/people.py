"""What the sample's people do in their own systems: they open a workbook, a database or a platform, never the engine."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from openpyxl import load_workbook
from openpyxl.worksheet.worksheet import Worksheet

SHEET = "数据"
RETURNS = "退回待改"


@dataclass(frozen=True)
class Workbook:
    """A clerk's workbook. Headers are the Chinese labels; `key` is the header of the first key column."""

    path: Path
    key: str

    def rows(self, sheet: str = SHEET) -> list[dict[str, Any]]:
        """The rows of a sheet as a person sees them, blank ones left out; nothing if there is no such sheet."""
        with closing(load_workbook(self.path, read_only=False, data_only=True)) as book:
            if sheet not in book.sheetnames:
                return []
            page = book[sheet]
            heads = [cell.value for cell in page[1]]
            lines = [dict(zip(heads, values)) for values in page.iter_rows(min_row=2, values_only=True)]
        return [line for line in lines if any(value not in (None, "") for value in line.values())]

    def edit(self, key: str, **values: Any) -> None:
        """Change cells of the row with this key and save. Raises KeyError if there is no such row."""
        with closing(load_workbook(self.path)) as book:
            page = book[SHEET]
            heads = self._heads(page)
            for row in page.iter_rows(min_row=2):
                if row[heads[self.key]].value == key:
                    for name, value in values.items():
                        row[heads[name]].value = value
                    book.save(self.path)
                    return
        raise KeyError(key)

    def add(self, **values: Any) -> None:
        """Type a new row under the last one and save."""
        with closing(load_workbook(self.path)) as book:
            page = book[SHEET]
            heads = self._heads(page)
            last = max(
                (row[0].row for row in page.iter_rows(min_row=1) if any(cell.value is not None for cell in row)),
                default=1,
            )
            for name, value in values.items():
                page.cell(last + 1, heads[name] + 1).value = value
            book.save(self.path)

    @staticmethod
    def _heads(page: Worksheet) -> dict[str, int]:
        return {str(cell.value): place for place, cell in enumerate(page[1])}


@dataclass(frozen=True)
class Database:
    """A clerk's SQLite database."""

    path: Path

    def query(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """Rows as dictionaries."""
        with closing(sqlite3.connect(self.path, timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(statement, values)]


@dataclass(frozen=True)
class Hotline:
    """The city's dispatchers at the 12345 platform. Tries again when the platform is busy, as a person would."""

    url: str
    token: str

    def order(self, number: str) -> dict[str, Any]:
        """One work order."""
        found: dict[str, Any] = self._call("GET", number).json()["data"]
        return found

    def dispatch(self, number: str, street_code: str) -> None:
        """Dispatch an order to a street (直派)."""
        self._call("PATCH", number, {"dispatch": {"street_code": street_code}})

    def _call(self, method: str, number: str, body: dict[str, Any] | None = None) -> requests.Response:
        for _ in range(20):
            answer = requests.request(
                method,
                f"{self.url}/api/v1/orders/{number}",
                json=body,
                timeout=10,
                headers={"Authorization": f"Bearer {self.token}"},
            )
            if answer.status_code not in (429, 500, 503):
                break
        answer.raise_for_status()
        return answer
