"""A file on a real WebDAV server keeps the contract; people's programs rewrite it on the server's own disk."""

from __future__ import annotations

import json
import shutil
import tempfile
from datetime import datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any

from cheroot.wsgi import Server
from wsgidav.wsgidav_app import WsgiDAVApp

from connectors.base import Connector
from connectors.webdav import WebdavConnector
from tests.contract.dataset import make_node
from tests.contract.suite import ConnectorContract, Row

USER, PASSWORD = "engine", "口令"


@cache
def webdav_server() -> tuple[Path, str]:
    """WsgiDAV on a port of its own, serving a folder to one user: the folder and its address. It ends with the process."""
    folder = Path(tempfile.mkdtemp(prefix="fedsync_webdav_"))
    app = WsgiDAVApp(
        {
            "provider_mapping": {"/": str(folder)},
            "simple_dc": {"user_mapping": {"*": {USER: {"password": PASSWORD}}}},
            "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
            "logging": {"enable": False},
            "verbose": 0,
        }
    )
    server = Server(("127.0.0.1", 0), app)
    server.prepare()
    Thread(target=server.serve, daemon=True).start()
    return folder, f"http://127.0.0.1:{server.bind_addr[1]}"


class TestWebdav(ConnectorContract):
    def start(self) -> None:
        self.root, self.url = webdav_server()
        (self.root / self.folder.name).mkdir()

    def stop(self) -> None:
        shutil.rmtree(self.root / self.folder.name)

    @property
    def path(self) -> Path:
        return self.root / self.folder.name / "台账.jsonl"

    def connector(self) -> Connector:
        url = f"{self.url}/{self.folder.name}/台账.jsonl"
        return WebdavConnector(make_node(self.dataset, {"url": url, "user": USER, "password": PASSWORD}))

    def people_write(self, rows: list[Row]) -> None:
        records = self.stored()
        for values in rows:
            given = {name: _member(name, value) for name, value in values.items()}
            key = [given[name] for name in self.dataset.key]
            known = [found for found in records if [found.get(name) for name in self.dataset.key] == key]
            if known:
                known[0].update(given)
            else:
                records.append({**dict.fromkeys(self.dataset.fields), **given})
        self._save(records)

    def people_delete(self, key: Row) -> None:
        self._save([found for found in self.stored() if any(found[name] != value for name, value in key.items())])

    def stored(self) -> list[Row]:
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").split("\n") if line]

    def _save(self, records: list[Row]) -> None:
        text = "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records)
        self.path.write_text(text, encoding="utf-8")


def _member(name: str, value: Any) -> Any:
    if isinstance(value, datetime) or hasattr(value, "isoformat"):
        return value.isoformat()
    if name == "extra" and value is not None:
        return json.loads(value)
    return str(value) if isinstance(value, Decimal) else value
