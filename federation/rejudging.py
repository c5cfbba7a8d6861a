"""Quarantined records whose verdict may change though nobody touched them: a check asked for more than the record itself."""

from __future__ import annotations

from collections.abc import Iterator

from federation.contract import Dataset
from federation.ledger.quarantine import Item
from federation.services import Services


def undecided(services: Services, dataset: str, link_id: str | None = None) -> Iterator[Item]:
    """Open items of rules that ask for more than the record: each run of their link judges them anew."""
    gate = services.gates[dataset]
    asking = gate.asking if gate is not None else {}
    if asking:
        yield from (
            item
            for item in services.quarantine.open_items(dataset=dataset, link_id=link_id)
            if item.rule in asking and item.direction in ("up", "down")
        )


def awaking(services: Services, contract: Dataset) -> set[str]:
    """The links with an item whose verdict may be another by now: the dataset that it refers to moved at its node, or a day is over."""
    gate, today = services.gates[contract.name], services.now().date()
    found = set()
    for item in undecided(services, contract.name):
        assert gate is not None
        other = gate.asking[item.rule]
        late = item.last_seen.astimezone(services.now().tzinfo).date() < today
        if late or (other is not None and _moved(services, other, item)):
            found.add(item.link_id)
    return found


def _moved(services: Services, dataset: str, item: Item) -> bool:
    below = [link.id for link in services.config.links(dataset, item.origin)]
    states = services.links.states([f"{dataset}/{item.origin}", *below]).values()
    return any(state.last_moved is not None and state.last_moved > item.last_seen for state in states)
