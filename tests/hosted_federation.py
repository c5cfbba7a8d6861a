"""The small federation with one community, E11, that has no system at first."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from federation.cli import app
from federation.federation import CascadeResult
from federation.runtime import open_federation
from tests.federations import E11, MIXED, TOP, Small

runner = CliRunner()
OTHERS = "  - {{system: {level}, level: {level}, datasets: {{resident: {{}}, visit: {{}}}}}}\n"
HOSTED = f'  - {{system: hosted, regions: ["{E11}"], datasets: {{resident: {{}}, visit: {{}}}}}}\n'
OFFICE = '  office: {connector: sql, options: {url: "sqlite:///{home}/office.db", create: true}}\n'


def moved(binding: str = "") -> str:
    """E11's node once it has a database."""
    return f'  - {{system: office, regions: ["{E11}"], datasets: {{resident: {{{binding}}}}}}}\n'


class Unequipped(Small):
    """`people` of E11 work by command until `equip` gives them a database of their own."""

    def __init__(self, folder: Path, node: str = HOSTED) -> None:
        super().__init__(folder, changes={"federation.yaml": self.top(folder, node)})

    @staticmethod
    def top(folder: Path, node: str) -> str:
        text = TOP.format(prefix=str(folder), **MIXED).replace("nodes:\n", f"{OFFICE}nodes:\n")
        return text + "".join(OTHERS.format(level=level) for level in MIXED) + node

    def declare(self, node: str) -> None:
        """Declare E11's node otherwise."""
        (self.folder / "federation.yaml").write_text(self.top(self.folder, node), encoding="utf-8")
        self.federation.close()
        self.federation = open_federation(self.folder, clock=self.clock)

    def equip(self, binding: str = "") -> None:
        """E11 gets a database."""
        self.declare(moved(binding))

    def hosted(self, *words: str) -> tuple[int, Any]:
        """`fedsync hosted …`: exit code and what it printed, as JSON."""
        result = runner.invoke(app, ["hosted", *words, "--file", str(self.folder), "--json"])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, json.loads(result.output)

    def put(self, region: str, key: str, dataset: str = "resident", **values: Any) -> None:
        if region != E11:
            return super().put(region, key, dataset, **values)
        name = "resident_id" if dataset == "resident" else "visit_id"
        code, told = self.hosted("put", dataset, region, f"{name}={key}", *(f"{n}={v}" for n, v in values.items()))
        assert code == 0, told
        return None

    def listed(self, dataset: str = "resident") -> dict[str, dict[str, Any]]:
        code, rows = self.hosted("list", dataset, E11)
        assert code == 0, rows
        return {row["resident_id" if dataset == "resident" else "visit_id"]: row for row in rows}

    def sync(self, dataset: str = "resident") -> CascadeResult:
        """A cascade that may fail."""
        return self.federation.cascade(dataset)

    def office(self, statement: str = "SELECT resident_id, phone, care_level FROM resident ORDER BY 1") -> list[Any]:
        """The database of E11, past the connector."""
        with closing(sqlite3.connect(self.folder / "office.db")) as connection, connection:
            return connection.execute(statement).fetchall()

    def trail(self) -> list[tuple[str, str, str]]:
        """Action, subject and detail of every line of the audit trail that concerns hosted records."""
        with closing(sqlite3.connect(self.folder / "state/ledger.db")) as ledger:
            chosen = "SELECT action, subject, detail FROM audit WHERE action LIKE 'hosted.%' ORDER BY at"
            return ledger.execute(chosen).fetchall()
