"""What a person asks of one quarantined record: to judge it anew, or to close it where no run will ever read it again.

A region or dataset that leaves the declaration takes its links along, and no run is left that could release what they set aside. A
person closes it, and answers for it. Should the link be declared again, its next run compares all keys, and so finds what still fails.
"""

from __future__ import annotations

import json

from federation.config import Config
from federation.errors import DeclarationError, FedsyncError
from federation.ledger.quarantine import Item, must_be_open
from federation.services import Services

UNDECLARED = "链路已不在声明中 / link no longer declared"


def declared(config: Config, item: Item) -> bool:
    """Whether the link (or node) that set a record aside is still declared."""
    region = item.link_id.rpartition("/")[2]
    try:
        if item.direction == "read":
            config.binding(item.dataset, region)
        else:
            config.link(item.dataset, region)
    except DeclarationError:
        return False
    return True


def must_be_declared(config: Config, item: Item) -> None:
    """Raise FedsyncError for a record that no run will read."""
    if not declared(config, item):
        raise FedsyncError(
            "its link is no longer declared, so no run will read the record",
            "链路已不在声明中，不会再有运行读取该记录",
            todo="fedsync quarantine close，或把该区划、数据集加回声明 / close it, or declare its region and dataset again",
            **item.where,
        )


def replay(services: Services, prefix: str, actor: str) -> Item:
    """Ask the link's next run to judge a record anew. Raises FedsyncError if it is set aside no more, or no run will read it."""
    item = services.quarantine.find(prefix)
    must_be_declared(services.config, item)
    services.quarantine.replay(item, actor)
    return item


def close(services: Services, prefix: str, *, by: str, reason: str, actor: str) -> Item:
    """End a record that no run will end; its content is kept as long as any other's. `by`: who answers for it. `actor`: who entered it.

    Raises FedsyncError if it is set aside no more, or its link is declared.
    """
    item = services.quarantine.find(prefix)
    must_be_open(item)
    if declared(services.config, item):
        raise FedsyncError(
            "its link is declared: the record is released once it is mended",
            "链路仍在声明中，改正后会自动解除",
            todo="请在来源处改正，或 fedsync quarantine waive / have it mended where it came from, or waive it",
            **item.where,
        )
    with services.ledger.transaction() as connection:
        services.quarantine.close(connection, item)
        services.links.compare_all(connection, item.link_id)
        detail = json.dumps({"by": by, "reason": reason}, ensure_ascii=False)
        services.ledger.audit(connection, actor, "quarantine.close", item.item_id, detail)
    return services.quarantine.find(item.item_id)
