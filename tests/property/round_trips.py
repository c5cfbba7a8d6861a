"""The dataset, the awkward values and the systems of `test_round_trips`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from connectors.base import Batch, Connector, no_keys
from connectors.rest import RestConnector
from connectors.sql import SqlConnector
from connectors.workbook import WorkbookConnector
from examples.beijing.street_platform import StreetPlatform
from federation.canonical import conform, fingerprints, key_column, schema
from federation.canonical_json import canonical_json
from federation.contract import Dataset
from tests.contract.dataset import LEVELS, REGION, make_node
from tests.scripted_http import Request, Say, scripted
from tests.servers import mysql_database, mysql_url, postgres_schema, postgres_url

DATASET = Dataset.model_validate(
    {
        "name": "round_trip",
        "label": "往返",
        "levels": LEVELS,
        "key": ["code", "serial"],
        "jurisdiction": "area",
        "version": "changed",
        "originates": ["city", "community"],
        "fields": {
            "code": {"label": "编号", "authority": "city"},
            "serial": {"label": "序号", "type": "int", "authority": "city"},
            "area": {"label": "社区代码", "authority": "city"},
            "name": {"label": "姓名", "authority": "shared"},
            "verbatim": {"label": "原文", "normalise": [], "authority": "city"},
            "phone": {"label": "电话", "normalise": ["trim", "halfwidth", "upper", "collapse", "digits"], "authority": "city"},
            "whole": {"label": "整数", "type": "int", "authority": "city"},
            "measure": {"label": "数值", "type": "float", "authority": "community"},
            "amount": {"label": "金额", "type": "decimal", "scale": 8, "authority": "city"},
            "flag": {"label": "是否", "type": "bool", "authority": "community"},
            "day": {"label": "日期", "type": "date", "authority": "city"},
            "moment": {"label": "时间", "type": "timestamp", "authority": "city"},
            "level": {"label": "等级", "type": "enum", "values": ["无", "=重点", "1E5", "A+"], "authority": "community"},
            "extra": {"label": "其他", "type": "json", "authority": "community"},
            "changed": {"label": "更新时间", "type": "timestamp", "authority": "city"},
        },
    }
)  # fmt: skip
FIELDS = tuple(DATASET.fields)
Row = dict[str, Any]

PIECES = (
    "𠮷😀👨‍👩‍👧", "e\u0301", "Å", "ﬁ", "ｶﾞ", "007", "1e5", "1E+17", "=1+1", "+86", "-", "@x", "'", "''", "'=", "\"", "\\", "\\N",
    "NULL", "null", "TRUE", "是", "00:10", "2026-01-31", "100%", "%s", ":x", "$1", ",", ";", "\t", "|", "\n", "\r\n", "\r",
    " ", "\u3000", "\u00a0", "\u200b", "\u2028", "\ufeff", "\x0b", "\x1c", "\x7f", "\x85", "\x01", "_x0041_", "_x",
    "</t>", "<![CDATA[", "&amp;", "/", "..", "?", "#", "{", "[", "[1]", "（1）", "中文", "ß", "İ", "\U0010fffd", "\ue5e5",
)  # fmt: skip
"""Texts that some system on the way would like to make something else of."""
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\x00\ufffe\uffff")
texts = st.one_of(
    st.lists(st.sampled_from(PIECES) | characters, max_size=8).map("".join),
    st.builds(lambda piece, times: piece * times, st.sampled_from(("长", "ab c", "😀", "\r\n.")), st.integers(1, 8000)),
)
keys = (
    st.lists(st.sampled_from(PIECES) | characters, min_size=1, max_size=8)
    .map("".join)
    .filter(lambda text: bool(conformed([{"code": text, "serial": 1}])))
)
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [0.1, -0.0, 5e-324, 1.7976931348623157e308, 1e16, 1e22, 123456789.12345678, 2.0**63, 0.1 + 0.2, 1e-7]
)
wholes = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 2**53 + 1, -(2**63), 10**15, -(10**15) - 1])
amounts = st.decimals(-(10**30) + 1, 10**30 - 1, places=8) | st.sampled_from([Decimal("1E-8"), Decimal("-0.00000001")])
documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**25), 10**25) | numbers | texts.map(lambda text: text[:50]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts.map(lambda text: text[:20]), inner, max_size=3),
    max_leaves=6,
)
moments = st.datetimes(datetime(1900, 1, 1), datetime(9999, 12, 31, 15, 59, 59, 999999)) | st.sampled_from(
    # the hour that comes twice, the hour that never comes, and offsets with seconds
    [datetime(1986, 9, 13, hour, 30) for hour in (15, 16, 17)]
    + [datetime(1986, 5, 3, hour, 30) for hour in (15, 16, 17)]
    + [datetime(1900, 12, 31, 15, 54, 17), datetime(1969, 12, 31, 23, 59, 59, 999999)]
)
values: dict[str, st.SearchStrategy[Any]] = {
    "name": texts,
    "verbatim": texts,
    "phone": texts,
    "whole": wholes,
    "measure": numbers,
    "amount": amounts,
    "flag": st.booleans(),
    "day": st.dates(date(1900, 1, 1), date(9999, 12, 31)),
    "moment": moments.map(lambda moment: moment.replace(tzinfo=UTC)),
    "level": st.sampled_from(DATASET.fields["level"].values),
    "extra": documents.map(json.dumps).filter(lambda text: text == "null" or canonical_json(text) is not None),
    "changed": moments.map(lambda moment: moment.replace(tzinfo=UTC)),
}
rows = st.fixed_dictionaries(
    {
        "code": keys,
        "serial": st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3),
        "area": st.just(REGION.code),
        **{name: st.none() | strategy for name, strategy in values.items()},
    }
)
tables = st.lists(rows, min_size=1, max_size=4).map(lambda listed: conformed(listed)).filter(bool)


def conformed(listed: list[Row]) -> pa.Table:
    """The rows as the contract types them, without those that share a key."""
    native = {**{name: DATASET.fields[name].type for name in FIELDS}}
    kinds = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "date": pa.date32()}
    raw = pa.table(
        {
            name: pa.array(
                [_plain(row.get(name)) for row in listed],
                pa.timestamp("us", "UTC") if kind == "timestamp" else kinds.get(kind, pa.string()),
            )
            for name, kind in native.items()
        }
    )
    found = conform(raw, DATASET, FIELDS)
    strange = [reject for reject in found.rejects.to_pylist() if not reject["rule"].startswith("key:")]
    assert not strange, strange
    return found.rows


def _plain(value: Any) -> Any:
    return f"{value:f}" if isinstance(value, Decimal) else value


def prints(rows: pa.Table) -> dict[str, dict[str, str]]:
    """A fingerprint for each row and field, so that a failure names the field."""
    others = [name for name in FIELDS if name not in DATASET.key]
    hashed = fingerprints(rows, DATASET, {name: [name] for name in others}, b"round trip").to_pylist()
    return {line["key"]: {name: line[f"fp_{name}"].hex() for name in others} for line in hashed}


def changed(before: pa.Table, after: pa.Table) -> dict[str, Any]:
    """What became of the rows: each value whose fingerprint differs, as it was and as it is."""
    old, new = prints(before), prints(after)
    was, now = _by_key(before), _by_key(after)
    if set(old) != set(new):
        return {"lost": sorted(set(old) - set(new)), "found": sorted(set(new) - set(old))}
    return {
        f"{key}.{name}": (was[key][name], now[key][name])
        for key in old
        for name in old[key]
        if old[key][name] != new[key][name]
    }


def _by_key(rows: pa.Table) -> dict[str, Row]:
    return dict(zip(key_column(rows, DATASET).to_pylist(), rows.to_pylist()))


class System:
    """One real system that keeps `DATASET`. `held`: the keys that it holds now."""

    def __init__(self, name: str, connect: Callable[[], Connector]) -> None:
        self.name = name
        self.connect = connect
        self.held = schema(DATASET, DATASET.key).empty_table()

    def __repr__(self) -> str:
        return self.name

    def through(self, rows: pa.Table) -> pa.Table:
        """Make the system hold exactly these rows, and read them back with a fresh connector."""
        names = list(DATASET.key)
        writer, reader = self.connect(), self.connect()
        try:
            gone = self.held.join(rows.select(names), names, join_type="left anti").select(names)
            writer.apply(Batch((rows,), gone if gone.num_rows else no_keys(writer.node)))
            self.held = rows.select(names)
            found = reader.changes(None)
            asked = reader.fetch(self.held)
        finally:
            writer.close()
            reader.close()
        assert not found.rejects.num_rows, (self.name, found.rejects.to_pylist())
        assert not asked.deleted.num_rows and changed(found.rows, asked.rows) == {}, self.name
        return found.rows


def _records() -> Callable[[Request], Say]:
    """A plain API: PATCH replaces the members that it names."""
    held: dict[str, Row] = {}

    def answer(asked: Request) -> Say:
        key = asked.path.removeprefix("/records").removeprefix("/")
        if asked.method == "PATCH":
            held[key] = {**held.get(key, {}), **asked.body}
        elif key and key not in held:
            return Say(404)
        elif asked.method == "DELETE":
            del held[key]
        return Say(body=held.get(key, {}) if key else list(held.values()))

    return answer


@contextmanager
def systems(folder: Path) -> Iterator[dict[str, System]]:
    """Every kind of system, empty."""
    with ExitStack() as closing:
        platform = closing.enter_context(StreetPlatform(folder / "platform", "token", datasets=(DATASET.name,)))
        plain = closing.enter_context(scripted(_records()))
        merging = {
            "base_url": platform.url,
            "token": "token",
            "path": f"/api/{DATASET.name}",
            "records": "records",
            "omits_nulls": True,
            "times": "milliseconds",
            "documents": "texts",
            "paging": {"kind": "offset", "parameter": "offset", "size_parameter": "limit", "size": 200, "total": "count"},
        }  # fmt: skip
        postgres = {"url": postgres_url(), "schema_name": closing.enter_context(postgres_schema()), "create": True}
        mariadb = {"url": mysql_url(), "schema_name": closing.enter_context(mysql_database()), "create": True}
        sqlite = {"url": f"sqlite:///{folder / 'system.db'}", "create": True}
        declared: dict[str, tuple[type[Connector], dict[str, Any]]] = {
            "postgres": (SqlConnector, postgres),
            "xlsx": (WorkbookConnector, {"path": str(folder / "台账.xlsx")}),
            "mariadb": (SqlConnector, mariadb),
            "csv_utf8": (WorkbookConnector, {"path": str(folder / "台账.csv")}),
            "rest": (RestConnector, {"base_url": plain.url, "path": "/records"}),
            "csv_gb18030": (WorkbookConnector, {"path": str(folder / "国标.csv"), "encoding": "gb18030"}),
            "sqlite": (SqlConnector, sqlite),
            "rest_merging": (RestConnector, merging),
        }
        found = {}
        for name, (kind, options) in declared.items():
            found[name] = System(name, lambda kind=kind, options=options: kind(make_node(DATASET, options)))  # type: ignore[misc]
            connector = found[name].connect()
            connector.prepare()
            connector.close()
        yield found
