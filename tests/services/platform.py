"""A service in the style of many Chinese platforms: HTTP 200 whatever happens, `{"code": …, "msg": …, "data": …}` in each answer,
signed requests, and writes of many records at once.

    GET    /openapi/{name}?current=1&size=20&updateTimeBegin=…&gridCode=…&orderBy=id
    GET    /openapi/{name}/detail/{key}
    POST   /openapi/{name}/saveBatch      {"records": […]}
    POST   /openapi/{name}/removeBatch    {"ids": […]}

saveBatch changes what a record names and creates what is missing. The signature is the hex of HMAC-SHA256 over method, path, sorted
query, timestamp, nonce and the body's SHA-256, joined by line breaks. A nonce counts once, a timestamp five minutes.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from tests.scripted_http import Request, Say
from tests.services.shelf import Document, Held, Shelf

BEIJING = ZoneInfo("Asia/Shanghai")
TIMES = "%Y-%m-%d %H:%M:%S.%f"
LARGEST_PAGE = 100


class Platform:
    """Answers requests. `identify` tells the key of a record or of an entry of `ids`; `busy`: how many requests are turned away
    first; `refuses`: keys of records that it does not take; `silent`: it does not even say which."""

    def __init__(
        self, name: str = "residents", secret: str = "s3cret", identify: Callable[[Any], str] = lambda entry: str(entry)
    ) -> None:
        self.name = name
        self.secret = secret
        self.identify = identify
        self.shelf = Shelf()
        self.nonces: set[str] = set()
        self.busy = 0
        self.refuses: set[str] = set()
        self.silent = False

    def __call__(self, request: Request) -> Say:
        if not self._signed(request):
            return _says(40100, "签名错误")
        if self.busy:
            self.busy -= 1
            return _says(42900, "请求过于频繁，已限流", headers={"Retry-After": "0"})
        match request.method, request.steps:
            case "GET", ["openapi", self.name]:
                return self._page(request.query)
            case "GET", ["openapi", self.name, "detail", key]:
                held = self.shelf.get(key)
                return _ok(_shown(held)) if held else _says(40400, "记录不存在")
            case "POST", ["openapi", self.name, "saveBatch"]:
                return self._save(request.body["records"])
            case "POST", ["openapi", self.name, "removeBatch"]:
                return self._remove(request.body["ids"])
        return _says(50000, "系统异常")

    def _signed(self, request: Request) -> bool:
        sent = {name: request.headers.get(f"X-{name}", "") for name in ("App-Key", "Timestamp", "Nonce", "Signature")}
        query = "&".join(sorted(request.target.partition("?")[2].replace("+", "%20").split("&")))
        digest = hashlib.sha256(request.content).hexdigest()
        text = f"{request.method}\n{request.path}\n{query}\n{sent['Timestamp']}\n{sent['Nonce']}\n{digest}"
        expected = hmac.new(self.secret.encode(), text.encode(), hashlib.sha256).hexdigest()
        fresh = sent["Timestamp"].isdecimal() and abs(time.time() - int(sent["Timestamp"]) / 1000) < 300
        good = fresh and sent["Nonce"] not in self.nonces and hmac.compare_digest(sent["Signature"], expected)
        self.nonces.add(sent["Nonce"])
        return good and sent["App-Key"] == "fedsync"

    def _page(self, query: dict[str, str]) -> Say:
        begin = query.get("updateTimeBegin")
        since = datetime.strptime(begin, TIMES).replace(tzinfo=BEIJING) if begin else None
        found = self.shelf.listed(since, lambda body: query.get("gridCode") in (None, body.get("gridCode")))
        current, size = int(query.get("current", "1")), min(int(query.get("size", "20")), LARGEST_PAGE)
        records = [_shown(held) for held in found[(current - 1) * size : current * size]]
        return _ok({"total": len(found), "current": current, "size": size, "records": records})

    def _save(self, records: list[Document]) -> Say:
        failures = [record for record in records if self.identify(record) in self.refuses]
        for record in records:
            if record not in failures:
                self.shelf.put(self.identify(record), record)
        return self._told(len(records) - len(failures), failures)

    def _remove(self, ids: list[Any]) -> Say:
        failures = [entry for entry in ids if self.identify(entry) in self.refuses]
        for entry in ids:
            if entry not in failures:
                self.shelf.drop(self.identify(entry))
        return self._told(len(ids) - len(failures), failures)

    def _told(self, success: int, failures: list[Any]) -> Say:
        return _ok({"success": success, "failures": [] if self.silent else failures})


def _ok(data: Any) -> Say:
    return _says(0, "操作成功", data)


def _says(code: int, msg: str, data: Any = None, headers: Mapping[str, str] = {}) -> Say:
    return Say(200, {"code": code, "msg": msg, "data": data}, dict(headers))


def _shown(held: Held) -> Document:
    return {**held.body, "updateTime": held.changed.astimezone(BEIJING).strftime(TIMES)}
