"""A four-level federation and what its people believe: the oracle of the state machines.

The world acts as the people of every node and writes down what must come of it: where each record lives, which value its
authority gave each field last, and which keys are in dispute. `check` compares that with what the nodes really hold.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from federation.errors import LinkHeld
from federation.federation import CascadeResult
from federation.regions import LEVELS
from federation.runtime import open_federation
from tests.federations import CITY, E11, E12, E21, MIXED, REGIONS, TOP, W11, W12, Clock

DATASET = "item"
COMMUNITIES = (E11, E12, E21, W11, W12)
ITEM = """
name: item
label: 事项
levels: [city, district, street, community]
key: [item_id]
jurisdiction: place
version: at
originates: [city, community]
retires: [city]
on_correction: {policy}
full_every: 100000
fields:
  item_id: {{label: 编号, authority: city}}
  place: {{label: 属地, authority: city}}
  title: {{label: 名称, authority: city}}
  secret: {{label: 密级, authority: city, visible: [city, district]}}
  remark: {{label: 街道意见, authority: street}}
  own: {{label: 社区填报, authority: community}}
  note: {{label: 备注, authority: shared}}
  at: {{label: 版本, type: int, authority: shared}}
"""
AUTHORITY = {"title": "city", "secret": "city", "remark": "street", "own": "community"}
FIELDS = ("place", "title", "secret", "remark", "own", "note", "at")


@dataclass
class Record:
    """What the world knows of one record. `edits`: field → (value, by its authority of that moment, after how many moves)."""

    place: str
    alive: bool = True
    moves: int = 0
    edits: dict[str, list[tuple[Any, bool, int]]] = field(default_factory=dict)
    loose: bool = False
    """More than one beginning (claimed twice, created anew): only convergence is checked, not which value won."""
    claimed: set[str] = field(default_factory=set)
    places: set[str] = field(default_factory=set)
    accepted: dict[str, list[tuple[Any, int]]] = field(default_factory=dict)
    """Field → (value, how many edits were before): what the authority's people accepted at their desk, and a run may take up."""

    def expected(self, name: str) -> set[Any]:
        """The values that may stand: the last edit of the authority; of a place that the record had left already, maybe."""
        edits = self.edits[name]
        last = max(number for number, (_, legitimate, _) in enumerate(edits) if legitimate)
        value, _, moves = edits[last]
        accepted = {late for late, before in self.accepted.get(name, []) if before > last}
        if moves == self.moves:
            return {value} | accepted
        return {value} | accepted | {late for late, _, _ in edits[last + 1 :]}


