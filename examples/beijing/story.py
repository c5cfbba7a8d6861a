"""The story that the demo plays and checks, act by act. Every check looks into the systems themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date

from examples.beijing.people import RETURNS, Database, Hotline, Workbook
from federation.federation import Federation
from federation.runtime import open_federation

CITY, DONGHUAMEN, CHANGAN = "110000000000", "110101001000", "110102001000"
DUOFUXIANG = "110101001001"
BAD_PHONE, GOOD_PHONE, NEW_PHONE = "1990000123", "19900001234", "19900009999"
VISIT = "V-DEMO-0001"


@dataclass(frozen=True)
class Check:
    """One thing that has to hold. `detail`: what was found."""

    zh: str
    en: str
    held: bool
    detail: str


@dataclass(frozen=True)
class Act:
    """`play`: what people do; then everything syncs; then `check` looks."""

    zh: str
    en: str
    play: Callable[[], None]
    check: Callable[[], Iterator[Check]]


@dataclass
class Story:
    """The five acts, on the sample in `federation.config.home`."""

    federation: Federation
    hotline: Hotline
    before: dict[str, str] = field(default_factory=dict)

    def acts(self) -> list[Act]:
        """In the order in which they are played."""
        return [
            Act("首次下发与上报", "first delivery", lambda: None, self._first),
            Act(
                "社区改手机号、补一条走访",
                "a community edits a phone number and adds a visit",
                self._edit,
                self._edited,
            ),
            Act("街道退回工单", "a street returns a work order", self._return, self._returned),
            Act("市里改派工单", "the city dispatches it anew", self._redispatch, self._redispatched),
            Act("社区填错手机号", "a community types a malformed phone number", self._mistype, self._quarantined),
            Act("社区按退回原因改正", "the community mends it", self._mend, self._mended),
            Act("再同步一遍，什么都不变", "once more, and nothing changes", self._remember, self._unchanged),
        ]

    # ── act 1 ────────────────────────────────────────────────────────────────────────────────────────────

    def _first(self) -> Iterator[Check]:
        tree = self.federation.config.tree
        for dataset in ("resident", "facility", "work_order", "visit"):
            contract = self.federation.config.dataset(dataset)
            wrong, total = [], 0
            truth = self._keys_by_region(dataset, CITY)
            for level in contract.levels[1:]:
                for region in tree.at(level):
                    expected = {key for key, place in truth.items() if tree.ancestor(place, level) == region}
                    held = set(self._keys_by_region(dataset, region.code))
                    total += len(held)
                    if held != expected:
                        wrong.append(region.name)
            yield Check(
                f"{contract.label}：每个节点恰好持有本辖区的记录",
                f"{dataset}: every node holds exactly its own jurisdiction's records",
                not wrong and bool(truth),
                f"{len(truth)} → {total}" if not wrong else f"≠ {'、'.join(wrong)}",
            )
        heads = set(self.residents.rows()[0]) if self.residents.rows() else set()
        yield Check(
            "社区工作簿没有身份证号一列",
            "the community's workbook has no column for id numbers",
            "姓名" in heads and "身份证号" not in heads,
            "、".join(sorted(filter(None, heads))),
        )

    def _keys_by_region(self, dataset: str, region: str) -> dict[str, str]:
        contract = self.federation.config.dataset(dataset)
        with self.federation.node(dataset, region) as node:
            rows = node.changes(None).rows
        return dict(zip(rows.column(contract.key[0]).to_pylist(), rows.column(contract.jurisdiction).to_pylist()))

    # ── act 2 ────────────────────────────────────────────────────────────────────────────────────────────

    def _edit(self) -> None:
        self.residents.edit(self.resident, 手机号=NEW_PHONE)
        self.visits.add(
            走访编号=VISIT,
            居民编号=self.resident,
            社区代码=DUOFUXIANG,
            走访日期=date(2026, 11, 20),
            走访人="李网格",
            走访情况="独居老人，身体良好，已更新联系电话",
        )

    def _edited(self) -> Iterator[Check]:
        phone = self._city_phone(self.resident)
        yield Check("手机号到达市级人口库", "the phone number is in the city's registry", phone == NEW_PHONE, phone)
        visits = self.registry.query("SELECT zfqk FROM t_zfjl WHERE zfbh = ?", VISIT)
        yield Check(
            "走访记录到达市级库", "the visit is in the city's registry", len(visits) == 1, f"{len(visits)} 条 / row"
        )

    # ── act 3 ────────────────────────────────────────────────────────────────────────────────────────────

    def _return(self) -> None:
        self.orders.edit(self.order, 办理状态="退回", 退回原因="不属本街道管辖，应转东华门街道", 承办人="王主任")

    def _returned(self) -> Iterator[Check]:
        handling = self.hotline.order(self.order)["handling"]
        yield Check(
            "12345 平台看到退回与原因",
            "the hotline sees the return and its reason",
            handling.get("status") == "退回" and "东华门" in str(handling.get("return_reason")),
            f"{handling.get('status')}：{handling.get('return_reason')}",
        )

    def _redispatch(self) -> None:
        self.hotline.dispatch(self.order, DONGHUAMEN)

    def _redispatched(self) -> Iterator[Check]:
        arrived = self.office.query("SELECT * FROM work_order WHERE order_no = ?", self.order)
        yield Check(
            "工单到达东华门街道",
            "the order has arrived at the other street",
            len(arrived) == 1,
            f"{len(arrived)} 条 / row",
        )
        left = [row["工单编号"] for row in self.orders.rows()]
        yield Check(
            "原街道不再持有", "and is gone from the first", self.order not in left, f"{len(left)} 条 / rows left"
        )

    # ── act 4 ────────────────────────────────────────────────────────────────────────────────────────────

    def _mistype(self) -> None:
        self.residents.edit(self.resident, 手机号=BAD_PHONE)

    def _quarantined(self) -> Iterator[Check]:
        phone = self._city_phone(self.resident)
        yield Check("错误号码没有上报", "the malformed number did not go up", phone == NEW_PHONE, phone)
        returned = [row for row in self.residents.rows(RETURNS) if self.resident in row.values()]
        reason = next(
            (
                str(value)
                for row in returned
                for value in row.values()
                if BAD_PHONE in str(value) and len(str(value)) > len(BAD_PHONE)
            ),
            "",
        )
        yield Check("工作簿“退回待改”写明原因", "the workbook's sheet of returns says why", bool(reason), reason)

    def _mend(self) -> None:
        self.residents.edit(self.resident, 手机号=GOOD_PHONE)

    def _mended(self) -> Iterator[Check]:
        phone = self._city_phone(self.resident)
        yield Check("改正后的号码到达市级", "the mended number is in the city's registry", phone == GOOD_PHONE, phone)
        returned = [row for row in self.residents.rows(RETURNS) if self.resident in row.values()]
        waiting = self.federation.services.quarantine.open_items()
        yield Check(
            "退回与隔离已清空",
            "nothing is returned or quarantined any more",
            not returned and not waiting,
            f"{len(returned)}/{len(waiting)}",
        )

    # ── act 5 ────────────────────────────────────────────────────────────────────────────────────────────

    def _remember(self) -> None:
        self.before = self.contents()

    def _unchanged(self) -> Iterator[Check]:
        after = self.contents()
        changed = [name for name, value in after.items() if self.before.get(name) != value]
        yield Check(
            "所有节点内容不变",
            "no node's content changed",
            not changed and bool(after),
            f"{len(after)} 个节点 / nodes" if not changed else "、".join(changed),
        )

        moved = [
            name for name in self.federation.config.datasets if self.federation.cascade(name, force_full=True).moved
        ]
        yield Check(
            "逐键比对全部链路，也没有任何搬运",
            "comparing every key on every link moves nothing either",
            not moved,
            "、".join(moved) or "0",
        )

    def contents(self) -> dict[str, str]:
        """Each node's digest, by dataset and region."""
        found = {}
        for binding in self.federation.config.bindings():
            with self.federation.node(binding.dataset.name, binding.region.code) as node:
                digest = node.digest()
            found[f"{binding.dataset.name} {binding.region.name}"] = f"{digest.rows}:{digest.value}"
        return found

    # ── where things are ─────────────────────────────────────────────────────────────────────────────────

    @property
    def residents(self) -> Workbook:
        """The community's workbook of residents."""
        return self._book(DUOFUXIANG, "居民", "居民编号")

    @property
    def visits(self) -> Workbook:
        """The community's workbook of visits."""
        return self._book(DUOFUXIANG, "走访记录", "走访编号")

    @property
    def orders(self) -> Workbook:
        """The street's workbook of work orders."""
        return self._book(CHANGAN, "工单", "工单编号")

    def _book(self, region: str, name: str, key: str) -> Workbook:
        config = self.federation.config
        return Workbook(config.home / "data" / config.tree[region].name / f"{name}.xlsx", key)

    @property
    def registry(self) -> Database:
        """The city's registry."""
        return Database(self.federation.config.home / "data/city/registry.db")

    @property
    def office(self) -> Database:
        """The database of the street that the order is dispatched to."""
        return Database(self.federation.config.home / "data/donghuamen/office.db")

    @property
    def resident(self) -> str:
        """The resident of the story: the first of the community."""
        rows = self.registry.query("SELECT rkbh FROM t_rkjbxx WHERE sqdm = ? ORDER BY rkbh LIMIT 1", DUOFUXIANG)
        return str(rows[0]["rkbh"])

    @property
    def order(self) -> str:
        """The work order of the story: the first that was dispatched to the street with spreadsheets."""
        if not self._order:
            self._order.append(min(str(row["工单编号"]) for row in self.orders.rows()))
        return self._order[0]

    _order: list[str] = field(default_factory=list)

    def _city_phone(self, resident: str) -> str:
        return str(self.registry.query("SELECT lxdh FROM t_rkjbxx WHERE rkbh = ?", resident)[0]["lxdh"])


def open_story(folder: str, hotline: Hotline) -> Story:
    """The story on a sample federation that was made by `examples.beijing.build`."""
    return Story(open_federation(folder), hotline)
