"""Returns (退回): which region's people can mend what a gate stopped, and what they are shown of it.

The reason travels back to where the value came from, over as many hops as it came: to the node of the authority of the failing field;
for a shared value, and for one that a node of another level brought along with a new record, to the node that the ledger proves it
came from, hop by hop; else to the end of the link that offered it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from connectors.base import Connector, returns_schema
from federation.canonical import key_table, schema
from federation.config import Link
from federation.contract import SHARED, Dataset
from federation.gate_suite import Rule
from federation.ledger import receipts
from federation.ledger.baselines import Manifest
from federation.ledger.quarantine import OPEN, Item, Quarantine
from federation.proposals import prints_of
from federation.reading import KEY
from federation.regions import Region, RegionTree

if TYPE_CHECKING:
    from federation.services import Services

UNSEEN_ZH = "该记录与上下级所持的其他信息不一致，未通过规则“{rule}”；请联系上级核对"
UNSEEN_EN = (
    "the record does not agree with what other levels hold and fails the rule {rule}; ask the level above to look at it"
)
"""Shown instead of a reason that quotes a field which the level may not see."""


@dataclass
class Origins:
    """Finds where the records of one link came from. `rules`: of the gate, by name. `keys`: the records that it is asked about."""

    services: Services
    link: Link
    rules: Mapping[str, Rule]
    keys: pa.Array
    _known: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    _proven: dict[tuple[str, int], set[str]] = field(default_factory=dict)

    def quoted(self, rule: str) -> tuple[str, ...]:
        """The fields whose values a rule's reason quotes."""
        found = self.rules[rule]
        parts = [*found.zh.parts, *found.en.parts]
        return tuple(dict.fromkeys(part[0] for part in parts if not isinstance(part, str)))

    def of(self, direction: str, rule: str, row: Mapping[str, Any]) -> Region:
        """The region whose people can mend this record, which `direction` was about to deliver."""
        near = self.link.upper if direction == "down" else self.link.lower
        fields = self.rules[rule].needs
        for name in fields:
            level = self._dataset.fields[name].authority
            if level == SHARED:
                return self._came_from(direction, near, name, row)
            owner = self._owner(direction, near, level, row)
            if owner is not None:
                return owner
        return self._came_from(direction, near, fields[0], row)

    def _owner(self, direction: str, near: Region, level: str, row: Mapping[str, Any]) -> Region | None:
        """The node of an authority, if the record comes from its side."""
        tree = self._tree
        if level not in self._dataset.levels:
            return None
        if direction == "down":
            return tree.ancestor(near.code, level)
        owner = tree.ancestor(str(row.get(self._dataset.jurisdiction)), level)
        return owner if owner is not None and tree.ancestor(owner.code, near.level) == near else None

    def _came_from(self, direction: str, near: Region, name: str, row: Mapping[str, Any]) -> Region:
        """The last node, away from this link, that the receipts prove a field's value to have come from."""
        group, key = self.link.contract.group_of(name), row[KEY]
        if group is None:
            return near
        kept = schema(self._dataset, list(dict.fromkeys([*self._dataset.key, *group.fields])))
        rows = pa.Table.from_pylist([dict(row)], pa.schema([pa.field(KEY, pa.string()), *kept]))
        now = prints_of(rows, self._dataset, group.fields, self.services.keyring.fingerprint).get(key)
        at = near
        while now is not None:
            step = self._step(direction, at, row)
            if step is None or not self._brought(step[0], group.name, key, now, at):
                break
            at = step[1]
        return at

    def _step(self, direction: str, at: Region, row: Mapping[str, Any]) -> tuple[Link, Region] | None:
        """The next link away from ours on the record's path, and the region at its far end."""
        dataset, tree, config = self._dataset, self._tree, self.services.config
        if direction == "down":
            if dataset.upper_of(at.level) is None:
                return None
            link = config.link(dataset.name, at.code)
            return link, link.upper
        below = dataset.lower_of(at.level)
        child = tree.ancestor(str(row.get(dataset.jurisdiction)), below) if below is not None else None
        if child is None or tree.ancestor(child.code, at.level) != at:
            return None
        return config.link(dataset.name, child.code), child

    def _brought(self, link: Link, group: str, key: str, now: bytes, at: Region) -> bool:
        """Whether that link agreed on this very value in a run that delivered to `at` and not to its other end."""
        if link.id not in self._known:
            self._known[link.id] = self._agreed(link)
        held = self._known[link.id].get(key)
        if held is None or held.get(f"fp_{group}") != now or held["at"] is None:
            return False
        place = (link.id, held["at"])
        if place not in self._proven:
            with self.services.ledger.transaction() as connection:
                proof = receipts.proofs(connection, {link.id: held["at"]})[link.id]
            self._proven[place] = {receipt.region for receipt in proof.receipts}
        return self._proven[place] == {at.code}

    def _agreed(self, link: Link) -> dict[str, dict[str, Any]]:
        """What that link agreed on of the records that are asked about, by key."""
        state = self.services.links.states([link.id]).get(link.id)
        if state is None:
            return {}
        manifest, meanings = Manifest.parse(state.baseline), self.services.meanings(link.contract)
        held = self.services.baselines.pick(manifest, meanings, self.keys, timed=True)
        return {line["key"]: line for line in held.to_pylist()}

    @property
    def _dataset(self) -> Dataset:
        return self.link.contract.dataset

    @property
    def _tree(self) -> RegionTree:
        return self.services.config.tree


