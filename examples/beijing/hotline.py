"""Sample: the city's hotline platform (12345), which keeps the work orders (工单) in its own way.

    GET    /api/v1/orders?page=1&size=50&updated_since=<ISO 8601>&sort=order_no|updated_at
    GET | PUT | PATCH | DELETE  /api/v1/orders/{order_no}
    GET    /api/v1/state

Every answer is `{"code": 0, "msg": "ok", "data": …}`. PUT replaces an order, PATCH changes what it names; both create it.
`updated_at` is the server's and cannot be written. At most 100 orders a page, whatever is asked for.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from examples.beijing.http_platform import Platform, Reply, number

ORDERS = "orders"
LARGEST_PAGE = 100
GROUPS = ("caller", "dispatch", "handling")
_BEIJING = ZoneInfo("Asia/Shanghai")
_EPOCH = datetime.fromtimestamp(0, UTC)


class Hotline(Platform):
    """See the module."""

    name = "hotline"
    token_variable = "HOTLINE_TOKEN"

    def answer(self, method: str, path: list[str], query: dict[str, str], body: Any) -> Reply:
        match method, path:
            case "GET", ["api", "v1", "state"]:
                return _ok({"version": self.records.version})
            case "GET", ["api", "v1", "orders"]:
                return self._list(query)
            case _, ["api", "v1", "orders", order_no]:
                return self._item(method, order_no, body)
        return Reply(404, self.refusal(404, "接口不存在 / no such endpoint"))

    def refusal(self, status: int, text: str) -> Any:
        return {"code": status, "msg": text, "data": None}

    def _list(self, query: dict[str, str]) -> Reply:
        size = number(query, "size", 20, least=1, most=LARGEST_PAGE)
        page = number(query, "page", 1, least=1, most=10**9)
        sort = query.get("sort", "order_no")
        if sort not in ("order_no", "updated_at"):
            raise ValueError("sort: order_no | updated_at")
        since = _moment(query["updated_since"]) if query.get("updated_since") else 0
        found, total = self.records.page(
            ORDERS, offset=(page - 1) * size, limit=size, since=since, by_change=sort == "updated_at"
        )
        return _ok({"total": total, "items": [_shown(key, order, changed) for key, order, changed in found]})

    def _item(self, method: str, order_no: str, body: Any) -> Reply:
        known = self.records.get(ORDERS, order_no)
        if method in ("PUT", "PATCH"):
            self.records.put(ORDERS, order_no, _checked(order_no, body), merge=method == "PATCH")
            written = self.records.get(ORDERS, order_no)
            # Gone again already: somebody deleted it between the two steps, and the write did happen.
            shown = _shown(order_no, *written) if written else None
            return Reply(200 if known else 201, {"code": 0, "msg": "ok", "data": shown})
        if method not in ("GET", "DELETE"):
            return Reply(405, self.refusal(405, "不支持的方法 / method not allowed"))
        if known is None or (method == "DELETE" and not self.records.delete(ORDERS, order_no)):
            return Reply(404, self.refusal(404, "工单不存在 / no such order"))
        return _ok(_shown(order_no, *known) if method == "GET" else None)


def _ok(data: Any) -> Reply:
    return Reply(200, {"code": 0, "msg": "ok", "data": data})


def _shown(order_no: str, order: dict[str, Any], changed: int) -> dict[str, Any]:
    moment = (_EPOCH + timedelta(microseconds=changed)).astimezone(_BEIJING)
    return {"order_no": order_no, **order, "updated_at": moment.isoformat(timespec="microseconds")}


def _checked(order_no: str, body: Any) -> dict[str, Any]:
    """An order as it may be stored. Raises ValueError, which is answered 400."""
    if not isinstance(body, dict):
        raise ValueError("应为 JSON 对象 / must be a JSON object")
    if body.get("order_no", order_no) != order_no:
        raise ValueError("order_no 与地址不符 / order_no differs from the address")
    for name in GROUPS:
        if not isinstance(body.get(name, {}), dict):
            raise ValueError(f"{name}: 应为对象 / must be an object")
    return {name: value for name, value in body.items() if name not in ("order_no", "updated_at")}


def _moment(text: str) -> int:
    found = datetime.fromisoformat(text)
    aware = found if found.tzinfo else found.replace(tzinfo=_BEIJING)
    return (aware - _EPOCH) // timedelta(microseconds=1)
