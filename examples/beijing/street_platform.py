"""Sample: a street's platform, which keeps several datasets in the same plain way.

    GET    /api/{dataset}?offset=0&limit=50&modified_since=<milliseconds since 1970>
    GET    /api/{dataset}?only=keys&offset=0&limit=50
    GET | PATCH | DELETE  /api/{dataset}/{key}
    GET    /api/{dataset}/-/state
    GET | PUT  /api/{dataset}/-/returns     what was handed back to the street (退回), a list that PUT replaces

A list is `{"records": […], "count": n}`, ordered by key; an item is the bare record. PATCH changes what it names and creates
what is missing. `modified` is the server's and cannot be written. At most 200 records an answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from examples.beijing.http_platform import Faults, Platform, Reply, number

DATASETS = ("residents", "visits", "facilities", "work-orders")
LARGEST_LIMIT = 200


class StreetPlatform(Platform):
    """See the module. `datasets`: the collections that it has."""

    name = "street_platform"
    token_variable = "STREET_TOKEN"

    def __init__(
        self,
        folder: Path,
        token: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        faults: Faults = Faults(),
        datasets: tuple[str, ...] = DATASETS,
    ) -> None:
        self.datasets = datasets
        self.returns: dict[str, list[Any]] = {}
        super().__init__(folder, token, host=host, port=port, faults=faults)

    def answer(self, method: str, path: list[str], query: dict[str, str], body: Any) -> Reply:
        match path:
            case ["api", dataset, *rest] if dataset in self.datasets:
                pass
            case _:
                return Reply(404, self.refusal(404, "接口不存在 / no such endpoint"))
        match method, rest:
            case "GET", []:
                return self._list(dataset, query)
            case "GET", ["-", "state"]:
                return Reply(200, {"version": self.records.version})
            case "GET", ["-", "returns"]:
                return Reply(200, {"returns": self.returns.get(dataset, [])})
            case "PUT", ["-", "returns"] if isinstance(body, list):
                self.returns[dataset] = body
                return Reply(200, {"ok": True})
            case "GET", [key]:
                known = self.records.get(dataset, key)
                return Reply(200, _shown(*known)) if known else self._absent()
            case "PATCH", [key]:
                new = self.records.put(dataset, key, _checked(body), merge=True)
                return Reply(201 if new else 200, {"ok": True})
            case "DELETE", [key]:
                return Reply(200, {"ok": True}) if self.records.delete(dataset, key) else self._absent()
        return Reply(405, self.refusal(405, "不支持的方法 / method not allowed"))

    def _list(self, dataset: str, query: dict[str, str]) -> Reply:
        found, total = self.records.page(
            dataset,
            offset=number(query, "offset", 0, least=0, most=10**9),
            limit=number(query, "limit", 50, least=1, most=LARGEST_LIMIT),
            since=number(query, "modified_since", 0, least=0, most=10**15) * 1000,
        )
        only_keys = query.get("only") == "keys"
        records = [key if only_keys else _shown(record, changed) for key, record, changed in found]
        return Reply(200, {"records": records, "count": total})

    def _absent(self) -> Reply:
        return Reply(404, self.refusal(404, "记录不存在 / no such record"))


def _shown(record: dict[str, Any], changed: int) -> dict[str, Any]:
    return {**record, "modified": changed // 1000}


def _checked(body: Any) -> dict[str, Any]:
    """A record as it may be stored. Raises ValueError, which is answered 400."""
    if not isinstance(body, dict):
        raise ValueError("应为 JSON 对象 / must be a JSON object")
    return {name: value for name, value in body.items() if name != "modified"}