class ReturnDesk:
    """The returns of one node: what its people are to mend, wherever on its way the record was stopped."""

    def __init__(self, quarantine: Quarantine, tree: RegionTree, dataset: Dataset, region: Region) -> None:
        self.quarantine = quarantine
        self.dataset = dataset
        self.region = region
        self._tree = tree

    def items(self) -> list[Item]:
        """What is to be told here: all that stands, and once what was shown and has ended since."""
        return self.quarantine.returned_to(self.dataset.name, self.region.code)

    def show(self, connector: Connector, *, changed: bool) -> None:
        """Tell the node's people what stands, where its system can. `changed`: also if that is nothing."""
        items, shows = self.items(), connector.capabilities.returns
        if shows and (items or changed):
            connector.show_returns(self.shown(items))
        self.quarantine.told(items, shown=shows)

    def shown(self, items: Sequence[Item]) -> pa.Table:
        """What `Connector.show_returns` takes."""
        wanted = returns_schema(self.dataset)
        if not items:
            return wanted.empty_table()
        keys = key_table([None if item.rule == "key:missing" else item.key for item in items], self.dataset)
        lines = pa.Table.from_pylist([self._line(item) for item in items], wanted)
        for name in self.dataset.key:
            lines = lines.set_column(wanted.get_field_index(name), wanted.field(name), keys.column(name))
        return lines.cast(wanted)

    def _line(self, item: Item) -> dict[str, Any]:
        opened = self.quarantine.open(item)
        sees = set(self.dataset.fields_at(self.region.level))
        named = item.field if item.field in sees else None
        value = opened.record.get(item.field or "", opened.record.get("value"))
        own = named is not None or item.direction == "read"
        hidden = not sees.issuperset(name for name in opened.fields if name in self.dataset.fields)
        return {
            "return_id": item.item_id,
            "locator": opened.record.get("locator"),
            "field": named,
            "value": str(value) if value is not None and own else None,
            "rule": item.rule,
            "reason_zh": UNSEEN_ZH.format(rule=item.rule) if hidden else opened.reason_zh,
            "reason_en": UNSEEN_EN.format(rule=item.rule) if hidden else opened.reason_en,
            "hop": hop_of(item, self.dataset, self._tree),
            "since": item.first_seen,
            "state": item.state if item.state in OPEN else "closed",
        }


def hop_of(item: Item, dataset: Dataset, tree: RegionTree) -> str:
    """Where an item was stopped: the names of the two regions in the direction it went; of one, if its node could not be read."""
    code = item.link_id.rsplit("/", 1)[1]
    if code not in tree or tree[code].level not in dataset.levels:
        return code  # no longer declared
    there = tree[code]
    if item.direction == "read":
        return there.name
    above = dataset.upper_of(there.level)
    parent = tree.ancestor(there.code, above) if above else None
    names = [there.name, parent.name if parent else ""]
    return " → ".join(names if item.direction == "up" else names[::-1])


def way_back(item: Item, dataset: Dataset, tree: RegionTree) -> tuple[Region, ...]:
    """The regions that a return passes on its way from where the record stopped to its origin, this one last."""
    code = item.link_id.rsplit("/", 1)[1]
    if any(name not in tree or tree[name].level not in dataset.levels for name in (code, item.origin)):
        return ()  # no longer declared
    there, origin = tree[code], tree[item.origin]
    if item.direction == "down":
        levels = _between(dataset, origin.level, there.level)
        regions = [tree.ancestor(there.code, level) for level in reversed(levels)]
        return tuple(region for region in regions if region is not None and region != there)
    regions = [tree.ancestor(origin.code, level) for level in _between(dataset, there.level, origin.level)]
    return tuple(region for region in regions if region is not None)


def _between(dataset: Dataset, upper: str, lower: str) -> tuple[str, ...]:
    """The dataset's levels from one to another, both included, top down."""
    return dataset.levels[dataset.levels.index(upper) : dataset.levels.index(lower) + 1]
