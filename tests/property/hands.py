"""How people reach the records of their own systems: SQL statements, a spreadsheet program, a text editor. Never a connector.

One exception: people without a system have no other way than the engine's own commands.
"""

from __future__ import annotations

import csv
import io
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from openpyxl import load_workbook

from connectors.base import Connector
from federation.contract import Dataset
from federation.hosting import Hosting

Row = dict[str, Any]
Run = Callable[[str, Sequence[Any]], list[Any]]
"""Execute one statement with these values, commit, and return its rows."""
DESK = "校核"


class Hands(ABC):
    """The people of one node and dataset. Rows are keyed by the dataset's single key field, values as the contract types them."""

    @abstractmethod
    def rows(self) -> dict[str, Row]:
        """All that the node holds."""

    @abstractmethod
    def write(self, key: str, values: Row) -> None:
        """Insert a row, or change these fields of it."""

    @abstractmethod
    def remove(self, key: str) -> None:
        """Delete a row that is there."""

    def rule(self, correction_id: str, word: str) -> bool:
        """Write a ruling beside a correction; False if it is not shown here."""
        return False

    @contextmanager
    def away(self) -> Iterator[None]:
        """What the node keeps its rows in is gone for a while."""
        yield


class TableHands(Hands):
    """A program of the region's own that writes to its table.

    `columns`: field → quoted column, key first. `mark`: the driver's placeholder. `stamp`: what the program writes into the column
    `changed`, None if it does not keep one. `desk`: the table of corrections.
    """

    def __init__(
        self, run: Run, name: str, columns: dict[str, str], *, mark: str, stamp: str | None, desk: str | None = None
    ) -> None:
        self.run, self.name, self.columns, self.mark, self.stamp, self.desk = run, name, columns, mark, stamp, desk
        self.key = next(iter(columns))

    def rows(self) -> dict[str, Row]:
        found = self.run(f"SELECT {', '.join(self.columns.values())} FROM {self.name}", ())
        rows = [typed(dict(zip(self.columns, values))) for values in found]
        assert len(rows) == len({row[self.key] for row in rows}), "a key stands twice"
        return {row[self.key]: row for row in rows}

    def write(self, key: str, values: Row) -> None:
        key_column = self.columns[self.key]
        named = {self.columns[name]: value for name, value in values.items()}
        stamped = {"changed": self.stamp} if self.stamp else {}
        if self.run(f"SELECT 1 FROM {self.name} WHERE {key_column} = {self.mark}", (key,)):
            pairs = [f"{column} = {self.mark}" for column in named] + [f"{c} = {text}" for c, text in stamped.items()]
            statement = f"UPDATE {self.name} SET {', '.join(pairs)} WHERE {key_column} = {self.mark}"
            self.run(statement, (*named.values(), key))
        else:
            marks = [self.mark] * (len(named) + 1)
            listed, given = [key_column, *named, *stamped], [*marks, *stamped.values()]
            self.run(
                f"INSERT INTO {self.name} ({', '.join(listed)}) VALUES ({', '.join(given)})", (key, *named.values())
            )

    def remove(self, key: str) -> None:
        self.run(f"DELETE FROM {self.name} WHERE {self.columns[self.key]} = {self.mark}", (key,))

    def rule(self, correction_id: str, word: str) -> bool:
        if self.desk is None:
            return False
        where = f"WHERE correction_id = {self.mark}"
        if not self.run(f"SELECT 1 FROM {self.desk} {where}", (correction_id,)):
            return False
        self.run(f"UPDATE {self.desk} SET ruling = {self.mark} {where}", (word, correction_id))
        return True

    @contextmanager
    def away(self) -> Iterator[None]:
        hidden = f"{self.name}_away"
        self.run(f"ALTER TABLE {self.name} RENAME TO {self.renamed(hidden)}", ())
        try:
            yield
        finally:
            self.run(f"ALTER TABLE {hidden} RENAME TO {self.renamed(self.name)}", ())

    def renamed(self, name: str) -> str:
        """A new name stands without its schema."""
        return name.rpartition(".")[2]


class MariadbHands(TableHands):
    """The same on MariaDB."""

    def renamed(self, name: str) -> str:
        return name


def sqlite_run(path: Path) -> Run:
    """Statements on a file, each in a transaction of its own."""

    def run(statement: str, values: Sequence[Any]) -> list[Any]:
        with closing(sqlite3.connect(path)) as connection, connection:
            return connection.execute(statement, values).fetchall()

    return run


