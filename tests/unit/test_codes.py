"""Code tables in the declaration: what is refused, and what a federation makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.runtime import open_federation
from tests.federations import CITY, E11, MIXED, TOP, Small
from tests.unit.declarations import RESIDENT, accepted, changed, line_of, refused, the_one
from tests.unit.declarations import TOP as LITTLE

TEL = "columns: {phone: tel}"
AT = "nodes.0.datasets.resident.codes"
WITH_BOOL = f"{RESIDENT}  alive: {{label: 在世, type: bool, authority: city}}\n  born: {{label: 出生, type: date, authority: city}}\n"


def test_codes_are_declared_beside_the_columns(tmp_path: Path) -> None:
    top = changed(LITTLE, TEL, f'{TEL}\n        codes: {{kind: {{甲: 1, 乙: 2}}, alive: {{true: "Y", false: "N"}}}}')
    config = accepted(tmp_path, top=top, resident=WITH_BOOL)
    assert config.binding("resident", "110000000000").codes == {
        "kind": {"甲": 1, "乙": 2},
        "alive": {"true": "Y", "false": "N"},
    }
    assert config.binding("resident", "110101001001").codes == {}


@pytest.mark.parametrize(
    ("codes", "key", "says"),
    [
        ("{fone: {a: 1}}", ".fone", "resident has no field fone"),
        ("{kind: {甲: 1}}", ".kind", "kind has no code for: 乙"),
        ("{kind: {甲: 1, 乙: 2, 丙: 3}}", ".kind.丙", "丙 is no value of kind"),
        ("{kind: {甲: 1, 乙: 1}}", ".kind.乙", "甲 and 乙 share the code 1"),
        ('{kind: {甲: "1", 乙: " 1 "}}', ".kind.乙", "甲 and 乙 share the code 1"),
        ('{kind: {甲: "1", 乙: 2}}', ".kind", "partly numbers, partly text"),
        ('{kind: {甲: "", 乙: "2"}}', ".kind.甲", "the code of 甲 is blank"),
        ("{kind: {甲: 1.5, 乙: 2}}", ".kind.甲", "Input should be a valid"),
        ('{born: {"2026-01-01": 1}}', ".born", "only enum, bool and string have codes"),
        ("{alive: {是: 1}}", ".alive", "alive has no code for: 否"),
        ("{alive: {是: 1, true: 2, 否: 0}}", ".alive.true", "是 and true are the same value"),
        ("{phone: {}}", ".phone", "phone has no codes"),
    ],
)
def test_a_code_table_that_could_not_be_translated_back_is_an_error_at_its_line(
    tmp_path: Path, codes: str, key: str, says: str
) -> None:
    top = changed(LITTLE, TEL, f"{TEL}\n        codes: {codes}")
    problems = refused(tmp_path, top=top, resident=WITH_BOOL)
    the_one(problems[:1], file="federation.yaml", line=line_of(top, "codes:"), key=AT + key, says=says)
    if says != "Input should be a valid":
        assert len(problems) == 1


def test_a_field_that_is_hosted_or_not_visible_has_no_codes(tmp_path: Path) -> None:
    at = "nodes.1.datasets.resident.codes"
    for place, codes, says in (
        ("hosted", "hosted: [kind], codes: {kind: {甲: 1, 乙: 2}}", "kind is hosted"),
        ("visible", "codes: {idno: {a: 1}}", "idno is not visible at this level"),
    ):
        top = changed(LITTLE, "{hosted: [kind]}", f"{{{codes}}}")
        key = f"{at}.{'kind' if place == 'hosted' else 'idno'}"
        the_one(
            refused(tmp_path / place, top=top), file="federation.yaml", line=line_of(top, "codes:"), key=key, says=says
        )


def test_what_the_engine_hosts_has_no_codes(tmp_path: Path) -> None:
    node = '  - {system: hosted, regions: ["110102000000"], datasets: {resident: {codes: {kind: {甲: 1, 乙: 2}}}}}\n'
    the_one(
        refused(tmp_path, top=LITTLE + node),
        file="federation.yaml",
        line=line_of(LITTLE + node, "codes:"),
        key="nodes.2.datasets.resident.codes",
        says="hosts needs no codes",
    )


# --- at work


def declared(small: Path, codes: str) -> str:
    top = TOP.format(prefix=str(small), **MIXED)
    for level in ("city", "district", "street"):
        top += f"  - {{system: {level}, level: {level}, datasets: {{resident: {{}}, visit: {{}}}}}}\n"
    binding = f"{{codes: {codes}}}"
    return f"{top}  - {{system: community, level: community, datasets: {{resident: {binding}, visit: {{}}}}}}\n"


@pytest.fixture
def small(tmp_path: Path) -> Small:
    made = Small(tmp_path, changes={"federation.yaml": declared(tmp_path, "{care_level: {无: 0, 一般: 1, 重点: 2}}")})
    made.resident("R1", care_level="一般")
    made.cascade()
    return made


def test_values_go_down_as_codes_and_codes_come_up_as_values(small: Small) -> None:
    assert (small.get(E11, "R1") or {})["care_level"] == 1
    small.put(E11, "R1", care_level="2")
    small.cascade()
    assert (small.get(CITY, "R1") or {})["care_level"] == "重点"
    assert small.cascade(force_full=True).moved == 0


def test_an_unknown_code_is_set_aside_and_handed_back_with_its_reason(small: Small) -> None:
    small.put(E11, "R1", care_level="7")
    small.cascade()
    (item,) = small.federation.services.quarantine.open_items(origin=E11)
    assert (item.key, item.rule) == ("R1", "code:unknown")
    (shown,) = small.store(E11).returns
    assert "7" in shown["reason_zh"] and "'7'" in shown["reason_en"]
    assert (small.get(CITY, "R1") or {})["care_level"] == "一般"
    small.put(E11, "R1", care_level="0")
    small.cascade()
    assert (small.get(CITY, "R1") or {})["care_level"] == "无"
    assert not small.federation.services.quarantine.open_items()


def test_another_code_table_is_another_identity_and_everything_is_compared_anew(small: Small) -> None:
    top = declared(small.folder, "{care_level: {无: 0, 一般: 2, 重点: 1}}")
    (small.folder / "federation.yaml").write_text(top, encoding="utf-8")
    small.federation = open_federation(small.folder, clock=small.clock)
    small.cascade()
    assert (small.get(CITY, "R1") or {})["care_level"] == "重点", "what the community's code says now"
