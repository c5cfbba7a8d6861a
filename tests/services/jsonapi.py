"""A service in the style of JSON:API: resources with attributes, links between pages, ETags in headers, OAuth2 client credentials.

    POST   /oauth/token
    GET    /{type}?filter[community]=…&filter[since]=…&page[size]=…&page[number]=…
    POST   /{type}
    GET | PATCH | DELETE  /{type}/{id}

PATCH changes the attributes that it names and creates nothing. If-Match is obeyed on PATCH and DELETE.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import quote, unquote_plus, urlencode

from tests.scripted_http import Request, Say
from tests.services.shelf import Document, Held, Shelf

MEDIA = "application/vnd.api+json"
LARGEST_PAGE = 100


class JsonApi:
    """Answers requests; `identify` tells the id of a resource that is created without one."""

    def __init__(
        self, kind: str = "residents", secret: str = "s3cret", identify: Callable[[Document], str] = lambda _: ""
    ) -> None:
        self.kind = kind
        self.secret = secret
        self.identify = identify
        self.shelf = Shelf()
        self.tokens: set[str] = set()
        self.issued = 0

    def __call__(self, request: Request) -> Say:
        if request.steps == ["oauth", "token"]:
            return self._token(request)
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            return _refusal(401, "invalid token")
        if request.body is not None and request.headers.get("Content-Type") != MEDIA:
            return _refusal(415, "unsupported media type")
        match request.method, request.steps:
            case "GET", [self.kind]:
                return self._list(request)
            case "POST", [self.kind]:
                return self._create(request)
            case (("GET" | "PATCH" | "DELETE"), [self.kind, name]):
                return self._item(request, name)
        return _refusal(404, "no such resource")

    def _token(self, request: Request) -> Say:
        given = base64.b64decode(request.headers.get("Authorization", "").removeprefix("Basic ")).decode()
        client, _, secret = given.partition(":")
        if (unquote_plus(client), unquote_plus(secret)) != ("fedsync", self.secret):
            return Say(401, {"error": "invalid_client", "error_description": f"{given} is wrong"})
        if request.form.get("grant_type") != "client_credentials" or request.form.get("scope") != "residents":
            return Say(400, {"error": "invalid_scope"})
        self.issued += 1
        self.tokens.add(f"token-{self.issued}")
        return Say(200, {"access_token": f"token-{self.issued}", "token_type": "Bearer", "expires_in": 3600})

    def _list(self, request: Request) -> Say:
        query = request.query
        since = datetime.fromisoformat(query["filter[since]"]) if "filter[since]" in query else None
        community = query.get("filter[community]")
        found = self.shelf.listed(since, lambda body: community in (None, body.get("attributes", {}).get("community")))
        size, number = min(int(query.get("page[size]", "20")), LARGEST_PAGE), int(query.get("page[number]", "1"))
        links: dict[str, Any] = {"next": None}
        if number * size < len(found):
            links["next"] = f"/{self.kind}?" + urlencode({**query, "page[size]": size, "page[number]": number + 1})
        return Say(200, {"data": [_shown(held) for held in found[(number - 1) * size : number * size]], "links": links})

    def _create(self, request: Request) -> Say:
        data = request.body["data"]
        name = str(data.get("id") or self.identify(data))
        with self.shelf.alone():
            if data.get("type") != self.kind or self.shelf.get(name):
                return _refusal(409, "wrong type, or the id is taken")
            held = self.shelf.put(name, data)
        return Say(201, {"data": _shown(held)}, {"ETag": _etag(held), "Location": f"/{self.kind}/{quote(name)}"})

    def _item(self, request: Request, name: str) -> Say:
        with self.shelf.alone():
            held = self.shelf.get(name)
            if held is None:
                return _refusal(404, "no such resource")
            if request.method == "GET":
                return Say(200, {"data": _shown(held)}, {"ETag": _etag(held)})
            if request.headers.get("If-Match", _etag(held)) != _etag(held):
                return _refusal(412, "the resource was changed")
            if request.method == "DELETE":
                self.shelf.drop(name)
                return Say(204)
            data = request.body["data"]
            if data.get("type") != self.kind or str(data.get("id", name)) != name:
                return _refusal(409, "type or id differ from the address")
            held = self.shelf.put(name, data)
        return Say(200, {"data": _shown(held)}, {"ETag": _etag(held)})


def _etag(held: Held) -> str:
    return f'"{held.version}"'


def _shown(held: Held) -> Document:
    return {**held.body, "meta": {"modified": held.changed.isoformat()}}


def _refusal(status: int, title: str) -> Say:
    return Say(status, {"errors": [{"status": str(status), "title": title}]})