class FileHands(Hands):
    """People who keep a list in a file. What was parsed is remembered as long as the file's bytes are the same."""

    def __init__(self, path: Path, dataset: Dataset, fields: tuple[str, ...]) -> None:
        self.path, self.fields = path, fields
        self.labels = {dataset.fields[name].label: name for name in fields}
        self.key = dataset.key[0]
        self._known: tuple[bytes, dict[str, Row]] = (b"", {})

    def rows(self) -> dict[str, Row]:
        content = self.path.read_bytes()
        if content != self._known[0]:
            listed = [typed(row) for row in self.listed(content)]
            rows = {row[self.key]: row for row in listed}
            assert len(rows) == len(listed), f"a key stands twice in {self.path.name}"
            self._known = content, rows
        return self._known[1]

    @contextmanager
    def away(self) -> Iterator[None]:
        hidden = self.path.with_name(f"{self.path.name}.away")
        self.path.rename(hidden)
        try:
            yield
        finally:
            hidden.rename(self.path)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Somebody has the file open in an office program."""
        lock = self.path.with_name(f"~${self.path.name}")
        lock.touch()
        try:
            yield
        finally:
            lock.unlink()

    @abstractmethod
    def listed(self, content: bytes) -> list[Row]:
        """The rows in the file that are not blank, as texts and numbers."""

    @abstractmethod
    def tidy_up(self) -> None:
        """Sort the rows the other way round and leave a blank one between them."""


class XlsxHands(FileHands):
    """A spreadsheet program."""

    sheet = "数据"

    def listed(self, content: bytes) -> list[Row]:
        sheet = load_workbook(io.BytesIO(content), data_only=True)[self.sheet]
        columns = self._columns(sheet)
        lines = [
            {name: line[at - 1] for name, at in columns.items()}
            for line in sheet.iter_rows(min_row=self._header(sheet) + 1, values_only=True)
        ]
        return [line for line in lines if any(value is not None for value in line.values())]

    def write(self, key: str, values: Row) -> None:
        book = load_workbook(self.path)
        sheet = book[self.sheet]
        columns = self._columns(sheet)
        number = self._find(sheet, key)
        if number is None:
            filled = [cell.row for cell in sheet[self._letter(sheet)] if cell.value is not None]
            number, values = max(filled) + 1, {self.key: key, **values}
        for name, value in values.items():
            sheet.cell(number, columns[name]).value = value
            if isinstance(value, str):
                sheet.cell(number, columns[name]).data_type = "s"
        book.save(self.path)

    def remove(self, key: str) -> None:
        book = load_workbook(self.path)
        book[self.sheet].delete_rows(self._find(book[self.sheet], key))
        book.save(self.path)

    def tidy_up(self) -> None:
        book = load_workbook(self.path)
        sheet = book[self.sheet]
        top = self._header(sheet)
        lines = [[(cell.value, cell.data_type) for cell in line] for line in sheet.iter_rows(min_row=top + 1)]
        filled = [line for line in lines if any(value is not None for value, _ in line)]
        sheet.delete_rows(top + 1, len(lines))
        for place, line in enumerate(reversed(filled)):
            for at, (value, kind) in enumerate(line, start=1):
                cell = sheet.cell(top + 1 + 2 * place, at, value)
                if kind == "s" and value is not None:
                    cell.data_type = "s"
        book.save(self.path)

    def rule(self, correction_id: str, word: str) -> bool:
        book = load_workbook(self.path)
        if DESK not in book.sheetnames:
            return False
        lines = [line for line in book[DESK].iter_rows() if line[0].value == correction_id]
        if not lines:
            return False
        lines[0][-2].value = word
        book.save(self.path)
        return True

    def _header(self, sheet: Any) -> int:
        """The number of the row of headings: a title may stand above it."""
        label = next(label for label, name in self.labels.items() if name == self.key)
        return next(line[0].row for line in sheet.iter_rows() if label in [str(cell.value).strip("*") for cell in line])

    def _columns(self, sheet: Any) -> dict[str, int]:
        titles = {str(cell.value).strip("*"): cell.column for cell in sheet[self._header(sheet)]}
        return {name: titles[label] for label, name in self.labels.items()}

    def _letter(self, sheet: Any) -> str:
        letter: str = sheet.cell(1, self._columns(sheet)[self.key]).column_letter
        return letter

    def _find(self, sheet: Any, key: str) -> int | None:
        found = [cell.row for cell in sheet[self._letter(sheet)] if cell.value == key]
        return found[0] if found else None


class CsvHands(FileHands):
    """An old program that exports and imports GB18030 text."""

    encoding = "gb18030"

    def listed(self, content: bytes) -> list[Row]:
        lines = csv.DictReader(io.StringIO(content.decode(self.encoding), newline=""))
        found = [{self.labels[title]: cell for title, cell in line.items()} for line in lines]
        return [{name: cell or None for name, cell in line.items()} for line in found if any(line.values())]

    def write(self, key: str, values: Row) -> None:
        rows = {found[self.key]: found for found in self.listed(self.path.read_bytes())}
        rows[key] = {**rows.get(key, {self.key: key}), **values}
        self._save(list(rows.values()))

    def remove(self, key: str) -> None:
        self._save([found for found in self.listed(self.path.read_bytes()) if found[self.key] != key])

    def rule(self, correction_id: str, word: str) -> bool:
        beside = self.path.with_name(f"{self.path.stem}.{DESK}.csv")
        if not beside.exists():
            return False
        lines = list(csv.reader(io.StringIO(beside.read_bytes().decode("utf-8-sig"), newline="")))
        found = [line for line in lines if line[0] == correction_id]
        if not found:
            return False
        found[0][-2] = word
        with beside.open("w", encoding="utf-8-sig", newline="") as text:
            csv.writer(text).writerows(lines)
        return True

    def tidy_up(self) -> None:
        self._save([part for row in reversed(self.listed(self.path.read_bytes())) for part in (row, {})])

    def _save(self, rows: list[Row]) -> None:
        with self.path.open("w", encoding=self.encoding, newline="") as text:
            writer = csv.writer(text)
            writer.writerow(self.labels)
            for row in rows:
                cells = [row.get(name) for name in self.labels.values()]
                writer.writerow(["" if cell is None else cell for cell in cells])


class HostedHands(Hands):
    """People without a system, or whose system lacks some fields: they have the engine's own commands. `kept`: what it keeps of them."""

    def __init__(self, hosting: Hosting, dataset: Dataset, region: str, kept: Connector) -> None:
        self.hosting, self.dataset, self.region, self.kept = hosting, dataset, region, kept
        self._known: tuple[str | None, dict[str, Row]] = (None, {})

    def rows(self) -> dict[str, Row]:
        token = self.kept.probe().token
        if token != self._known[0]:
            rows = self.kept.changes(None).rows.to_pylist() if token is not None else []
            self._known = token, {row[self.dataset.key[0]]: row for row in rows}
        return self._known[1]

    def write(self, key: str, values: Row) -> None:
        texts = {name: None if value is None else str(value) for name, value in values.items()}
        row = {self.dataset.key[0]: key, **texts}
        raw = pa.table({name: pa.array([text], pa.string()) for name, text in row.items()})
        entered = self.hosting.put(self.dataset.name, self.region, raw)
        assert not entered.rejects.num_rows, entered.rejects.to_pylist()

    def remove(self, key: str) -> None:
        self.hosting.remove(self.dataset.name, self.region, [key])


class CompanionHands(Hands):
    """People whose system lacks some fields: those they reach through the engine."""

    def __init__(self, main: TableHands, side: HostedHands) -> None:
        self.main, self.side = main, side

    def rows(self) -> dict[str, Row]:
        beside = self.side.rows()
        return {key: {**beside.get(key, {}), **row} for key, row in self.main.rows().items()}

    def write(self, key: str, values: Row) -> None:
        mine = {name: value for name, value in values.items() if name in self.main.columns}
        apart = {name: value for name, value in values.items() if name not in mine}
        if mine:
            self.main.write(key, mine)
        if apart:
            self.side.write(key, apart)

    def remove(self, key: str) -> None:
        self.main.remove(key)

    def rule(self, correction_id: str, word: str) -> bool:
        return self.main.rule(correction_id, word)

    @contextmanager
    def away(self) -> Iterator[None]:
        with self.main.away():
            yield


def typed(row: Row) -> Row:
    """The version is a number, whatever the system keeps it as; nothing is typed as an empty text."""
    return {name: int(value) if name == "at" and value is not None else value for name, value in row.items()}
