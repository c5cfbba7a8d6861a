from __future__ import annotations

from pathlib import Path

import pytest

from federation.config import HOSTED
from tests.unit.declarations import RESIDENT, TOP, accepted, changed, line_of, refused, the_one

AT_CITY = "nodes.0.datasets.resident"
AT_COMMUNITY = "nodes.1.datasets.resident"
TEL = "columns: {phone: tel}"
EAST, NOWHERE = '"110101000000"', '"110109000000"'


def test_a_correct_declaration_is_accepted_and_names_every_link(tmp_path: Path) -> None:
    config = accepted(tmp_path)
    assert [link.id for link in config.all_links()] == [
        "resident/110101000000",
        "resident/110102000000",
        "resident/110101001000",
        "resident/110101001001",
        "resident/110101001002",
    ]


def test_a_region_without_a_node_is_hosted(tmp_path: Path) -> None:
    binding = accepted(tmp_path).binding("resident", "110102000000")
    assert (binding.system, binding.spec.connector) == (HOSTED, HOSTED)


def test_a_node_may_name_hosted_as_its_system(tmp_path: Path) -> None:
    config = accepted(tmp_path, top=TOP + '  - {system: hosted, regions: ["110102000000"], datasets: {resident: {}}}\n')
    assert config.binding("resident", "110102000000").spec.connector == HOSTED


def test_words_in_options_are_filled_in_for_each_region(tmp_path: Path) -> None:
    binding = accepted(tmp_path).binding("resident", "110101001001")
    assert binding.options == {"store": "resident/110101001001"}


def test_the_narrower_node_counts_whatever_the_order(tmp_path: Path) -> None:
    wide = "  - {system: wide, level: community, datasets: {resident: {}}}\n"
    inside = '  - {system: inside, level: community, within: "110101001000", datasets: {resident: {}}}\n'
    systems = "  wide: {connector: memory}\n  inside: {connector: memory}\nnodes:\n"
    for number, order in enumerate((wide + inside, inside + wide)):
        config = accepted(tmp_path / str(number), top=changed(TOP, "nodes:\n", systems) + order)
        found = [config.binding("resident", code).system for code in ("110101001001", "110101001002")]
        assert found == ["store", "inside"]


def test_a_file_saved_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    assert accepted(tmp_path, top="\ufeff" + TOP).spec.name == "little"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    problem = refused(tmp_path, top=None)[0]
    assert Path(str(problem.where["file"])).name == "federation.yaml"
    assert "cannot be read" in problem.en


def test_no_dataset_file_at_all_is_an_error_at_the_key_datasets(tmp_path: Path) -> None:
    top = changed(TOP, "name: little", "name: little\ndatasets: sets/*.yaml")
    says = "no dataset file matches sets/*.yaml"
    the_one(refused(tmp_path, top=top), file="federation.yaml", line=2, key="datasets", says=says)


def test_an_absolute_pattern_for_datasets_is_an_error(tmp_path: Path) -> None:
    top = changed(TOP, "name: little", "name: little\ndatasets: /sets/*.yaml")
    the_one(refused(tmp_path, top=top), file="federation.yaml", line=2, key="datasets", says="no dataset file matches")


