"""What `benchmarks.link` measures on: two PostgreSQL schemas as the systems of a city and of one of its districts, and a declaration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

CITY, DISTRICT, COMMUNITY = "110000000000", "110101000000", "110101001001"
SCHEMAS = {"city": "fedsync_bench_city", "district": "fedsync_bench_district"}
FIELDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "resident_id": ("city", "varchar(16) PRIMARY KEY", {}),
    "name": ("city", "varchar(50)", {}),
    "id_number": ("city", "varchar(18)", {}),
    "gender": ("city", "varchar(2)", {"type": "enum", "values": ["男", "女"]}),
    "birth_date": ("city", "date", {"type": "date"}),
    "address": ("city", "varchar(200)", {}),
    "community_code": ("city", "varchar(12)", {}),
    "registered_at": ("city", "timestamptz", {"type": "timestamp"}),
    "phone": ("district", "varchar(20)", {}),
    "household": ("district", "integer", {"type": "int"}),
    "allowance": ("district", "numeric(12, 2)", {"type": "decimal", "scale": 2}),
    "note": ("district", "varchar(200)", {}),
}
"""Field → authority, column type, what the contract says of it beside."""
COLUMNS = ", ".join(f"{name} {kind}" for name, (_, kind, _) in FIELDS.items())
_RULES: list[tuple[str, dict[str, Any]]] = [
    ("expect_column_values_to_not_be_null", {"column": "name"}),
    ("expect_column_value_lengths_to_be_between", {"column": "name", "max_value": 50}),
    ("expect_column_values_to_match_regex", {"column": "id_number", "regex": "^[0-9]{17}[0-9X]$"}),
    ("expect_column_values_to_be_in_set", {"column": "gender", "value_set": ["男", "女"]}),
    ("expect_column_values_to_be_between", {"column": "birth_date", "min_value": "1900-01-01", "max_value": "2026-12-31"}),
    ("expect_column_values_to_match_regex", {"column": "phone", "regex": "^1[0-9]{10}$"}),
    ("expect_column_values_to_be_between", {"column": "household", "min_value": 0, "max_value": 100_000}),
    ("expect_column_value_lengths_to_be_between", {"column": "note", "max_value": 100}),
]  # fmt: skip
FILL = f"""
INSERT INTO residents SELECT 'R' || left(md5(i::text), 12), '居民' || i, '110101' || (19400101 + i % 600000)::text || lpad((i % 10000)::text, 4, '0'),
    CASE i % 2 WHEN 0 THEN '男' ELSE '女' END, date '1940-01-01' + i % 25000, '北京市东城区多福巷' || i % 500 || '号楼' || i % 40 || '室',
    '{COMMUNITY}', timestamptz '2020-01-01 08:00+08' + i * interval '1 minute', '1' || lpad((i * 7 % 10000000000)::text, 10, '3'),
    i % 9, (i % 100000) / 100.0, CASE WHEN i % 5 = 0 THEN NULL ELSE '备注 ' || i END
FROM generate_series(1, {{rows}}) i
"""
CHANGE = "UPDATE residents SET name = '新' || name WHERE resident_id IN (SELECT resident_id FROM residents WHERE household = {step} LIMIT {rows})"


def connect(server: str, schema: str) -> psycopg.Connection[Any]:
    """A connection that finds the tables of one schema."""
    return psycopg.connect(server, autocommit=True, options=f"-c search_path={schema}")


def make(server: str, rows: int) -> None:
    """Both schemas anew: the city's table full, in no order of the key; the district's empty."""
    for schema in SCHEMAS.values():
        with connect(server, schema) as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
            connection.execute(f"CREATE SCHEMA {schema}")
            connection.execute(f"CREATE TABLE residents ({COLUMNS})")
    with connect(server, SCHEMAS["city"]) as connection:
        connection.execute(FILL.format(rows=rows))
        connection.execute("VACUUM ANALYZE residents")


def drop(server: str) -> None:
    """Remove both schemas."""
    for schema in SCHEMAS.values():
        with connect(server, schema) as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


def empty_target(server: str) -> None:
    """The district's table as new."""
    with connect(server, SCHEMAS["district"]) as connection:
        connection.execute(f"DROP TABLE IF EXISTS residents; CREATE TABLE residents ({COLUMNS})")


def url(server: str, password: str = "") -> str:
    """The server as a URL, whatever form it was given in. `password`: where it gives none."""
    told = conninfo_to_dict(server)
    secret = told.get("password") or password
    return f"postgresql://{told.get('user', 'postgres')}{secret and ':'}{secret}@{told.get('host', '127.0.0.1')}:{told.get('port', 5432)}/{told['dbname']}"


def declare(server: str, folder: Path, capture: str) -> None:
    """The declaration of the link: contract, gate of 8 rules, two SQL systems."""
    fields = {name: {"label": name, "authority": level, **more} for name, (level, _, more) in FIELDS.items()}
    dataset = {
        "name": "resident",
        "label": "居民",
        "levels": ["city", "district"],
        "key": ["resident_id"],
        "jurisdiction": "community_code",
        "originates": ["city"],
        "suite": "resident.json",
        "fields": fields,
    }
    reason = {"zh": "不合规则，现为“{value}”", "en": "breaks the rule, it is {value!r}"}
    rules = [
        {"type": kind, "kwargs": kwargs, "severity": "critical", "meta": {"reason": reason}} for kind, kwargs in _RULES
    ]
    options = {"url": url(server), "table": "residents", "capture": capture}
    top = {
        "name": "benchmark",
        "regions": "regions.csv",
        "datasets": "datasets/*.yaml",
        "suites": "expectations",
        "systems": {
            level: {"connector": "sql", "options": {**options, "schema_name": schema}}
            for level, schema in SCHEMAS.items()
        },
        "nodes": [{"system": level, "level": level, "datasets": {"resident": {}}} for level in SCHEMAS],
    }
    regions = f"code,name,level,parent\n{CITY},北京市,city,\n{DISTRICT},东城区,district,{CITY}\n110101001000,东华门街道,street,{DISTRICT}\n{COMMUNITY},多福巷社区,community,110101001000\n"
    files = {
        "regions.csv": regions,
        "datasets/resident.yaml": json.dumps(dataset, ensure_ascii=False),  # JSON is YAML
        "expectations/resident.json": json.dumps({"name": "resident", "meta": {}, "expectations": rules}),
        "federation.yaml": json.dumps(top, ensure_ascii=False),
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
