"""Systems with codes of their own keep the contract through their code tables, whatever their technology."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from connectors.base import Batch, Connector, no_keys
from connectors.coded import CodedConnector, Codes, coded_node
from federation.errors import Permanent
from tests.contract import desk
from tests.contract.dataset import REGION, SAMPLE, row, table, whole
from tests.contract.suite import ConnectorContract, Row
from tests.contract.test_rest import RestPlatform
from tests.contract.test_sql_postgres import NATIVE, PostgresTable
from tests.contract.test_sql_sqlite import SqliteTable
from tests.contract.test_workbook_csv import CsvFile
from tests.contract.test_workbook_xlsx import TestWorkbook as Workbook

EVERY: dict[str, dict[str, int | str]] = {
    "care": {"无": 0, "一般": 1, "重点": 2},
    "insured": {"是": "Y", "否": "N"},
    "community_code": {REGION.code: "DFX"},
    "record_id": {"A": "a-7", "B": "b-8"},
}
"""Numbers, letters, a region's own code, and a key (of the composite dataset)."""


class Coded(ConnectorContract):
    """People write and see codes; the suite speaks the contract."""

    @property
    def codes(self) -> Codes:
        fields = set(self.dataset.fields) - ({"record_id"} if self.dataset is SAMPLE else set())
        return {name: codes for name, codes in EVERY.items() if name in fields}

    def connector(self) -> Connector:
        plain = super().connector()
        inner = type(plain)(coded_node(plain.node, self.codes))
        return CodedConnector(plain.node, inner, self.codes)

    def people_write(self, rows: list[Row]) -> None:
        super().people_write([self.encoded(values) for values in rows])

    def people_delete(self, key: Row) -> None:
        super().people_delete(self.encoded(key))

    def stored(self) -> list[Row]:
        return [self.decoded(values) for values in super().stored()]

    def people_see_corrections(self) -> dict[str, Row]:
        return {name: self.decoded(line) for name, line in super().people_see_corrections().items()}

    def people_see_returns(self) -> list[Row]:
        return [self.decoded(line) for line in super().people_see_returns()]

    def encoded(self, values: Row) -> Row:
        return {name: self.code(name, value) for name, value in values.items()}

    def code(self, name: str, value: Any) -> Any:
        word = {True: "是", False: "否"}.get(value, value) if isinstance(value, bool) else value
        return self.codes.get(name, {}).get(word, value)

    def decoded(self, values: Row) -> Row:
        known = {name: {str(code): value for value, code in codes.items()} for name, codes in self.codes.items()}
        return {name: known.get(name, {}).get(str(value), value) for name, value in values.items()}

    # --- beyond the contract

    def test_the_system_holds_codes_and_the_engine_sees_values(self) -> None:
        self.write(table(self.dataset, [whole("R1", care="一般", insured=False)]))
        (held,) = super().stored()
        assert (str(held["care"]), held["insured"], held["community_code"]) == ("1", "N", "DFX")
        found = self.rows(self.connector().changes(None))["R1"]
        assert (found["care"], found["insured"], found["community_code"]) == ("一般", False, REGION.code)

    def test_rows_are_found_by_what_their_codes_mean_and_none_by_a_code(self) -> None:
        self.people_write([row("R1", care="无"), row("R2", care="重点"), row("R3")])
        assert set(self.holding("care", "重点", "一般")) == {"R2"}
        assert not self.holding("care", "2")
        assert not self.holding("community_code", "110101001009", "DFX")

    def test_a_returned_value_is_shown_as_its_code(self) -> None:
        connector = self.connector()
        assert isinstance(connector, CodedConnector)
        line = desk.returned("a1", "R1", field="care", value="一般", rule="care_is_known")
        unknown = {**line, "value": "9", "rule": "code:unknown"}
        note = {**line, "field": "note"}
        assert [connector._code_of(one) for one in (line, unknown, note)] == ["1", "9", "一般"]

    def test_an_unknown_code_is_a_reject_that_names_it_and_those_that_are_known(self) -> None:
        if not self.loose:
            pytest.skip("the system refuses such values itself")
        self.people_write([row("R1", care="无"), row("R2", care="9")])
        found = self.connector().changes(None)
        assert set(self.rows(found)) == {"R1"}
        (reject,) = found.rejects.to_pylist()
        assert (reject["record_id"], reject["field"], reject["value"], reject["rule"]) == (
            "R2",
            "care",
            "9",
            "code:unknown",
        )
        assert "关爱等级" in reject["reason_zh"] and "9" in reject["reason_zh"] and "2=重点" in reject["reason_zh"]
        assert "'9'" in reject["reason_en"] and "0=无" in reject["reason_en"]
        assert found.present is not None and found.present.num_rows == 2

    def test_a_value_without_a_code_is_not_written_and_is_named(self) -> None:
        connector = self.connector()
        rows = table(self.dataset, [{**row("R1"), "community_code": "110101001009"}])
        with pytest.raises(Permanent, match="has no code") as caught:
            connector.apply(Batch((rows,), no_keys(connector.node)))
        assert (caught.value.where["field"], caught.value.where["key"]) == ("community_code", "R1")
        assert "代码" in caught.value.zh and not self.held()


class TestCodedSqlite(Coded, SqliteTable):
    pass


class TestCodedSqliteWithCursor(Coded, SqliteTable):
    options: ClassVar[dict[str, Any]] = {"capture": "cursor", "cursor_column": "changed"}


class TestCodedPostgres(Coded, PostgresTable):
    """The codes' columns have types of their own: a small integer, a letter."""

    loose = False
    types: ClassVar[dict[str, str]] = {**NATIVE, "enum": "smallint", "bool": "char(1)"}


class TestCodedRest(Coded, RestPlatform):
    tells_state = True


class TestCodedWorkbook(Coded, Workbook):
    pass


class TestCodedCsv(Coded, CsvFile):
    """The file's rows are read, changed and saved whole, so they are encoded when saved."""

    encoding = "gb18030"
    options: ClassVar[dict[str, Any]] = {"encoding": "gb18030"}

    def people_write(self, rows: list[Row]) -> None:
        CsvFile.people_write(self, [dict(values) for values in rows])

    def people_delete(self, key: Row) -> None:
        CsvFile.people_delete(self, key)

    def _save(self, rows: list[Row]) -> None:
        CsvFile._save(self, [self.encoded(values) for values in rows])
