"""What `benchmarks.scale` measures on: the whole of Beijing as one federation of four datasets, with simulated systems.

The city, each district and each street keep an SQLite database of their own (366 files); the 7 535 communities have no system, the
engine hosts their records, as in a city whose communities work on the engine's pages. All people are made up.
"""

from __future__ import annotations

import csv
import json
import sqlite3
from pathlib import Path

HERE = Path(__file__).resolve().parent
REGIONS = HERE / "beijing_regions.csv"
CITY = "110000000000"
FOUR = ["city", "district", "street", "community"]
DATASETS = {"resident": "居民", "facility": "公共设施", "visit": "走访记录", "subsidy": "补贴发放"}
"""Name → label. All go the whole way down; all but residents hold one record per community."""


def declare(folder: Path, rows: int, *, district: str | None = None) -> None:
    """The declaration, and the city's tables with `rows` residents per community. `district`: of the city, only this one."""
    regions = [one for one in REGIONS.read_text(encoding="utf-8").splitlines() if _within(one, district)]
    (folder / "regions.csv").write_text("\n".join(regions) + "\n", encoding="utf-8")
    systems = {
        "city": {"connector": "sql", "options": {"url": "sqlite:///{home}/city.db", "capture": "log"}},
        **{
            level: {
                "connector": "sql",
                "options": {"url": f"sqlite:///{{home}}/{level}_{{region}}.db", "create": True, "capture": "log"},
            }
            for level in FOUR[1:3]
        },
    }
    nodes = [
        {
            "system": level if level != "community" else "hosted",
            "level": level,
            "datasets": {name: {} for name in DATASETS},
        }
        for level in FOUR
    ]
    top = {
        "name": "beijing",
        "regions": "regions.csv",
        "datasets": "datasets/*.yaml",
        "systems": systems,
        "nodes": nodes,
    }
    (folder / "federation.yaml").write_text(json.dumps(top, ensure_ascii=False), encoding="utf-8")  # JSON is YAML
    (folder / "datasets").mkdir()
    for name, label in DATASETS.items():
        written = json.dumps(_dataset(name, label), ensure_ascii=False)
        (folder / "datasets" / f"{name}.yaml").write_text(written, encoding="utf-8")
    _fill(folder, rows)


def _within(line: str, district: str | None) -> bool:
    """Whether a line of the region table is its head, the city, or of the district (codes of what lies inside begin alike)."""
    return district is None or line.startswith(("code,", CITY, district[:6]))


def _dataset(name: str, label: str) -> dict[str, object]:
    return {
        "name": name,
        "label": label,
        "levels": FOUR,
        "key": ["id"],
        "jurisdiction": "community_code",
        "originates": ["city"],
        # one comparison in full is enough for a benchmark of what changes
        "full_every": 7 * 24 * 60,
        "schedule": "0 0 29 2 *",
        "fields": {
            "id": {"label": "编号", "authority": "city"},
            "name": {"label": "姓名", "authority": "city"},
            "address": {"label": "地址", "authority": "city"},
            "community_code": {"label": "社区代码", "authority": "city"},
            "phone": {"label": "手机号", "authority": "community"},
        },
    }


def _fill(folder: Path, rows: int) -> None:
    with (folder / "regions.csv").open(encoding="utf-8") as file:
        communities = [row["code"] for row in csv.DictReader(file) if row["level"] == "community"]
    with sqlite3.connect(folder / "city.db") as connection:
        for name in DATASETS:
            connection.execute(
                f"CREATE TABLE {name} (id TEXT PRIMARY KEY, name TEXT, address TEXT, community_code TEXT, phone TEXT)"
            )
            many = rows if name == "resident" else 1
            connection.executemany(
                f"INSERT INTO {name} VALUES (?, ?, ?, ?, NULL)",
                (
                    (f"{code}-{number}", f"居民{number}", f"{number} 号楼", code)
                    for code in communities
                    for number in range(many)
                ),
            )


def edit(folder: Path, dataset: str, step: int) -> int:
    """The city edits one resident in a hundred, spread over all communities; how many."""
    with sqlite3.connect(folder / "city.db") as connection:
        changed = f"UPDATE {dataset} SET name = '改名{step}' WHERE rowid % 100 = ?"
        return connection.execute(changed, (step % 100,)).rowcount
