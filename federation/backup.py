"""Backup and restore (备份与恢复) of what the engine keeps: the ledger, the baselines that it points to, the hosted records.

A backup may be taken while syncs run: the ledger is read at one moment, and the baseline files that it names are immutable and stay for
a day after they were replaced. Hosted records are people's data, and are copied last.

Putting an **older** backup back is safe: the nodes went on, so afterwards each link compares both ends in full with what it agreed on
then. What both ends hold by now is agreed on anew; where they differ, the authority's value goes on, and the other is proposed to it
as a correction (docs/deployment.md says what cannot be known). A runner that still worked on the former ledger settles nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, Engine, MetaData, Table, func, select, update

from federation.errors import AccessDenied, FedsyncError, LeaseHeld, Unreadable
from federation.ledger import schema
from federation.ledger.baselines import Manifest
from federation.ledger.links import working
from federation.ledger.snapshot import dump, put_back, snapshot, tables_of
from federation.ledger.store import HEAD
from federation.services import Services
from federation.storage import Storage

ABOUT = "backup.json"
"""The file that is written last: a folder without it is no backup."""


@dataclass(frozen=True)
class Backup:
    """What a backup holds. `rows`: table → rows; `files`: baseline files → sha256; `check`: of the secret, not the secret itself."""

    name: str
    taken: str
    revision: str
    check: str
    rows: dict[str, int]
    hosted: dict[str, int]
    files: dict[str, str]


@dataclass(frozen=True)
class Hosted:
    """The database of hosted records. `there`: whether anything was ever kept in it. `renew`: what follows when tables were put back."""

    engine: Engine
    there: bool
    metadata: MetaData
    renew: Callable[[Connection], None]


class Backups:
    """Takes and puts back backups of one federation. `actor`: who asks, for the audit trail."""

    def __init__(self, services: Services, hosted: Hosted, actor: str) -> None:
        self._services = services
        self._hosted = hosted
        self._actor = actor

    def take(self, target: Storage) -> Backup:
        """Back up into an empty folder. Raises FedsyncError if something is there already."""
        if target.entries():
            raise FedsyncError(
                "the target holds something already",
                "目标文件夹非空",
                todo="为每次备份换一个新文件夹 / name a new folder for each backup",
                file=target.url,
            )
        services = self._services
        taken = services.ledger.clock()
        with snapshot(services.ledger.engine) as connection:
            ledger = target.inside("ledger")
            rows = {table.name: dump(connection, table, ledger) for table in tables_of(schema.metadata)}
            named = _named(connection)
        files = {path: _copy(services.baselines.storage, target.inside("baselines"), path) for path in named}
        hosted: dict[str, int] = {}
        if self._hosted.there:
            with snapshot(self._hosted.engine) as connection:
                place = target.inside("hosted")
                hosted = {table.name: dump(connection, table, place) for table in tables_of(self._hosted.metadata)}
        made = Backup(services.config.spec.name, taken.isoformat(), HEAD, self._check(), rows, hosted, files)
        target.write(ABOUT, json.dumps(asdict(made), ensure_ascii=False).encode())
        with services.ledger.transaction() as connection:
            services.ledger.audit(connection, self._actor, "backup.take", "", f"{len(files)} baseline files")
        return made

    def restore(self, source: Storage, *, hosted: bool = False, force: bool = False) -> Backup:
        """Put the ledger and its baselines back; `hosted`: the hosted records as well, for where they were lost.

        Raises LeaseHeld while somebody syncs (unless `force`), Unreadable for a folder that is no whole backup, AccessDenied for another
        secret. Nothing has changed then.
        """
        about = self._readable(source)
        if not force:
            self._refuse_runners()
        baselines = self._services.baselines.storage
        for path, known in about.files.items():
            if _copy(source.inside("baselines"), baselines, path) != known:
                raise _damaged(source, path)
        with self._replacing() as connection:
            kept = connection.execute(select(func.count()).select_from(schema.audit)).scalar_one()
            fence = connection.execute(select(func.max(schema.link.c.fence))).scalar_one() or 0
            for table in tables_of(schema.metadata):
                # The trail of what was done since is nobody's to take back; it is put back only where all of it was lost.
                if table is not schema.audit or not kept:
                    put_back(connection, table, source.inside("ledger"))
            _compare_all(connection, fence)
            self._services.ledger.audit(connection, self._actor, "backup.restore", "", f"of {about.taken}")
        if hosted and about.hosted:
            self._put_hosted_back(source)
        return about

    def note_restored(self, *, force: bool = False) -> None:
        """The ledger was put back by its database's own tools: let each link compare everything, as `restore` does."""
        if not force:
            self._refuse_runners()
        with self._replacing() as connection:
            _compare_all(connection, 0)
            self._services.ledger.audit(connection, self._actor, "backup.restore", "", "by the database's own tools")

    def close(self) -> None:
        """Give the connections back."""
        self._services.ledger.close()
        self._hosted.engine.dispose()

    def _put_hosted_back(self, source: Storage) -> None:
        with self._hosted.engine.begin() as connection:
            self._hosted.metadata.create_all(connection)
            for table in tables_of(self._hosted.metadata):
                put_back(connection, table, source.inside("hosted"))
            self._hosted.renew(connection)

    def _readable(self, source: Storage) -> Backup:
        if not source.exists(ABOUT):
            raise Unreadable(
                f"there is no whole backup here: {ABOUT} is missing",
                "该文件夹不是完整的备份",
                todo="换一个备份 / choose another backup",
                file=source.url,
            )
        about = Backup(**json.loads(source.read(ABOUT)))
        if about.revision != HEAD:
            raise Unreadable(
                f"the backup is of ledger version {about.revision}, this engine's is {HEAD}",
                "备份的台账版本与引擎不符",
                todo="用当时的引擎版本恢复，再升级 / restore it with the engine that took it, then upgrade",
                file=source.url,
            )
        if about.check != self._check():
            raise AccessDenied(
                "the backup was taken under another secret or by another federation: fingerprints would match nothing",
                "备份出自另一密钥或另一联邦",
                todo="先恢复当时的 FEDSYNC_SECRET / put the FEDSYNC_SECRET of that time in place first",
                file=source.url,
            )
        return about

    def _check(self) -> str:
        return self._services.keyring.identify("backup", self._services.config.spec.name)

    def _refuse_runners(self) -> None:
        now = self._services.ledger.clock()
        for state in self._services.links.all().values():
            if working(state, now):
                raise LeaseHeld(
                    f"{state.holder} syncs this link",
                    "有进程正在同步",
                    todo="先停止 Airflow 与其他同步（或 --force） / stop Airflow and other syncs first (or --force)",
                    link=state.link_id,
                )

    @contextmanager
    def _replacing(self) -> Iterator[Connection]:
        with self._services.ledger.transaction() as connection:
            if connection.dialect.name == "postgresql":
                names = ", ".join(f'"{table.name}"' for table in tables_of(schema.metadata))
                connection.exec_driver_sql(f"LOCK TABLE {names} IN EXCLUSIVE MODE")
            yield connection