class World:
    """See the module. `endings`: what people's texts end with, in turn."""

    def __init__(self, nodes: Nodes, policy: str, endings: Sequence[str] = ("",)) -> None:
        self.nodes = nodes
        self.policy = policy
        self.endings = endings
        self.federation = nodes.federation
        self.tree = self.federation.config.tree
        self.records: dict[str, Record] = {}
        self.counter = 0

    # --- people

    def create(self, key: str, place: str) -> None:
        """The city enters a record."""
        if self.nodes.read(CITY, key) is not None:
            return
        self._begin(key, place, CITY, self._values(place))

    def claim(self, key: str, community: str) -> None:
        """A community enters a record of its own, under a key that others may use as well."""
        if self.nodes.read(community, key) is not None:
            return
        values = self._values(community)
        values.pop("secret")
        self._begin(key, community, community, values)
        self.records[key].claimed.add(community)

    def _values(self, place: str) -> dict[str, Any]:
        names = ("title", "secret", "remark", "own", "note")
        return {"place": place, "at": self._tick(), **{name: self._text(name) for name in names}}

    def _begin(self, key: str, place: str, by: str, values: dict[str, Any]) -> None:
        old = self.records.get(key)
        record = Record(place, places={place})
        record.edits = {name: [(values.get(name), True, 0)] for name in AUTHORITY}
        if old is not None:
            record.loose = True
            record.places |= old.places
            record.claimed = old.claimed
            if old.alive:  # two beginnings of one key: who wins is for the contest to say
                record.place = old.place if by != CITY else place
        self.records[key] = record
        self.nodes.write(by, key, values)

    def edit(self, key: str, region: str, name: str, *, clear: bool = False) -> None:
        """Somebody edits a field at a node, entitled or not. `clear`: to nothing at all."""
        row = self.nodes.read(region, key)
        if row is None or name not in self.federation.config.dataset(DATASET).fields_at(self.tree[region].level):
            return
        value = None if clear else self._text(name)
        record, level = self.records[key], self.tree[region].level
        if level == AUTHORITY[name]:
            legitimate = self._authority(record, name) == region
            record.edits[name].append((value, legitimate, record.moves))
        self.nodes.write(region, key, {name: value})

    def note(self, key: str, region: str) -> None:
        """Somebody edits the shared field."""
        if self.nodes.read(region, key) is not None:
            self.nodes.write(region, key, {"note": self._text("note"), "at": self._tick()})

    def mislay(self, key: str, region: str, place: str) -> None:
        """Somebody who does not own it changes a record's jurisdiction."""
        if region != CITY and self.nodes.read(region, key) is not None:
            self.nodes.write(region, key, {"place": place})

    def move(self, key: str, place: str) -> None:
        """The city moves a record."""
        row = self.nodes.read(CITY, key)
        if row is None or row["place"] == place:
            return
        record = self.records[key]
        record.place, record.moves = place, record.moves + 1
        record.places.add(place)
        if record.alive is False:
            record.loose = True
        self.nodes.write(CITY, key, {"place": place})

    def delete(self, key: str, region: str) -> None:
        """Somebody deletes a record; only the city may."""
        if self.nodes.read(region, key) is None:
            return
        if region == CITY:
            self.records[key].alive = False
        elif region in self.records[key].claimed and self.nodes.read(CITY, key) is None:
            self.records[key].loose = True  # taken back before it had arrived, or only lost on the way: both may be
        self.nodes.remove(region, key)

    def rule(self, number: int, accept: bool) -> None:
        """Somebody at the authority rules on a correction that waits there."""
        waiting = [c for c in self.federation.services.corrections.active(DATASET) if c.state == "waiting"]
        if not waiting:
            return
        correction = waiting[number % len(waiting)]
        opened = self.federation.services.corrections.open(correction)
        proposed = opened.proposed
        before = self.nodes.read(correction.target or "", correction.key)
        verdict = "accepted" if accept else "rejected"
        ruled = self.federation.rule(correction.correction_id, verdict, "核实", "tester")
        record = self.records.get(correction.key)
        if not accept or record is None:
            return
        if ruled.state == "superseded":  # the authority's own edit is newer than what was proposed
            edited = correction.kind != "edit" or {n: (before or {}).get(n) for n in proposed} != opened.current
            assert edited, f"{correction.key}: nothing had changed"
            return
        if correction.kind in ("create", "delete"):
            record.loose = True
            record.alive = correction.kind == "create"
            return
        if before is None:
            return
        for name, value in proposed.items():
            if name == "place":
                record.place, record.moves = str(value), record.moves + 1
                record.places.add(str(value))
            elif name in AUTHORITY:
                legitimate = self._authority(record, name) == correction.target
                record.edits[name].append((value, legitimate, record.moves))

    def rule_at_the_desk(self, number: int, accept: bool) -> None:
        """Somebody writes a ruling beside a correction that the node shows; a run will take it up."""
        waiting = [c for c in self.federation.services.corrections.active(DATASET) if c.state == "waiting"]
        if not waiting:
            return
        correction = waiting[number % len(waiting)]
        word = "采纳" if accept else "不采纳"
        record = self.records.get(correction.key)
        if not self.nodes.rule(correction.target or "", correction.correction_id, word) or not accept or record is None:
            return
        proposed = self.federation.services.corrections.open(correction).proposed
        if correction.kind in ("create", "delete") or "place" in proposed:
            record.loose = True
        for name in AUTHORITY.keys() & proposed.keys():
            record.accepted.setdefault(name, []).append((proposed[name], len(record.edits[name])))

    def award(self, number: int, challenger: bool) -> None:
        """Somebody at the common parent rules on a contested key."""
        contests = [c for c in self.federation.services.contests.standing(DATASET) if c.state == "open"]
        if contests:
            contest = contests[number % len(contests)]
            winner = contest.challenger if challenger else contest.incumbent
            self.federation.services.contests.rule(contest, winner, "tester", "核实")
            self.records[contest.key].loose = True

    def _authority(self, record: Record, name: str) -> str:
        level = AUTHORITY[name]
        found = self.tree.ancestor(record.place, level)
        assert found is not None
        return found.code

    def _text(self, name: str) -> str:
        number = self._tick()
        return f"{name}{number}{self.endings[number % len(self.endings)]}"

    def _tick(self) -> int:
        self.counter += 1
        return self.counter

    # --- what must hold

    def holders(self, key: str) -> set[str]:
        """The nodes that hold a record."""
        return {region.code for region in self.tree if self.nodes.read(region.code, key) is not None}

    def path(self, place: str) -> set[str]:
        """The nodes of a jurisdiction, from the city down."""
        return {found.code for level in LEVELS if (found := self.tree.ancestor(place, level)) is not None}

    def check_isolation(self) -> None:
        """At any moment: a record stands only where its owners ever put it, and shows only what the level may see."""
        for key, record in self.records.items():
            allowed = {CITY}.union(*(self.path(place) for place in record.places | record.claimed))
            strays = self.holders(key) - allowed
            assert not strays, f"{key} of {record.places} leaked to {strays}"
            for region in self.holders(key):
                row = self.nodes.read(region, key) or {}
                if LEVELS.index(self.tree[region].level) > LEVELS.index("district"):
                    assert row.get("secret") is None, f"{region} sees the secret of {key}"

    def settle(self) -> None:
        """Faults heal and edits stop: sync until nothing moves. An operator releases what a guard holds."""
        for _ in range(8):
            result = self.federation.cascade(DATASET)
            held = [link for link, error in result.errors.items() if isinstance(error, LinkHeld)]
            others = {link: str(error) for link, error in result.errors.items() if link not in held}
            assert not others, others
            for link in held:
                self.federation.services.links.release(link, "tester")
            if not held and not result.restless:
                return
        raise AssertionError("the federation does not come to rest")

    def check(self) -> None:
        """At rest: convergence, no lost update, isolation, idempotence."""
        self.settle()
        self.check_isolation()
        open_ = [c for c in self.federation.services.corrections.active(DATASET) if c.state in ("raised", "waiting")]
        disputed = {contest.key for contest in self.federation.services.contests.standing(DATASET)}
        unruled = {c.key for c in open_ if c.kind in ("create", "delete")}
        # Under `hold`, a record that was awarded against the city's word stays between two places until the city rules on it.
        between = {c.key for c in open_ if self.policy == "hold" and "place" in c.names}
        for key, record in self.records.items():
            row = self.nodes.read(CITY, key)
            if key in between:
                continue
            if key in disputed or key in unruled:
                self._check_copies(key, self.path(str((row or {}).get("place"))) if row else set(), open_)
                continue
            if not record.loose:
                assert (row is not None) == record.alive, f"{key} is {'there' if row else 'gone'}"
            path = self.path(row["place"]) if row else set()
            holders = self.holders(key) - (self._returned_from(key) - path)
            assert holders == path, (key, row)
            if row is None:
                continue
            self._check_copies(key, holders, open_)
            if not record.loose:
                assert row["place"] == record.place
                for name in AUTHORITY:
                    if self._proposes_above(key, name, open_):
                        continue
                    assert row[name] in record.expected(name), (key, name, row[name], record.edits[name])
        again: CascadeResult = self.federation.cascade(DATASET, force_full=True)
        assert (again.moved, again.errors) == (0, {}), "running again changed something"

    def _returned_from(self, key: str) -> set[str]:
        """Where a record stands that its people wrote into another's area before anybody above had it: it is theirs to mend."""
        items = self.federation.services.quarantine.open_items(dataset=DATASET)
        origins = [self.tree[item.origin] for item in items if item.key == key and item.rule == "scope:outside"]
        return {
            region.code
            for region in self.tree
            if any(self.tree.ancestor(region.code, origin.level) == origin for origin in origins)
        }

    def _check_copies(self, key: str, regions: set[str], open_: list[Any]) -> None:
        """Every copy shows the authority's value of every field it may see; under `hold`, but for what it proposes."""
        rows = {region: self.nodes.read(region, key) for region in regions}
        top = rows.get(CITY)
        if top is None:
            return
        for region, row in rows.items():
            if row is None:
                continue
            proposed = {
                name
                for c in open_
                if c.key == key and c.raised_by == region and self.policy == "hold"
                for name in c.names
            }
            for name in FIELDS:
                if name == "secret" and "secret" not in self._visible(region):
                    continue
                if name in proposed or (name not in proposed and self._proposes_above(key, name, open_)):
                    continue
                assert row.get(name) == top.get(name), (key, region, name, row.get(name), top.get(name))

    def _proposes_above(self, key: str, name: str, open_: list[Any]) -> bool:
        """Under `hold` the city itself may show what it proposes to a lower authority."""
        return self.policy == "hold" and any(c.key == key and c.raised_by == CITY and name in c.names for c in open_)

    def _visible(self, region: str) -> tuple[str, ...]:
        return self.federation.config.dataset(DATASET).fields_at(self.tree[region].level)


