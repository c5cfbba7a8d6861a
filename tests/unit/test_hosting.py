"""People without a system: `fedsync hosted list, show, put, remove, rekey`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from federation.errors import AccessDenied
from federation.runtime import open_federation
from federation.secrets import Keyring
from tests.federations import CITY, E11, E12, EAST_1, Small
from tests.hosted_federation import HOSTED, Unequipped, moved


@pytest.fixture
def place(tmp_path: Path) -> Unequipped:
    made = Unequipped(tmp_path)
    made.resident("R1")
    made.cascade()
    return made


def test_people_see_what_came_down_and_what_they_type_goes_up(place: Unequipped) -> None:
    assert place.listed()["R1"]["name"] == "王伟"
    place.put(E11, "R1", phone="13911111111")
    place.cascade()
    assert (place.get(CITY, "R1") or {})["phone"] == "13911111111"
    assert place.cascade().moved == 0


def test_one_record_is_shown_by_its_key(place: Unequipped) -> None:
    code, record = place.hosted("show", "resident", E11, "R1")
    assert (code, record["resident_id"], record["care_level"]) == (0, "R1", "无")
    code, told = place.hosted("show", "resident", E11, "R9")
    assert (code, told["errors"][0]["en"]) == (1, "there is no such record")
    code, told = place.hosted("show", "resident", E11, "R1", "R2")
    assert (code, told["errors"][0]["en"]) == (1, "the key of resident is: resident_id")


def test_a_record_that_people_enter_is_their_regions_own(place: Unequipped) -> None:
    place.put(E11, "V1", "visit", visited_on="2026年1月5日", summary="正常")
    place.cascade("visit")
    row = place.get(CITY, "V1", "visit") or {}
    assert (row["community_code"], str(row["visited_on"])) == (E11, "2026-01-05")


def test_a_record_that_people_remove_is_gone_everywhere_if_they_may(place: Unequipped) -> None:
    place.put(E11, "V1", "visit", visited_on="2026-01-05")
    place.cascade("visit")
    assert place.hosted("remove", "visit", E11, "V1")[0] == 0
    place.cascade("visit")
    assert place.holders("V1", "visit") == set() and not place.listed("visit")
    code, told = place.hosted("remove", "visit", E11, "V1")
    assert (code, told["errors"][0]["zh"]) == (1, "没有这条记录")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_a_csv_with_labels_is_taken_and_what_is_wrong_in_it_is_told_line_by_line(
    place: Unequipped, encoding: str
) -> None:
    lines = [
        "走访编号,走访日期,情况,社区代码",
        "V1,2026/1/5,“正常”,",
        "",
        f"V2,后天,好,{E11}",
        ",2026-01-06,无编号,",
        f'V3,2026-01-07,"两行\n内容",{E12}',
        f"V4,2026-01-08,好,{E11}",
    ]
    path = place.folder / "走访.csv"
    path.write_bytes("\n".join(lines).encode(encoding))
    code, told = place.hosted("put", "visit", E11, "--csv", str(path))
    assert (code, told["ok"], told["taken"]) == (1, False, 2)
    refused = {line["locator"]: (line["rule"], line["reason_zh"], line["reason_en"]) for line in told["refused"]}
    assert [(at, rule) for at, (rule, _, _) in sorted(refused.items())] == [
        ("第 4 行", "type:date"),
        ("第 5 行", "key:missing"),
        ("第 7 行", "scope:outside"),
    ]
    assert "走访日期" in refused["第 4 行"][1] and "后天" in refused["第 4 行"][1]
    assert E12 in refused["第 7 行"][1] and E12 in refused["第 7 行"][2]
    assert set(place.listed("visit")) == {"V1", "V4"}


def test_of_a_record_only_the_named_fields_are_touched_and_an_empty_one_is_emptied(place: Unequipped) -> None:
    place.put(E11, "R1", care_level="重点")
    place.put(E11, "R1", phone="")
    row = place.listed()["R1"]
    assert (row["care_level"], row["phone"], row["name"]) == ("重点", None, "王伟")


def test_a_record_is_not_moved_to_a_code_that_no_region_has(place: Unequipped) -> None:
    for code in ("999999999999", ""):
        exit_code, told = place.hosted("put", "resident", E11, "resident_id=R1", f"community_code={code}")
        assert (exit_code, told["refused"][0]["rule"]) == (1, "scope:outside")
    assert place.listed()["R1"]["community_code"] == E11


def test_a_move_that_people_propose_is_a_correction(place: Unequipped) -> None:
    place.put(E11, "R1", community_code=E12)
    place.cascade()
    (correction,) = place.federation.services.corrections.active("resident")
    assert correction.key == "R1" and "community_code" in correction.names


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["resident_id=R1", "fone=1"], "no field of this node: fone"),
        (["resident_id=R1", "id_number=1"], "no field of this node: id_number"),
        (["phone=1"], "the key is wanting: resident_id"),
        (["resident_id=R1", "phone"], "not a field=value: phone"),
        (["resident_id=R1", "phone=1", "手机号=2"], "a field stands twice: phone"),
        ([], "give either field=value pairs or --csv"),
        (["--csv", "nowhere.csv"], "the csv cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_told_and_nothing_is_written(place: Unequipped, words: list[str], says: str) -> None:
    before = place.listed()
    code, told = place.hosted("put", "resident", E11, *words)
    assert code == 1 and says in told["errors"][0]["en"]
    assert told["errors"][0]["zh"] and told["errors"][0]["todo"]
    assert place.listed() == before


def test_a_csv_with_a_cell_too_many_is_refused_with_its_line(place: Unequipped) -> None:
    path = place.folder / "bad.csv"
    path.write_text("visit_id,summary\nV1,好\nV2,好,坏\n", encoding="utf-8")
    code, told = place.hosted("put", "visit", E11, "--csv", str(path))
    assert (code, told["errors"][0]["line"]) == (1, "3")
    assert not place.listed("visit")


def test_a_region_with_a_system_is_sent_there(place: Unequipped) -> None:
    for words in (
        ["put", "resident", E12, "resident_id=R1"],
        ["list", "resident", E12],
        ["show", "resident", E12, "R1"],
    ):
        code, told = place.hosted(*words)
        assert code == 1 and "community" in told["errors"][0]["todo"]


def test_of_a_system_that_lacks_a_field_people_enter_that_field(tmp_path: Path) -> None:
    place = Unequipped(tmp_path, moved("hosted: [care_level]"))
    place.resident("R1", care_level="无")
    place.cascade()
    assert place.listed() == {"R1": {"resident_id": "R1", "care_level": "无"}}
    place.put(E11, "R1", care_level="重点")
    code, told = place.hosted("put", "resident", E11, "resident_id=R1", "phone=1")
    assert (code, told["errors"][0]["en"]) == (1, "no field of this node: phone")
    place.cascade()
    assert (place.get(CITY, "R1") or {})["care_level"] == "重点"


def test_records_may_be_entered_before_the_first_sync(tmp_path: Path) -> None:
    place = Unequipped(tmp_path)
    place.put(E11, "V1", "visit", summary="早")
    place.cascade("visit")
    assert (place.get(CITY, "V1", "visit") or {})["summary"] == "早"


def test_a_lost_database_is_not_made_anew_by_looking_at_it(place: Unequipped) -> None:
    for path in (place.folder / "state").glob("hosted.db*"):
        path.unlink()
    code, _ = place.hosted("list", "resident", E11)
    assert code == 1 and not (place.folder / "state/hosted.db").exists()


def test_each_look_and_each_edit_leaves_a_line_without_values(place: Unequipped) -> None:
    place.listed()
    place.hosted("show", "resident", E11, "R1")
    place.put(E11, "R1", phone="13922222222")
    place.hosted("remove", "resident", E11, "R1")
    lines = place.trail()
    assert [line[:2] for line in lines] == [
        (f"hosted.{word}", f"resident/{E11}") for word in ("list", "show", "put", "remove")
    ]
    assert "R1" in lines[2][2] and "13922222222" not in json.dumps(lines)


def test_values_of_hosted_records_lie_nowhere_in_the_state_folder(place: Unequipped) -> None:
    place.put(E11, "R1", phone="13933333333", care_level="重点")
    place.cascade()
    for path in (place.folder / "state").rglob("*"):
        assert path.is_dir() or b"13933333333" not in path.read_bytes(), path


def test_people_without_a_system_list_what_was_handed_back_to_them_until_they_have_mended_it(place: Unequipped) -> None:
    place.put(E11, "R1", phone="1")
    place.cascade()
    code, (line,) = place.hosted("returns", "resident", E11)
    assert code == 0 and (line["resident_id"], line["field"], line["value"]) == ("R1", "phone", "1")
    assert "11 位数字" in line["reason_zh"] and line["hop"] == "多福巷社区 → 东华门街道"
    place.put(E11, "R1", phone="13900000000")
    place.cascade()
    assert place.hosted("returns", "resident", E11) == (0, [])


# --- the secret


def test_a_replaced_secret_disturbs_no_link_and_old_records_stay_readable(
    place: Unequipped, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.put(E11, "R1", phone="1")
    place.cascade()
    assert place.federation.services.quarantine.open_items(), "a record with a bad phone is set aside"
    old = (place.folder / "state/secret.key").read_text().strip()
    monkeypatch.setenv("FEDSYNC_SECRET", "a new secret")
    monkeypatch.setenv("FEDSYNC_SECRET_PREVIOUS", old)
    place.federation = open_federation(place.folder, clock=place.clock)
    assert place.cascade(force_full=True).moved == 0
    quarantine = place.federation.services.quarantine
    (item,) = quarantine.open_items()
    assert quarantine.open(item).record["phone"] == "1"
    assert place.listed()["R1"]["phone"] == "1"
    assert place.hosted("rekey") == (0, {"ok": True, "records": 1})
    assert place.hosted("rekey") == (0, {"ok": True, "records": 0})
    monkeypatch.setenv("FEDSYNC_SECRET_PREVIOUS", "")
    assert place.listed()["R1"]["phone"] == "1"
    assert place.hosted("returns", "resident", E11)[1][0]["value"] == "1", "what was handed back is sealed anew as well"


def test_without_the_former_secret_the_error_says_what_to_do(
    place: Unequipped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDSYNC_SECRET", "a new secret")
    code, told = place.hosted("list", "resident", E11)
    assert code == 1 and "FEDSYNC_SECRET_PREVIOUS" in told["errors"][0]["todo"]


def test_former_secrets_may_be_declared_or_stand_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Small(tmp_path)
    sealed = small.federation.services.keyring.encrypt(b"x", "here")
    path = tmp_path / "state/secret.key"
    old = path.read_text().strip()
    path.write_text(f"newer\n{old}\n")
    assert open_federation(tmp_path).services.keyring.decrypt(sealed, "here") == b"x"
    path.write_text("newer\n")
    monkeypatch.setenv("FORMER", old)
    top = tmp_path / "federation.yaml"
    top.write_text(f"{top.read_text()}previous_secrets: [{{env: FORMER}}]\n")
    assert open_federation(tmp_path).services.keyring.decrypt(sealed, "here") == b"x"


def test_what_another_secret_encrypted_is_refused_with_an_error_of_ours() -> None:
    sealed = Keyring(b"one").encrypt(b"x", "here")
    assert Keyring(b"two", [b"one"]).decrypt(sealed, "here") == b"x"
    assert Keyring(b"two", [b"one"]).fingerprint == Keyring(b"one").fingerprint
    for keyring, about in ((Keyring(b"two"), "here"), (Keyring(b"one"), "there")):
        with pytest.raises(AccessDenied, match="FEDSYNC_SECRET_PREVIOUS"):
            keyring.decrypt(sealed, about)


def test_a_street_without_a_system_says_whose_record_it_is(tmp_path: Path) -> None:
    place = Unequipped(tmp_path, HOSTED.replace(E11, EAST_1))
    code, told = place.hosted("put", "visit", EAST_1, "visit_id=V1", "summary=好")
    assert (code, told["refused"][0]["rule"]) == (1, "scope:outside")
    code, told = place.hosted("put", "visit", EAST_1, "visit_id=V1", "summary=好", f"community_code={E12}")
    assert (code, told["taken"]) == (0, 1)