def test_a_node_of_a_dataset_without_file_is_named(tmp_path: Path) -> None:
    top = changed(TOP, "datasets: {resident: {hosted: [kind]}}", "datasets: {visit: {}}")
    the_one(
        refused(tmp_path, top=top),
        file="federation.yaml",
        line=line_of(top, "visit"),
        key="nodes.1.datasets.visit",
        says="there is no dataset visit",
    )


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "says"),
    [
        (TEL, "columns: {fone: tel}", "fone", f"{AT_CITY}.columns.fone", "resident has no field fone"),
        (TEL, "hosted: [fone]", "fone", f"{AT_CITY}.hosted.0", "resident has no field fone"),
        (TEL, "hosted: [rid]", "[rid]", f"{AT_CITY}.hosted.0", "key field rid cannot be hosted"),
        (TEL, "columns: {phone: kind}", "phone", f"{AT_CITY}.columns.phone", "phone and kind share the column kind"),
        (TEL, "columns: {phone: a, kind: a}", "phone", f"{AT_CITY}.columns.kind", "phone and kind share the column a"),
        (
            TEL,
            TEL + "\n        hosted: [phone]",
            "hosted: [phone]",
            f"{AT_CITY}.hosted.0",
            "has a column and is hosted",
        ),
        ("{hosted: [kind]}", "{columns: {idno: x}}", "idno", f"{AT_COMMUNITY}.columns.idno", "idno is not visible"),
        ("level: city", "level: town", "town", "nodes.0.level", "Input should be 'city'"),
        (
            "level: city",
            f"level: city\n    within: {NOWHERE}",
            NOWHERE,
            "nodes.0.within",
            "unknown region 110109000000",
        ),
        ("level: city", f"level: city\n    within: {EAST}", EAST, "nodes.0.within", "no city lies inside"),
        ('["110101001001"]', f"[{NOWHERE}]", NOWHERE, "nodes.1.regions.0", "unknown region 110109000000"),
        ('["110101001001"]', "[110101001001]", "[110", "nodes.1.regions.0", "Input should be a valid string"),
        ("level: city", "regions: []", "- system: store", "nodes.0", "either `regions` or a `level`"),
        ("connector: memory", "conector: memory", "conector", "systems.store.conector", "conector is not a known word"),
        ("name: little", "name: little\nnodez: []", "nodez", "nodez", "nodez is not a known word"),
        (
            "name: little",
            "name: little\ntimezone: Asia/Beijing",
            "timezone",
            "timezone",
            "unknown time zone Asia/Beijing",
        ),
        ("  store:\n", "  hosted: {connector: sql}\n  store:\n", "sql", "systems.hosted", "the engine keeps itself"),
        ("name: little", "name: little\nledger: {}", "ledger", "ledger", "either `env` or `connection`"),
    ],
)
def test_a_slip_is_answered_with_its_line_and_key(
    tmp_path: Path, old: str, new: str, line: str, key: str, says: str
) -> None:
    top = changed(TOP, old, new)
    found = [problem for problem in refused(tmp_path, top=top) if says in problem.en]
    the_one(found, file="federation.yaml", line=line_of(top, line), key=key, says=says)


def test_an_unknown_system_is_named_together_with_those_that_exist(tmp_path: Path) -> None:
    top = changed(
        TOP, '- system: store\n    regions: ["110101001001"]', '- system: stor\n    regions: ["110101001001"]'
    )
    problems = refused(tmp_path, top=top)
    assert problems[0].where["key"] == "nodes.1.system"
    assert problems[0].where["line"] == top.splitlines().index("  - system: stor") + 1
    assert "store, hosted" in problems[0].todo


def test_two_nodes_for_one_region_are_an_error_that_names_the_first(tmp_path: Path) -> None:
    top = TOP + '  - system: store\n    regions: ["110101001001"]\n    datasets: {resident: {}}\n'
    problems = refused(tmp_path, top=top)
    lines = top.splitlines()
    first = lines.index("    datasets: {resident: {hosted: [kind]}}") + 1
    the_one(
        problems,
        file="federation.yaml",
        line=len(lines),
        key="nodes.2.datasets.resident",
        says=f"already bound on line {first}",
    )


def test_two_nodes_for_one_level_are_an_error(tmp_path: Path) -> None:
    problems = refused(tmp_path, top=TOP + "  - {system: store, level: city, datasets: {resident: {}}}\n")
    assert [problem.where["key"] for problem in problems] == ["nodes.2.datasets.resident"]


def test_a_level_that_the_dataset_does_not_have_is_named(tmp_path: Path) -> None:
    two = changed(RESIDENT, "levels: [city, district, street, community]", "levels: [district, street, community]")
    two = two.replace("authority: city, visible: [city, district]", "authority: district, visible: [district]")
    two = two.replace("authority: city", "authority: district").replace("originates: [city]", "originates: [district]")
    problems = refused(tmp_path, resident=two)
    the_one(problems, file="federation.yaml", line=line_of(TOP, "      resident:"), key=AT_CITY, says="no level city")