def _compare_all(connection: Connection, fence: int) -> None:
    """Let no link trust a position that was read before, and no runner settle that began before."""
    table = schema.link
    ahead = max(fence, connection.execute(select(func.max(table.c.fence))).scalar_one() or 0) + 1
    nothing = dict.fromkeys(
        ("identity", "upper_cursor", "lower_cursor", "upper_token", "lower_token", "holder", "lease_until")
    )
    connection.execute(update(table).values(**nothing, fence=ahead, released=False))


def _named(connection: Connection) -> list[str]:
    """Every baseline file, and every intent, that the ledger points to."""
    table: Table = schema.link
    found: set[str] = set()
    for baseline, intent in connection.execute(select(table.c.baseline, table.c.intent)):
        found |= {*Manifest.parse(baseline).paths, *([intent] if intent else [])}
    return sorted(found)


def _copy(source: Storage, target: Storage, path: str) -> str:
    """Copy a file; the sha256 of its content."""
    content = source.read(path)
    target.write(path, content)
    return hashlib.sha256(content).hexdigest()


def _damaged(source: Storage, path: str) -> Unreadable:
    return Unreadable(
        "a file of the backup is damaged",
        "备份中的文件已损坏",
        todo="换一个备份 / choose another backup",
        file=f"{source.url}/baselines/{path}",
    )