class Nodes:
    """The nodes' own systems, as their people use them, and the federation that syncs them by `clock`."""

    federation: Any
    clock: Clock

    def read(self, region: str, key: str) -> dict[str, Any] | None:
        """The row that a node holds."""
        raise NotImplementedError

    def write(self, region: str, key: str, values: dict[str, Any]) -> None:
        """Insert a row, or change these fields of it."""
        raise NotImplementedError

    def remove(self, region: str, key: str) -> None:
        """Delete a row."""
        raise NotImplementedError

    def rule(self, region: str, correction_id: str, word: str) -> bool:
        """Write a ruling beside a correction; False if the node does not show it."""
        return False

    def close(self) -> None:
        """Leave nothing behind."""
        raise NotImplementedError


def declare(folder: Path, policy: str, systems: str) -> Path:
    """Write a declaration of the dataset on the given systems and nodes."""
    (folder / "datasets").mkdir(parents=True, exist_ok=True)
    (folder / "regions.csv").write_text(REGIONS, encoding="utf-8")
    (folder / "datasets/item.yaml").write_text(ITEM.format(policy=policy), encoding="utf-8")
    (folder / "federation.yaml").write_text(systems, encoding="utf-8")
    return folder


def memory_systems(prefix: str, capture: str, conditional: bool = True) -> str:
    """Every node keeps the dataset in memory."""
    options = f"{capture}, conditional: {str(conditional).lower()}"
    text = TOP.format(prefix=prefix, **dict.fromkeys(MIXED, options))
    for level in LEVELS:
        text += f"  - {{system: {level}, level: {level}, datasets: {{item: {{}}}}}}\n"
    return text


@cache
def ledger_template() -> Path:
    """The state of a federation with a migrated, empty ledger, to copy for each example: migrating one takes longer."""
    folder = Path(tempfile.mkdtemp(prefix="fedsync_ledger_"))
    declare(folder, "revert", memory_systems(str(folder), "snapshot"))
    open_federation(folder).close()
    return folder / "state"
