"""A service in the style of OData 4: filter expressions, key predicates, ETags in the records, an API key.

    GET    /odata/{name}?$filter=…&$orderby=…&$select=…&$top=…&$skip=…&$count=true
    GET | PATCH | DELETE  /odata/{name}('R1')   or   (id='A',no=1)

PATCH changes what it names and creates what is missing. If-Match and If-None-Match: * are obeyed on PATCH and DELETE. A page holds at
most 100 records; where there are more, `@odata.nextLink` leads on.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any
from urllib.parse import unquote, urlencode

from tests.scripted_http import Request, Say
from tests.services.shelf import Document, Held, Shelf

LARGEST_PAGE = 100
_COMPARED = re.compile(r"(\w+) (eq|ge) (?:'((?:[^']|'')*)'|(\S+))")


class OData:
    """Answers requests. `keys`: the names of the key's columns."""

    def __init__(self, name: str = "Residents", api_key: str = "k3y-1234", keys: tuple[str, ...] = ("Id",)) -> None:
        self.name = name
        self.api_key = api_key
        self.keys = keys
        self.shelf = Shelf()

    def __call__(self, request: Request) -> Say:
        if request.headers.get("X-Api-Key") != self.api_key:
            return _refusal(401, "Unauthorized")
        found = re.fullmatch(rf"/odata/{self.name}(?:\((.+)\))?", unquote(request.path))
        if found is None:
            return _refusal(404, "ResourceNotFound")
        if found[1] is None:
            return self._list(request) if request.method == "GET" else _refusal(405, "MethodNotAllowed")
        key = self._key(found[1])
        return _refusal(400, "BadKey") if key is None else self._item(request, key)

    def key_of(self, values: Document) -> str:
        """The key under which a record stands on the shelf."""
        return ",".join(str(values.get(name)) for name in self.keys)

    def _key(self, predicate: str) -> str | None:
        """The shelf's key from a key predicate; None if it is none."""
        part = r"(?:'(?:[^']|'')*'|-?\d+)"
        if len(self.keys) == 1:
            named = [predicate] if re.fullmatch(part, predicate) else []
        else:
            pattern = ",".join(f"{name}=({part})" for name in self.keys)
            found = re.fullmatch(pattern, predicate)
            named = list(found.groups()) if found else []
        return ",".join(text[1:-1].replace("''", "'") if text[0] == "'" else text for text in named) if named else None

    def _list(self, request: Request) -> Say:
        query = request.query
        since, equal = None, {}
        for name, operator, text, bare in _COMPARED.findall(query.get("$filter", "")):
            if operator == "ge":
                since = datetime.fromisoformat(bare)
            else:
                equal[name] = (text or bare).replace("''", "'")
        found = self.shelf.listed(since, lambda body: all(body.get(name) == value for name, value in equal.items()))
        skip = int(query.get("$skip", "0"))
        top = min(int(query.get("$top", "10000")), LARGEST_PAGE)
        page = found[skip : skip + top]
        picked = query.get("$select", "").split(",") if "$select" in query else None
        answer: Document = {
            "@odata.context": f"$metadata#{self.name}",
            "value": [_shown(held, picked) for held in page],
        }
        if query.get("$count") == "true":
            answer["@odata.count"] = len(found)
        if skip + top < len(found):
            answer["@odata.nextLink"] = f"{self.name}?" + urlencode({**query, "$skip": skip + top})
        return Say(200, answer)

    def _item(self, request: Request, key: str) -> Say:
        with self.shelf.alone():
            held = self.shelf.get(key)
            wanted, new = request.headers.get("If-Match"), request.headers.get("If-None-Match")
            if request.method != "GET" and ((wanted and (held is None or wanted != _etag(held))) or (new and held)):
                return _refusal(412, "PreconditionFailed")
            if request.method == "PATCH":
                held = self.shelf.put(key, {name: value for name, value in request.body.items() if name[0] != "@"})
                return Say(204, headers={"ETag": _etag(held), "OData-EntityId": request.path})
            if held is None:
                return _refusal(404, "ResourceNotFound")
            if request.method == "DELETE":
                self.shelf.drop(key)
                return Say(204)
            return Say(200, _shown(held, None), {"ETag": _etag(held)})


def _etag(held: Held) -> str:
    return f'W/"{held.version}"'


def _shown(held: Held, picked: list[str] | None) -> Document:
    whole: dict[str, Any] = {**held.body, "Modified": held.changed.isoformat()}
    shown = whole if picked is None else {name: whole.get(name) for name in picked}
    return {"@odata.etag": _etag(held), **shown}


def _refusal(status: int, code: str) -> Say:
    return Say(status, {"error": {"code": code, "message": code}})
