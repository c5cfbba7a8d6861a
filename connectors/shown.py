"""The shapes of what a node's people are shown: returns and corrections."""

from __future__ import annotations

import pyarrow as pa

from federation import canonical
from federation.contract import Dataset


def returns_schema(dataset: Dataset) -> pa.Schema:
    """Returns (退回): one line for each rule that a record failed, in texts for people.

    Key columns (typed, null where unreadable) + `canonical.REJECTS`: `field` may be null, `value` is the node's own present one, or null.
    `return_id` (32 hex digits). `hop`: where it stopped, by the names of the regions. `since`: when it was first set aside (UTC).
    `state`: `open`, `replay` (to be judged again with the next run), `closed`.
    """
    return pa.schema(
        [
            *canonical.reject_schema(dataset),
            ("return_id", pa.string()),
            ("hop", pa.string()),
            ("since", pa.timestamp("us", "UTC")),
            ("state", pa.string()),
        ]
    )


def correction_schema(dataset: Dataset) -> pa.Schema:
    """The corrections shown at a node: one line for each, in texts for people.

    `correction_id` (32 hex digits); the key columns, typed; `kind` (`edit`, `create`, `delete`); `field`: labels of the fields
    concerned; `current`, `proposed`: their values, a line of text per field; `raised_by`: region; `raised`: when (UTC);
    `due`: the day by which a ruling is owed; `state`: `waiting` is for this node's people to rule on, all others
    (`travelling`, `overdue`, `accepted`, `rejected`, `superseded`, `withdrawn`) tell what became of what they proposed;
    `reason`: of the ruling. The system adds two columns for people, `ruling` and `ruling_reason`, empty at first; they may
    fill them in where the state is `waiting` or `overdue`.
    """
    texts = ("kind", "field", "current", "proposed", "raised_by")
    return pa.schema(
        [
            ("correction_id", pa.string()),
            *canonical.schema(dataset, dataset.key),
            *((name, pa.string()) for name in texts),
            ("raised", pa.timestamp("us", "UTC")),
            ("due", pa.date32()),
            ("state", pa.string()),
            ("reason", pa.string()),
        ]
    )
