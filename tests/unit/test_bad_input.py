"""One community's system is broken in each way that happens: a clear error that names it, the other links go on, nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from examples.beijing.street_platform import StreetPlatform
from federation.errors import AccessDenied, FedsyncError, SchemaMismatch, Transient, Unreadable
from tests.federations import CITY, E11, E12, EAST, EAST_1, MIXED, TOP, Small

HEADER = "居民编号,姓名,社区代码,手机号,关爱等级\n"
GOOD = f"{HEADER}R2,李娜,{E12},13800000000,无\n"


@dataclass(frozen=True)
class Broken:
    """`node`: how E12 keeps its residents. `harm`: breaks it after the first sync. `error`: what its link then says."""

    node: str
    harm: Callable[[Path], object]
    error: type[FedsyncError]
    says: str


def workbook(folder: Path) -> Path:
    return folder / "居民.csv"


CSV = "{connector: workbook, options: {path: '{home}/居民.csv'}}"
XLSX = "{connector: workbook, options: {path: '{home}/居民.xlsx'}}"
SQL = "{connector: sql, options: {url: 'sqlite:///{home}/own.db', create: true}}"
CASES = {
    "a_column_is_missing": Broken(
        CSV, lambda f: workbook(f).write_text(GOOD.replace("社区代码", "地区")), SchemaMismatch, "社区代码"
    ),
    "the_encoding_is_wrong": Broken(
        CSV, lambda f: workbook(f).write_bytes(HEADER.encode("utf-8") + b"R2,\xff\xfe\x80\n"), Unreadable, "居民.csv"
    ),
    "the_file_is_gone": Broken(CSV, lambda f: workbook(f).unlink(), SchemaMismatch, "居民.csv"),
    "the_workbook_is_half_written": Broken(
        XLSX, lambda f: (f / "居民.xlsx").write_bytes((f / "居民.xlsx").read_bytes()[:2000]), FedsyncError, "居民.xlsx"
    ),
    "the_database_file_is_gone": Broken(SQL, lambda f: (f / "own.db").unlink(), FedsyncError, "own.db"),
    "the_database_is_no_database": Broken(
        SQL, lambda f: (f / "own.db").write_bytes(b"rubbish" * 500), FedsyncError, "database"
    ),
}


def declared(folder: Path, system: str) -> Small:
    nodes = "\n".join(
        f"  - {{system: {level}, level: {level}, datasets: {{resident: {{}}, visit: {{}}}}}}"
        for level in ("city", "district", "street", "community")
    )
    top = TOP.format(prefix=folder, **dict.fromkeys(MIXED, "snapshot")).replace("nodes:", f"  own: {system}\nnodes:")
    own = f'  - {{system: own, regions: ["{E12}"], datasets: {{resident: {{}}}}}}\n'
    return Small(folder, changes={"federation.yaml": f"{top}{nodes}\n{own}"})


def settled(small: Small) -> Small:
    small.resident("R1", E11)
    small.resident("R2", E12, name="李娜")
    small.cascade()
    return small


@pytest.mark.parametrize("case", CASES)
def test_a_broken_system_stops_only_its_own_link_and_loses_nothing(tmp_path: Path, case: str) -> None:
    broken = CASES[case]
    small = settled(declared(tmp_path, broken.node))
    broken.harm(tmp_path)
    small.put(CITY, "R1", name="王芳")
    result = small.federation.cascade("resident")
    error = result.errors[f"resident/{E12}"]
    assert set(result.errors) == {f"resident/{E12}"}
    assert isinstance(error, broken.error)
    assert broken.says in str(error)
    assert E12 in str(error)
    assert error.todo
    assert (small.get(E11, "R1") or {})["name"] == "王芳"
    assert small.holders("R2") == {CITY, EAST, EAST_1}


def test_a_key_that_stands_twice_in_a_sheet_is_returned_with_both_rows_and_stops_no_other(tmp_path: Path) -> None:
    small = settled(declared(tmp_path, CSV))
    workbook(tmp_path).write_text(f"{GOOD}R2,李娜,{E12},13911111111,无\n", encoding="utf-8")
    small.resident("R3", E12)
    small.cascade()
    returns = (tmp_path / "居民.退回待改.csv").read_text(encoding="utf-8-sig")
    assert returns.count("重复") == 2
    assert "R3" in workbook(tmp_path).read_text(encoding="utf-8-sig")
    assert (small.get(CITY, "R2") or {})["phone"] == "13800000000"
    workbook(tmp_path).write_text(
        workbook(tmp_path).read_text(encoding="utf-8-sig").replace(f"R2,李娜,{E12},13911111111,无\n", ""),
        encoding="utf-8",
    )
    small.cascade()
    assert not (tmp_path / "居民.退回待改.csv").exists()


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[StreetPlatform]:
    (tmp_path / "platform").mkdir()
    with StreetPlatform(tmp_path / "platform", "right") as running:
        yield running


def rest(url: str, token: str) -> str:
    return f"{{connector: rest, options: {{base_url: '{url}', token: {{env: {token}}}, path: /api/residents, records: records, paging: {{kind: offset, parameter: offset, size_parameter: limit, size: 100, total: count}}, upsert: {{method: PATCH}}, omits_nulls: true}}}}"


def test_a_refused_password_stops_only_its_own_link(
    tmp_path: Path, platform: StreetPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("E12_TOKEN", "wrong")
    small = declared(tmp_path, rest(platform.url, "E12_TOKEN"))
    small.resident("R1", E11)
    small.resident("R2", E12)
    result = small.federation.cascade("resident")
    assert set(result.errors) == {f"resident/{E12}"}
    assert isinstance(result.errors[f"resident/{E12}"], AccessDenied)
    assert "wrong" not in str(result.errors[f"resident/{E12}"]).split("[")[0]
    assert small.get(E11, "R1") is not None
    monkeypatch.setenv("E12_TOKEN", "right")
    small.cascade()
    assert platform.records.get("residents", "R2") is not None


def test_a_server_that_cannot_be_reached_stops_only_its_own_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("E12_TOKEN", "any")
    monkeypatch.setattr("connectors.retrying.time.sleep", lambda seconds: None)
    small = declared(tmp_path, rest("http://127.0.0.1:9", "E12_TOKEN"))
    small.resident("R1", E11)
    small.resident("R2", E12)
    result = small.federation.cascade("resident")
    assert set(result.errors) == {f"resident/{E12}"}
    assert isinstance(result.errors[f"resident/{E12}"], Transient)
    assert small.get(E11, "R1") is not None
    assert small.holders("R2") == {CITY, EAST, EAST_1}
