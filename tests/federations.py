"""A small four-level federation on memory stores, declared as a user would, for the engine's own tests."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from connectors.memory import STORES, Store
from federation.federation import CascadeResult, Federation
from federation.runtime import open_federation

CITY, EAST, WEST = "110000000000", "110101000000", "110102000000"
EAST_1, EAST_2, WEST_1 = "110101001000", "110101002000", "110102001000"
E11, E12, E21, W11, W12 = "110101001001", "110101001002", "110101002001", "110102001001", "110102001002"
REGIONS = f"""code,name,level,parent
{CITY},北京市,city,
{EAST},东城区,district,{CITY}
{WEST},西城区,district,{CITY}
{EAST_1},东华门街道,street,{EAST}
{EAST_2},景山街道,street,{EAST}
{WEST_1},西长安街街道,street,{WEST}
{E11},多福巷社区,community,{EAST_1}
{E12},银闸社区,community,{EAST_1}
{E21},隆福寺社区,community,{EAST_2}
{W11},府南社区,community,{WEST_1}
{W12},钟声社区,community,{WEST_1}
"""
RESIDENT = """
name: resident
label: 居民
levels: [city, district, street, community]
key: [resident_id]
jurisdiction: community_code
originates: [city]
suite: resident.json
fields:
  resident_id: {label: 居民编号, authority: city}
  name: {label: 姓名, authority: city, sensitivity: personal}
  id_number: {label: 身份证号, authority: city, visible: [city, district], sensitivity: sensitive}
  community_code: {label: 社区代码, authority: city}
  phone: {label: 手机号, authority: community, normalise: [trim, halfwidth]}
  care_level: {label: 关爱等级, type: enum, values: [无, 一般, 重点], authority: community}
"""
VISIT = """
name: visit
label: 走访记录
levels: [city, district, street, community]
key: [visit_id]
jurisdiction: community_code
originates: [community]
fields:
  visit_id: {label: 走访编号, authority: community}
  community_code: {label: 社区代码, authority: community}
  visited_on: {label: 走访日期, type: date, authority: community}
  summary: {label: 情况, authority: community}
  reply: {label: 街道回复, authority: street}
"""
SUITE = """{"name": "resident", "meta": {}, "expectations": [
 {"type": "expect_column_values_to_match_regex", "severity": "critical",
  "kwargs": {"column": "phone", "regex": "^1[3-9][0-9]{9}$"},
  "meta": {"reason": {"zh": "手机号应为 11 位数字，现为“{value}”", "en": "must be 11 digits, it is {value!r}"}}}]}"""
TOP = """
name: small
datasets: "datasets/*.yaml"
systems:
  city: {{connector: memory, options: {{store: "{prefix}/{{dataset}}/{{region}}", capture: {city}}}}}
  district: {{connector: memory, options: {{store: "{prefix}/{{dataset}}/{{region}}", capture: {district}}}}}
  street: {{connector: memory, options: {{store: "{prefix}/{{dataset}}/{{region}}", capture: {street}}}}}
  community: {{connector: memory, options: {{store: "{prefix}/{{dataset}}/{{region}}", capture: {community}}}}}
nodes:
"""
MIXED = {"city": "log", "district": "cursor", "street": "log", "community": "snapshot"}
"""As it is in most cities: change tables at the top, timestamps in the middle, workbooks at the bottom."""


class Clock:
    """A clock that tests set. Each reading moves it on a little, so that runs have an order."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now


def written(folder: Path, files: Mapping[str, str]) -> Path:
    """Write the files of a declaration, by their names below a folder; the folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


class Small:
    """The federation and its people's hands: `put`, `drop` and `get` act on a node's own store."""

    def __init__(self, folder: Path, capture: str = "mixed", *, changes: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.prefix = str(folder)
        files = {
            "regions.csv": REGIONS,
            "datasets/resident.yaml": RESIDENT,
            "datasets/visit.yaml": VISIT,
            "expectations/resident.json": SUITE,
        }
        captures = MIXED if capture == "mixed" else dict.fromkeys(MIXED, capture)
        top = TOP.format(prefix=self.prefix, **captures)
        for level in ("city", "district", "street", "community"):
            top += f"  - {{system: {level}, level: {level}, datasets: {{resident: {{}}, visit: {{}}}}}}\n"
        written(folder, {**files, "federation.yaml": top, **(changes or {})})
        self.clock = Clock()
        self.federation: Federation = open_federation(folder, clock=self.clock)

    def store(self, region: str, dataset: str = "resident") -> Store:
        return STORES.setdefault(f"{self.prefix}/{dataset}/{region}", Store())

    def put(self, region: str, key: str, dataset: str = "resident", **values: Any) -> None:
        name = "resident_id" if dataset == "resident" else "visit_id"
        self.store(region, dataset).put(key, {name: key, **values})

    def drop(self, region: str, key: str, dataset: str = "resident") -> None:
        self.store(region, dataset).drop(key)

    def get(self, region: str, key: str, dataset: str = "resident") -> dict[str, Any] | None:
        return self.store(region, dataset).rows.get(key)

    def holders(self, key: str, dataset: str = "resident") -> set[str]:
        return {
            region.code for region in self.federation.config.tree if self.get(region.code, key, dataset) is not None
        }

    def cascade(self, dataset: str = "resident", **options: Any) -> CascadeResult:
        result = self.federation.cascade(dataset, **options)
        assert not result.errors, {link: str(error) for link, error in result.errors.items()}
        return result

    def two_residents(self) -> None:
        """R1 and R2, everywhere."""
        self.resident("R1", phone="13900000001")
        self.resident("R2", phone="13900000002")
        self.cascade()

    def resident(self, key: str = "R1", community: str = E11, **values: Any) -> None:
        self.put(
            CITY,
            key,
            **{
                "name": "王伟",
                "id_number": "110101199001010015",
                "community_code": community,
                "phone": "13800000000",
                "care_level": "无",
                **values,
            },
        )
