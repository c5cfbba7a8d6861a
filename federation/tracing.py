"""Gathering what a trace needs: from the ledger and the baselines, and from the nodes themselves if they are to be asked.

Which baselines are read. A record is known to a link only if the parent's link knows it, or if the ledger says why not. So the
baselines of the top hop are read, and of every other link those

- whose parent's link knows the record,
- that the record's quarantine items, contests, corrections, tombstones, waits or a run's intent name, and the links below these,
- whose parent's link has not settled since they last moved anything (what came up may still have to get on),
- that are held or failed (what was taken away above may still be known there),
- and those above all of these, and of the record's path.

In a federation at rest these are a few dozen, whatever its size. Missed is a record that two ends of a lower link had both been given
by their own people, neither by the engine, until the parent's link runs; `every` reads all baselines.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from federation.canonical import conform, fingerprints, key_column
from federation.config import Config, Link
from federation.contract import Dataset
from federation.errors import FedsyncError
from federation.federation import Federation
from federation.ledger.baselines import Manifest
from federation.ledger.links import LONGEST, LinkState, working
from federation.ledger.receipts import proofs
from federation.reading import KEY, only, read_keys
from federation.services import Services
from federation.trace import Trace
from federation.trace_assembly import assemble, groups_at
from federation.trace_path import Agreed, Answer, Findings, Path, Unfinished, links_shown, path_of, region_of
from federation.trace_words import Told

WORKERS = 8


def trace(
    federation: Federation, dataset: str, words: Sequence[str], *, live: bool = False, every: bool = False
) -> Trace:
    """The trace of one record. `words`: its key as typed by a person (`key_of`). `live`: ask the nodes on its path, and those that a
    link says hold it, as well; one that does not answer is told as such. `every`: read all baselines.

    Raises FedsyncError if nobody knows the record, or if this cannot be a key; DeclarationError for an unknown dataset.
    """
    config, services = federation.config, federation.services
    contract = config.dataset(dataset)
    key = key_of(words, contract, config.spec.timezone)
    search = _Search(services, contract, key)
    search.run(every)
    found, path = search.complete()
    if live:
        asked: set[str] = set()
        while wanted := _concerned(config, contract, found, path) - asked:
            asked |= wanted
            search.answers |= _ask(federation, contract, key, sorted(wanted))
            found, path = search.complete()
    if not found.anything:
        raise FedsyncError(
            f"no link knows this record ({len(found.read)} of {search.links} baselines read)",
            f"没有链路知道这条记录（已查 {len(found.read)}/{search.links} 条链路的基线）",
            todo="检查主键；或加 --live 询问业务系统、--all 查看全部链路 / check the key; --live asks the systems, --all reads every link",
            dataset=dataset,
            key=key,
        )
    return assemble(config, contract, key, found, path)


def key_of(words: Sequence[str], dataset: Dataset, timezone: str) -> str:
    """The text of a key (`canonical.key_column`) as a person types it: one word per key field, in the contract's order, each as it
    might be written in a sheet; or the text itself, which of a composite key is a JSON array. Raises FedsyncError if it is none."""
    parts = _parts(words[0]) if len(words) == 1 and len(dataset.key) > 1 else list(words)
    labels = "、".join(f"{name}（{dataset.fields[name].label}）" for name in dataset.key)
    if len(parts) != len(dataset.key):
        raise FedsyncError(
            f"the key of {dataset.name} has {len(dataset.key)} field(s), {len(parts)} given",
            f"{dataset.name} 的主键有 {len(dataset.key)} 个字段，给出了 {len(parts)} 个",
            todo=f"依次给出 / give, in this order: {labels}",
            dataset=dataset.name,
        )
    raw = pa.table({name: pa.array([part], pa.string()) for name, part in zip(dataset.key, parts)})
    typed = conform(raw, dataset, dataset.key, timezone=timezone)
    if typed.rejects.num_rows:
        fault = typed.rejects.to_pylist()[0]
        raise FedsyncError(
            f"this is no key: {fault['reason_en']}",
            f"不是主键：{fault['reason_zh']}",
            todo=f"依次给出 / give, in this order: {labels}",
            dataset=dataset.name,
            field=fault["field"],
        )
    return str(key_column(typed.rows, dataset)[0].as_py())


def _parts(word: str) -> list[str]:
    try:
        parts = json.loads(word)
    except ValueError:
        return [word]
    return (
        [part if isinstance(part, str) else json.dumps(part) for part in parts] if isinstance(parts, list) else [word]
    )


class _Search:
    """What the ledger knows of one record."""

    def __init__(self, services: Services, dataset: Dataset, key: str) -> None:
        self.services, self.config, self.dataset, self.key = services, services.config, dataset, key
        self.answers: dict[str, Answer] = {}
        self.links = sum(1 for _ in self.config.all_links(dataset.name))
        self._read: set[str] = set()
        self._agreed: dict[str, Agreed] = {}
        self._meanings: dict[str, dict[str, str]] = {}
        declared = {region.code for level in dataset.levels[1:] for region in self.config.tree.at(level)}
        states = services.links.all(dataset.name).values()
        self._states = {state.link_id: state for state in states if state.lower in declared}
        self._waits = [wait for wait in services.waiting.about(dataset.name, key) if wait[0] in self._states]
        self._items = services.quarantine.open_items(dataset=dataset.name, key=key)
        self._contests = services.contests.about(dataset.name, key)
        self._corrections = services.corrections.about(dataset.name, key)
        self._stones = services.tombstones.about(dataset.name, key)
        self._unfinished = self._intents()

    def run(self, every: bool) -> None:
        """Read the baselines that may know the record, from the top hop down (see the module)."""
        named = self._named()
        for upper, _ in self.dataset.hops:
            wanted = []
            for parent in self.config.tree.at(upper):
                for link in self.config.links(self.dataset.name, parent.code):
                    if every or self._may_know(link, named):
                        wanted.append(link)
            self._pick(wanted)

    def complete(self) -> tuple[Findings, Path]:
        """The findings and the path, once every link that is told of was read."""
        while True:
            found = self._findings()
            path = path_of(self.config, self.dataset, found)
            more = [link for link in links_shown(self.config, self.dataset, found, path) if link.id not in self._read]
            if not more:
                return found, path
            self._pick(more)

    def _findings(self) -> Findings:
        moments = {name: agreed.stamp for name, agreed in self._agreed.items() if agreed.stamp is not None}
        with self.services.ledger.transaction() as connection:
            proven = proofs(connection, moments)
        return Findings(
            now=self.services.ledger.clock(),
            states=self._states,
            read=frozenset(self._read),
            agreed=self._agreed,
            unfinished=self._unfinished,
            waits=self._waits,
            items=self._items,
            contests=self._contests,
            corrections=self._corrections,
            stones=self._stones,
            proofs=proven,
            answers=self.answers,
        )

    def _may_know(self, link: Link, named: Collection[str]) -> bool:
        name = self.dataset.name
        above = f"{name}/{link.upper.code}"
        if above in self._agreed or above in named or link.id in named or link.upper.level == self.dataset.levels[0]:
            return True
        state, beyond = self._states.get(link.id), self._states.get(above)
        if state is None or state.baseline is None:
            return False
        if state.state in ("held", "failed") or beyond is None or beyond.last_ok is None:
            return True
        # a run reads before it settles, and lasts no longer than its lease is renewed
        return state.last_moved is not None and state.last_moved > beyond.last_ok - LONGEST

    def _named(self) -> set[str]:
        """The links that the ledger names in connection with the record."""
        name = self.dataset.name
        links = {link_id for link_id, _ in self._waits} | set(self._unfinished)
        regions: set[str | None] = set()
        for item in self._items:
            links.add(item.link_id)
            regions.add(item.origin)
        for contest in self._contests:
            links.add(contest.link_id)
            regions |= {contest.incumbent, contest.challenger}
        for correction in self._corrections:
            links.add(correction.link_id)
            regions |= {correction.raised_by, correction.target, correction.at}
        for stone in self._stones:
            links |= {stone.link_id, stone.by_link}
            regions.add(stone.region)
        return links | {f"{name}/{code}" for code in regions if code is not None}

    def _pick(self, links: Iterable[Link]) -> None:
        todo = [link for link in links if link.id not in self._read]
        self._read |= {link.id for link in todo}
        for link in todo:  # worked out here, once per hop, rather than by each worker
            self._meanings.setdefault(link.lower.level, self.services.meanings(link.contract))
        with ThreadPoolExecutor(WORKERS) as pool:
            for link, agreed in zip(todo, pool.map(self._agreed_on, todo)):
                if agreed is not None:
                    self._agreed[link.id] = agreed

    def _agreed_on(self, link: Link) -> Agreed | None:
        state = self._states.get(link.id)
        manifest = Manifest.parse(state.baseline if state else None)
        if not manifest.rows:
            return None
        meanings = self._meanings[link.lower.level]
        found = self.services.baselines.pick(
            manifest, meanings, pa.array([self.key], pa.string()), timed=True
        ).to_pylist()
        if not found:
            return None
        stamp = found[0]["at"]
        since = None if stamp is None else datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=stamp)
        return Agreed({name: found[0][f"fp_{name}"] for name in meanings}, since, stamp)

    def _intents(self) -> dict[str, Unfinished]:
        """What runs that have not settled were about to do with the record."""
        now, found = self.services.ledger.clock(), {}
        for state in self._states.values():
            if state.intent is not None:
                intent = self.services.baselines.read_intent(state.intent)
                for row in intent.filter(pc.equal(intent.column("key"), self.key)).to_pylist():
                    found[state.link_id] = _unfinished(row, state, now)
        return found


def _unfinished(row: dict[str, bytes | str | None], state: LinkState, now: datetime) -> Unfinished:
    fps = {name[3:]: fp for name, fp in row.items() if name.startswith("fp_") and not isinstance(fp, str)}
    return Unfinished(fps, str(row["seeded"]), str(row["removed"]), working(state, now))


def _concerned(config: Config, dataset: Dataset, found: Findings, path: Path) -> set[str]:
    """The nodes to ask: those of the path, and both ends of every link that is told of; the top ones if nothing is known."""
    links = links_shown(config, dataset, found, path)
    nodes = {*path.nodes, *(region.code for link in links for region in (link.upper, link.lower))}
    nodes |= {region_of(item.link_id) for item in found.items}
    levels = dataset.levels
    known = {code for code in nodes if code in config.tree and config.tree[code].level in levels}
    return known or {region.code for region in config.tree.at(levels[0])}


def _ask(federation: Federation, dataset: Dataset, key: str, regions: Sequence[str]) -> dict[str, Answer]:
    with ThreadPoolExecutor(WORKERS) as pool:
        answers = pool.map(lambda region: _answer(federation, dataset, key, region), regions)
        return dict(zip(regions, answers))


def _answer(federation: Federation, dataset: Dataset, key: str, region: str) -> Answer:
    """What one node holds of the record now: fingerprints of the groups that its links carry, made as a run makes them."""
    try:
        with federation.node(dataset.name, region) as node:
            read = read_keys(node, [key])
    except FedsyncError as error:
        return Answer("unreachable", reason=Told(error.zh, error.en))
    mine = pa.array([key], pa.string())
    rows = only(pa.concat_tables([read.rows, read.outside]), mine)
    if only(read.rejects, mine).num_rows:
        rejected = only(read.rejects, mine).to_pylist()[0]
        label = dataset.fields[rejected["field"]].label
        return Answer(
            "unreadable", reason=Told(f"“{label}”：{rejected['rule']}", f"{rejected['field']}: {rejected['rule']}")
        )
    if not rows.num_rows:
        return Answer("gone")
    groups = {name: group.fields for name, group in groups_at(dataset, federation.config.tree[region].level).items()}
    secret = federation.services.keyring.fingerprint
    (hashed,) = fingerprints(rows.drop_columns([KEY]), dataset, groups, secret).to_pylist()
    place = rows.column(dataset.jurisdiction)[0].as_py()
    return Answer("have", {name: hashed[f"fp_{name}"] for name in groups}, place)
