"""A ruling never overwrites what the authority's people did since: their edit is newer than what the ruling was about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from connectors.base import Changes
from connectors.memory import MemoryConnector
from federation import failpoints
from federation.errors import Conflict
from federation.ledger.corrections import Correction
from tests.federations import CITY, E11, EAST, EAST_1, RESIDENT, W11, WEST, WEST_1, Small

MEMO = "  memo: {label: 便签, authority: community, visible: [street, community]}\n"


class Crash(BaseException):
    """Stands for the death of the process."""


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.disarm()


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return Small(tmp_path)


def waiting(small: Small) -> Correction:
    """A community proposes another name for R1, which is the city's to rule on."""
    small.resident("R1")
    small.cascade()
    small.put(E11, "R1", name="王玮")
    small.cascade()
    (correction,) = small.federation.services.corrections.active("resident")
    assert (correction.kind, correction.state) == ("edit", "waiting")
    return correction


def carried(small: Small) -> Correction:
    """R1 moved from E11 to W11, and both typed a phone number meanwhile: W11 is asked which one holds."""
    small.resident("R1", E11)
    small.cascade()
    small.put(CITY, "R1", community_code=W11)
    for upper in (CITY, WEST, WEST_1):
        small.federation.sync_parent("resident", upper)
    small.put(W11, "R1", phone="13933333333")
    small.put(E11, "R1", phone="13911111111")
    small.cascade()
    (correction,) = small.federation.services.corrections.active("resident")
    assert (correction.kind, correction.state) == ("carry", "waiting")
    return correction


def values(small: Small, field: str, *regions: str) -> set[str]:
    return {(small.get(region, "R1") or {})[field] for region in regions}


def state(small: Small, correction: Correction) -> str:
    return small.federation.services.corrections.find(correction.correction_id).state


def test_an_edit_that_follows_an_acceptance_at_the_desk_is_kept_and_the_proposal_is_superseded(small: Small) -> None:
    correction = waiting(small)
    small.store(CITY).rulings[correction.correction_id] = ("采纳", "属实")
    small.put(CITY, "R1", name="王维")
    small.cascade()
    assert values(small, "name", CITY, EAST, EAST_1, E11) == {"王维"}
    assert state(small, correction) == "superseded"


def test_an_edit_that_no_run_has_seen_yet_is_kept_when_somebody_accepts_the_proposal(small: Small) -> None:
    correction = waiting(small)
    small.put(CITY, "R1", name="王维")
    ruled = small.federation.rule(correction.correction_id, "accepted", "属实", "tester")
    assert ruled.state == "superseded"
    small.cascade()
    assert values(small, "name", CITY, EAST, EAST_1, E11) == {"王维"}


@pytest.mark.parametrize("place", ["correction.write.before", "correction.write.after"])
def test_an_edit_made_after_the_ruler_died_is_not_overwritten_by_the_repair(small: Small, place: str) -> None:
    correction = waiting(small)

    def die() -> None:
        raise Crash

    failpoints.arm(place, die)
    with pytest.raises(Crash):
        small.federation.rule(correction.correction_id, "accepted", "属实", "tester")
    failpoints.disarm()
    small.put(CITY, "R1", name="王维")
    small.cascade()
    assert values(small, "name", CITY, EAST, EAST_1, E11) == {"王维"}


def test_a_record_that_was_entered_meanwhile_is_not_overwritten_by_an_accepted_creation(small: Small) -> None:
    small.cascade()
    small.put(E11, "R1", name="王玮", community_code=E11, phone="13800000000", care_level="无")
    small.cascade()
    (correction,) = small.federation.services.corrections.active("resident")
    small.resident("R1", name="王伟", phone="13900000000")
    assert small.federation.rule(correction.correction_id, "accepted", "属实", "tester").state == "superseded"
    assert values(small, "name", CITY) == {"王伟"}


@pytest.mark.parametrize("accepted", [True, False])
def test_a_proposed_creation_with_a_field_that_its_authority_never_sees_is_superseded_by_the_authoritys_own_record(
    tmp_path: Path, accepted: bool
) -> None:
    small = Small(tmp_path, changes={"datasets/resident.yaml": RESIDENT + MEMO})
    small.put(E11, "R1", name="王玮", community_code=E11, phone="13800000000", care_level="无", memo="门口有台阶")
    small.cascade()
    (correction,) = small.federation.services.corrections.active("resident")
    small.resident("R1", name="王伟", phone="13900000000")
    if accepted:
        small.federation.rule(correction.correction_id, "accepted", "属实", "tester")
    small.cascade()
    assert state(small, correction) == "superseded"
    assert values(small, "name", CITY, EAST, EAST_1, E11) == {"王伟"}


def test_a_carried_edit_that_people_accept_replaces_what_they_typed_themselves(small: Small) -> None:
    correction = carried(small)
    assert small.federation.rule(correction.correction_id, "accepted", "以旧址为准", "tester").state == "accepted"
    small.cascade()
    assert values(small, "phone", CITY, WEST, WEST_1, W11) == {"13911111111"}


def test_a_carried_edit_that_people_accept_gives_way_to_what_they_typed_since(small: Small) -> None:
    correction = carried(small)
    small.store(W11).rulings[correction.correction_id] = ("采纳", "")
    small.put(W11, "R1", phone="13944444444")
    small.cascade()
    assert values(small, "phone", CITY, WEST, WEST_1, W11) == {"13944444444"}
    assert state(small, correction) == "superseded"


def test_an_edit_between_the_comparison_and_the_write_is_heard_where_the_system_compares_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = "\n".join(
        [
            "name: small",
            'datasets: "datasets/*.yaml"',
            "systems:",
            f'  all: {{connector: memory, options: {{store: "{tmp_path}/{{dataset}}/{{region}}", conditional: false}}}}',
            "nodes:",
            *(
                f"  - {{system: all, level: {level}, datasets: {{resident: {{}}}}}}"
                for level in ("city", "district", "street", "community")
            ),
        ]
    )
    small = Small(tmp_path, changes={"federation.yaml": top})
    correction = waiting(small)
    fetch, edits = MemoryConnector.fetch, ["王维"]

    def edited_after(self: MemoryConnector, keys: pa.Table) -> Changes:
        found = fetch(self, keys)
        if edits and self.node.region.code == CITY:
            small.put(CITY, "R1", name=edits.pop())
        return found

    monkeypatch.setattr(MemoryConnector, "fetch", edited_after)
    with pytest.raises(Conflict):
        small.federation.rule(correction.correction_id, "accepted", "属实", "tester")
    small.cascade()
    assert values(small, "name", CITY, EAST, EAST_1, E11) == {"王维"}
    assert state(small, correction) == "superseded"
