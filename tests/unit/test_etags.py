"""Links to systems with etags: what people do there between the engine's read and its write is neither overwritten nor missed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from federation import failpoints
from tests.documented import snippets
from tests.federations import CITY, E11, E12, EAST, EAST_1, TOP, Small
from tests.scripted_http import Scripted, scripted
from tests.services.odata import OData

COLUMNS = {
    "resident_id": "Id",
    "name": "Name",
    "community_code": "Community",
    "phone": "Contact.Phone",
    "care_level": "Care",
}


class Place:
    """A federation in which one region keeps its residents behind an OData service."""

    def __init__(self, folder: Path, region: str, *, incremental: bool) -> None:
        self.region = region
        self.service = OData()
        self.server: Scripted
        self.folder = folder
        self.incremental = incremental

    def open(self, server: Scripted) -> Small:
        self.server = server
        (text,) = (text for text in snippets() if "health_registry" in text)
        options = yaml.safe_load(text)["systems"]["health_registry"]["options"]
        options["omits_nulls"] = True
        if self.region != E11:  # a street's records carry the codes of its communities, not its own
            options["parameters"] = {}
            options["changed_since"]["value"] = "Modified ge {since}"
        if not self.incremental:
            del options["changed_since"], options["keys"]
        top = TOP.format(prefix=str(self.folder), city="log", district="log", street="log", community="snapshot")
        for level in ("city", "district", "street", "community"):
            top += f"  - {{system: {level}, level: {level}, datasets: {{resident: {{}}, visit: {{}}}}}}\n"
        declared = yaml.safe_load(top)
        declared["systems"]["health"] = {"connector": "rest", "options": options}
        bound = {"resident": {"columns": COLUMNS}}
        declared["nodes"].append({"system": "health", "regions": [self.region], "datasets": bound})
        return Small(self.folder, changes={"federation.yaml": yaml.safe_dump(declared, allow_unicode=True)})

    def edit(self, key: str, **values: Any) -> None:
        """As the region's own people do."""
        body: dict[str, Any] = {"Id": key}
        for name, value in values.items():
            body |= {"Contact": {"Phone": value}} if name == "phone" else {COLUMNS[name]: value}
        self.service.shelf.put(key, body)

    def holds(self, key: str) -> dict[str, Any] | None:
        held = self.service.shelf.get(key)
        return None if held is None else held.body

    def asked(self, method: str) -> list[str]:
        """The paths that were asked with a method since the last time, then forgotten."""
        found = [request.path for request in self.server.asked if request.method == method]
        self.server.asked.clear()
        return found


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.disarm()