@pytest.mark.parametrize(
    "option",
    [
        "password: hunter2",
        "password: 123456",
        "api_key: abc",
        "token: [abc]",
        "auth: {client_secret: abc}",
        "secret: {value: abc}",
        'url: "postgresql+psycopg://me:hunter2@host/db"',
        'url: "cx_oracle://me:hunter2@host/db"',
        'url: "mssql+pyodbc://host/db?uid=me&pwd=hunter2"',
    ],
)
def test_a_secret_in_plain_text_is_refused_and_not_repeated(tmp_path: Path, option: str) -> None:
    top = changed(TOP, 'options: {store: "{dataset}/{region}"}', f"options:\n      {option}")
    problems = refused(tmp_path, top=top)
    assert len(problems) == 1
    assert problems[0].where["line"] == line_of(top, option)
    assert str(problems[0].where["key"]).startswith("systems.store.options.")
    assert "plain text" in problems[0].en
    assert not any(secret in str(problems[0]) for secret in ("hunter2", "123456", "abc"))


def test_a_secret_typed_instead_of_a_reference_is_not_repeated(tmp_path: Path) -> None:
    problems = refused(
        tmp_path, top=changed(TOP, "name: little", "name: little\nledger: postgresql://me:hunter2@host/db")
    )
    the_one(problems, file="federation.yaml", line=2, key="ledger", says="Input should be a valid dictionary")
    assert "hunter2" not in str(problems[0])


@pytest.mark.parametrize("option", ["token: {env: TOKEN}", "token: {connection: hotline, part: password}"])
def test_a_reference_to_a_secret_is_accepted(tmp_path: Path, option: str) -> None:
    accepted(tmp_path, top=changed(TOP, 'options: {store: "{dataset}/{region}"}', f"options:\n      {option}"))


def test_a_system_or_column_whose_name_sounds_secret_is_no_secret(tmp_path: Path) -> None:
    top = TOP.replace("store:\n", "token_office:\n", 1).replace("system: store", "system: token_office")
    accepted(tmp_path, top=changed(top, "{phone: tel}", "{phone: password}"))


def test_a_line_that_is_not_yaml_is_named(tmp_path: Path) -> None:
    top = changed(TOP, "    options:", "   options:")
    problem = refused(tmp_path, top=top)[0]
    assert problem.where["line"] == line_of(top, "   options:")
    assert "is not YAML" in problem.en


def test_a_key_that_stands_twice_is_an_error_at_the_second(tmp_path: Path) -> None:
    top = changed(TOP, "    connector: memory\n", "    connector: memory\n    connector: sql\n")
    the_one(
        refused(tmp_path, top=top),
        file="federation.yaml",
        line=line_of(top, "connector: sql"),
        key="systems.store.connector",
        says="stands twice",
    )


@pytest.mark.parametrize(("value", "says"), [("2026-13-45", "is no value"), ("!secret x", "is no value")])
def test_a_value_that_yaml_cannot_make_is_named(tmp_path: Path, value: str, says: str) -> None:
    top = changed(TOP, "name: little", f"name: little\nlabel: {value}")
    the_one(refused(tmp_path, top=top), file="federation.yaml", line=2, key="label", says=says)


def test_an_alias_that_holds_itself_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    problem = refused(tmp_path, top="name: little\nsystems: &all\n  a: *all\n")[0]
    assert "alias" in problem.en


def test_a_suite_that_is_not_there_is_named_in_the_dataset_file(tmp_path: Path) -> None:
    resident = RESIDENT + "suite: resident.json\n"
    the_one(
        refused(tmp_path, resident=resident),
        file="resident.yaml",
        line=line_of(resident, "suite"),
        key="suite",
        says="there is no suite resident.json",
    )


def test_a_dataset_declared_in_two_files_is_an_error(tmp_path: Path) -> None:
    other = tmp_path / "datasets" / "visit.yaml"
    other.parent.mkdir(parents=True)
    other.write_text(RESIDENT, encoding="utf-8")
    the_one(refused(tmp_path), file="visit.yaml", line=1, key="name", says="declared twice")


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    top = changed(changed(TOP, "{phone: tel}", "{fone: tel}"), '["110101001001"]', '["110101009999"]')
    found = {problem.where["key"] for problem in refused(tmp_path, top=top, resident=RESIDENT + "suite: none.json\n")}
    assert found == {f"{AT_CITY}.columns.fone", "nodes.1.regions.0", "suite"}
