"""The sample databases as their makers laid them out: own names, own types, nothing made for the engine."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

CITY = """
CREATE TABLE t_rkjbxx (  -- 人口基本信息
    rkbh VARCHAR(20) NOT NULL PRIMARY KEY, xm VARCHAR(50), sfzh CHAR(18), xb VARCHAR(2), csrq DATE, jzdz VARCHAR(200),
    sqdm CHAR(12), lxdh VARCHAR(20), gadj VARCHAR(10), gabz VARCHAR(500),
    zxbz INTEGER DEFAULT 0,  -- 注销标志：与本联邦无关的列，引擎不碰 / a column of its own that the engine leaves alone
    gxsj DATETIME);
CREATE TABLE t_ggss (  -- 公共设施
    ssbh VARCHAR(20) NOT NULL PRIMARY KEY, ssmc VARCHAR(100), sslx VARCHAR(20), ssdz VARCHAR(200), sqdm CHAR(12), rl INTEGER,
    qyrq DATE, gxsj DATETIME);
CREATE TABLE t_zfjl (  -- 走访记录
    zfbh VARCHAR(30) NOT NULL PRIMARY KEY, rkbh VARCHAR(20), sqdm CHAR(12), zfrq DATE, zfr VARCHAR(50), zfqk VARCHAR(500),
    jzhf VARCHAR(500), hfr VARCHAR(50), gxsj DATETIME);
"""
DONGCHENG = """
CREATE TABLE grid_person (
    person_id TEXT NOT NULL PRIMARY KEY, full_name TEXT, sex TEXT, birthday VARCHAR(10), cert_no TEXT, mobile TEXT,
    live_addr TEXT, grid_code TEXT, care_type TEXT, care_remark TEXT);
CREATE TABLE grid_visit (
    visit_id TEXT NOT NULL PRIMARY KEY, person_id TEXT, grid_code TEXT, visit_day VARCHAR(10), visitor TEXT, content TEXT,
    feedback TEXT, feedback_by TEXT);
CREATE TABLE grid_facility (
    fac_id TEXT NOT NULL PRIMARY KEY, fac_name TEXT, fac_type TEXT, fac_addr TEXT, grid_code TEXT, cap VARCHAR(10),
    open_day VARCHAR(10));
"""
XICHENG = """
CREATE TABLE RK_RESIDENT (
    RESIDENT_CODE VARCHAR(32) NOT NULL PRIMARY KEY, XINGMING NVARCHAR(50), SHENFENZHENG CHAR(18), XINGBIE NCHAR(1), SHENGRI DATE,
    DIZHI NVARCHAR(200), SHEQU CHAR(12), SHOUJI VARCHAR(20));
CREATE TABLE RK_VISIT (
    VISIT_CODE VARCHAR(32) NOT NULL PRIMARY KEY, RESIDENT_CODE VARCHAR(32), SHEQU CHAR(12), RIQI DATE, ZOUFANGREN NVARCHAR(50),
    QINGKUANG NVARCHAR(500), HUIFU NVARCHAR(500), HUIFUREN NVARCHAR(50));
CREATE TABLE RK_FACILITY (
    FACILITY_CODE VARCHAR(32) NOT NULL PRIMARY KEY, MINGCHENG NVARCHAR(100), LEIXING NVARCHAR(20), DIZHI NVARCHAR(200),
    SHEQU CHAR(12), RONGLIANG INTEGER, QIYONG DATE);
"""
YINZHA = """
CREATE TABLE 居民 (编号 TEXT NOT NULL PRIMARY KEY, 姓名 TEXT, 性别 TEXT, 生日 DATE, 住址 TEXT, 社区 TEXT, 电话 TEXT, 关爱 TEXT, 备注 TEXT);
CREATE TABLE 走访 (编号 TEXT NOT NULL PRIMARY KEY, 居民编号 TEXT, 社区 TEXT, 日期 DATE, 走访人 TEXT, 情况 TEXT, 回复 TEXT, 回复人 TEXT);
CREATE TABLE 设施 (编号 TEXT NOT NULL PRIMARY KEY, 名称 TEXT, 类型 TEXT, 地址 TEXT, 社区 TEXT, 容量 INTEGER, 启用 DATE);
"""
DATABASES = {
    "city/registry.db": CITY,
    "dongcheng/grid.db": DONGCHENG,
    "xicheng/population.db": XICHENG,
    "donghuamen/office.db": "",
    "yinzha/ledger.db": YINZHA,
}
"""Path under `data` → layout. The office of Donghuamen has an empty database: `prepare` makes its tables."""

_STAMPED = {"t_rkjbxx": "rkbh", "t_ggss": "ssbh", "t_zfjl": "zfbh"}
# Local time with microseconds, as applications write it; the database keeps it itself, so no writer can forget it.
_NOW = "strftime('%Y-%m-%d %H:%M:%f', 'now', '+8 hours') || '000'"


def build(data: Path) -> None:
    """Create every database, with its tables and triggers and without rows."""
    for name, layout in DATABASES.items():
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with database(path) as connection:
            connection.executescript(layout)
            connection.execute("VACUUM")
    with database(data / "city/registry.db") as connection:
        for table, key in _STAMPED.items():
            connection.execute(f"CREATE INDEX {table}_gxsj ON {table} (gxsj)")
            for event in ("INSERT", "UPDATE"):
                connection.execute(
                    f"CREATE TRIGGER {table}_{event.lower()} AFTER {event} ON {table} WHEN NEW.gxsj IS "
                    f"{'NULL' if event == 'INSERT' else 'OLD.gxsj'} "
                    f"BEGIN UPDATE {table} SET gxsj = {_NOW} WHERE {key} = NEW.{key}; END"
                )


@contextmanager
def database(path: Path) -> Iterator[sqlite3.Connection]:
    """An SQLite database; what is done inside is committed at the end, or not at all."""
    with closing(sqlite3.connect(path)) as connection, connection:
        yield connection