@pytest.fixture(params=[True, False], ids=["read since a cursor", "read whole"])
def community(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    yield from opened(tmp_path, monkeypatch, E11, request.param)


@pytest.fixture(params=[True, False], ids=["read since a cursor", "read whole"])
def street(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    yield from opened(tmp_path, monkeypatch, EAST_1, request.param)


def opened(
    folder: Path, monkeypatch: pytest.MonkeyPatch, region: str, incremental: bool
) -> Iterator[tuple[Place, Small]]:
    place = Place(folder, region, incremental=incremental)
    with scripted(place.service) as server:
        monkeypatch.setenv("HEALTH_URL", server.url)
        monkeypatch.setenv("HEALTH_KEY", place.service.api_key)
        yield place, place.open(server)


def once(name: str, action: Callable[[], None]) -> None:
    """Do something the next time that a run passes a place."""

    def act() -> None:
        failpoints.disarm()
        action()

    failpoints.arm(name, act)


def down_to_the_street(small: Small) -> None:
    """Bring what is new in the city down to its streets, and no further."""
    for upper in (CITY, EAST):
        assert not small.federation.sync_parent("resident", upper).errors


def raised(small: Small) -> dict[str, str]:
    """Corrections on their way: key → kind."""
    active = small.federation.services.corrections.active("resident")
    return {correction.key: correction.kind for correction in active if correction.state != "logged"}


# At the lower end


def test_an_edit_made_while_its_record_is_deleted_from_above_is_kept_in_the_log(community: tuple[Place, Small]) -> None:
    place, small = community
    small.resident("R1")
    small.resident("R2")
    small.cascade()
    small.drop(CITY, "R1")
    down_to_the_street(small)
    once("lower.apply.before", lambda: place.edit("R1", phone="13911111111"))
    small.federation.sync_parent("resident", EAST_1)
    small.cascade()
    assert place.holds("R1") is None and place.holds("R2") is not None
    (lost,) = small.federation.services.corrections.active("resident", state="logged")
    assert small.federation.services.corrections.open(lost).proposed["phone"] == "13911111111"


def test_a_value_that_people_change_while_another_is_delivered_over_it_becomes_a_correction(
    community: tuple[Place, Small],
) -> None:
    place, small = community
    small.resident("R1", name="王伟")
    small.cascade()
    small.put(CITY, "R1", name="王玮")
    down_to_the_street(small)
    once("lower.apply.before", lambda: place.edit("R1", name="王炜"))
    small.federation.sync_parent("resident", EAST_1)
    small.cascade()
    assert (place.holds("R1") or {})["Name"] == "王玮"
    assert raised(small) == {"R1": "edit"}


def test_a_record_that_people_create_while_it_is_delivered_keeps_their_own_values(
    community: tuple[Place, Small],
) -> None:
    place, small = community
    small.resident("R1", phone="13800000000")
    theirs = {"phone": "13911111111", "community_code": E11, "care_level": "重点"}
    down_to_the_street(small)
    once("lower.apply.before", lambda: place.edit("R1", **theirs))
    small.federation.sync_parent("resident", EAST_1)
    small.cascade()
    assert (place.holds("R1") or {})["Contact"] == {"Phone": "13911111111"}
    assert (small.get(CITY, "R1") or {})["phone"] == "13911111111", "the community is the phone's authority"


def test_what_was_written_before_a_conflict_is_not_taken_for_somebodys_edit(community: tuple[Place, Small]) -> None:
    """R1 is written, R2 is refused; ere the run starts anew R1 changes above once more."""
    place, small = community
    for key in ("R1", "R2"):
        small.resident(key, name="王伟")
    small.cascade()
    for key in ("R1", "R2"):
        small.put(CITY, key, name="王玮")
    down_to_the_street(small)

    def interfere() -> None:
        place.edit("R2", name="王炜")
        once("recover.before", change_above)
        once("upper.read.before", change_above)

    def change_above() -> None:
        small.put(CITY, "R1", name="王苇")
        down_to_the_street(small)

    once("lower.apply.before", interfere)
    small.federation.sync_parent("resident", EAST_1)
    assert (place.holds("R1") or {})["Name"] == "王苇"
    assert raised(small) == {"R2": "edit"}


def test_only_what_is_written_is_read_once_more(community: tuple[Place, Small]) -> None:
    place, small = community
    for number in range(5):
        small.resident(f"R{number}")
    small.cascade()
    small.put(CITY, "R3", name="王玮")
    place.service.shelf.age(timedelta(hours=1))
    place.server.asked.clear()
    small.cascade()
    items = [path for path in place.asked("GET") if "(" in path]
    assert items == (["/odata/Residents('R3')"] if place.incremental else [])


# At the upper end


def test_a_value_that_people_change_above_while_a_childs_is_carried_over_it_becomes_a_correction(
    street: tuple[Place, Small],
) -> None:
    place, small = street
    small.resident("R1", phone="13800000000")
    small.cascade()
    small.put(E11, "R1", phone="13911111111")
    once("upper.apply.before", lambda: place.edit("R1", phone="13700000000"))
    small.federation.sync_parent("resident", EAST_1)
    assert (place.holds("R1") or {})["Contact"] == {"Phone": "13911111111"}
    assert raised(small) == {"R1": "edit"}


def test_children_that_share_one_reading_of_their_parent_write_to_it_on_its_etags(street: tuple[Place, Small]) -> None:
    place, small = street
    small.resident("R1", E11)
    small.resident("R2", E12)
    small.cascade()
    small.put(E11, "R1", phone="13911111111")
    small.put(E12, "R2", phone="13922222222")
    place.server.asked.clear()
    result = small.federation.sync_parent("resident", EAST_1)
    assert not result.errors
    writes = [request for request in place.server.asked if request.method == "PATCH"]
    assert len(writes) == 2 and all(request.headers["If-Match"] for request in writes)


def test_a_staged_reading_keeps_its_etags(street: tuple[Place, Small]) -> None:
    _, small = street
    small.resident("R1")
    small.cascade()
    reading = small.federation.collect("resident", EAST_1, force_full=True)
    assert reading.etags.num_rows == 1
    again = small.federation.services.staging.load(small.federation.stage(reading))
    assert again is not None
    assert again.etags.equals(reading.etags)
