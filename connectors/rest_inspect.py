"""Inspecting an API: one page of its collection, and what it says that it allows. GET and OPTIONS only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from connectors import findings
from connectors.base import Capabilities, Node, changes_of
from connectors.findings import Finding
from connectors.rest_client import Client
from connectors.rest_json import MISSING, dig
from connectors.rest_options import RestOptions
from connectors.rest_records import Shape
from federation.errors import AccessDenied, ConnectorError
from federation.regions import LEVEL_ZH

COARSE_SECONDS = 1.0
"""The header Date counts whole seconds."""


@dataclass(frozen=True)
class Sample:
    """One page. `skew`: seconds by which the server's clock is ahead, None if it does not show it."""

    records: list[dict[str, Any]]
    skew: float | None


def inspected(
    node: Node,
    options: RestOptions,
    client: Client,
    shape: Shape,
    capabilities: Capabilities,
    parameters: dict[str, Any],
) -> list[Finding]:
    """All findings on a collection that can be reached."""
    before = datetime.now(UTC)
    answer = client.get(options.path, parameters)
    after = datetime.now(UTC)
    skew = None if answer.date is None else _skew(before, after, answer.date)
    listed = dig(answer.data, options.records)
    sample = (
        Sample([record for record in listed if isinstance(record, dict)], skew) if isinstance(listed, list) else None
    )
    return [
        *findings.reached(f"HTTP {answer.status}"),
        *_rights(node, options, client, shape, sample),
        *_schema(node, options, shape, sample, listed),
        *_clock(node, sample),
        *_capture(options, client, sample),
        *findings.strategy(capabilities, node.dataset),
        _pace(node, options, client),
    ]


def _skew(before: datetime, after: datetime, told: datetime) -> float:
    """Never more than is sure: the answer was given between before and after, within the second that was told."""
    least, most = (told - after).total_seconds(), (told - before).total_seconds() + COARSE_SECONDS
    return max(least, 0.0) + min(most, 0.0)


def _rights(node: Node, options: RestOptions, client: Client, shape: Shape, sample: Sample | None) -> Iterator[Finding]:
    needed: dict[str, tuple[str, str]] = {}
    granted: dict[str, bool | None] = {}
    for how, where, zh, en in (
        (options.upsert, options.item_path, "写入记录", "to write records"),
        (options.create, options.path, "新建记录", "to create records"),
        (options.delete, options.item_path, "删除记录", "to delete records"),
    ):
        if how is None:
            continue
        template = (how.path or where).replace("{path}", options.path)
        path = _filled(template, shape, sample)
        word = f"{how.method} {template}"
        needed[word] = (zh, en)
        allowed = None if path is None else _allowed(client, path)
        granted[word] = None if allowed is None else how.method in allowed
    optional = not findings.receives(node.dataset, node.region.level, node.fields)
    if needed:
        todo = "由对方系统开通，并核对 method 与 path / let that system grant it, and check `method` and `path`"
        yield from findings.rights(needed, granted, optional=optional, todo=todo)
    elif not optional:
        yield Finding(
            "rights",
            "fail",
            "未声明 upsert，而上下级会向此处写入",
            "`upsert` is not declared, and records come here from elsewhere",
            "声明 upsert / declare `upsert`",
        )


def _filled(path: str, shape: Shape, sample: Sample | None) -> str | None:
    """The address of some record that there is; None if none is known."""
    if "{key}" not in path:
        return path
    keys = [shape.key_of(record) for record in (sample.records if sample else [])]
    known = next((key for key in keys if None not in key), None)
    return None if known is None else path.replace("{key}", ",".join(quote(str(part), safe="") for part in known))


def _allowed(client: Client, path: str) -> frozenset[str] | None:
    """What the API says it allows there. One that does not know the question has not said no."""
    try:
        return client.allowed(path)
    except AccessDenied:
        return frozenset()
    except ConnectorError:
        return None


def _schema(node: Node, options: RestOptions, shape: Shape, sample: Sample | None, listed: Any) -> Iterator[Finding]:
    if sample is None or len(sample.records) != len(listed):
        at = options.records or "(top)"
        yield Finding(
            "schema",
            "fail",
            f"应答在 {at} 处没有记录列表",
            f"the answer has no list of records at {at}",
            "核对 records / check `records`",
        )
        return
    if not sample.records:
        yield Finding(
            "schema",
            "warn",
            "没有记录，无法核对列",
            "there is no record to check the columns by",
            "有记录后再查一次 / probe again once it holds one",
        )
        return
    there = {
        name: any(dig(record, node.column(name)) is not MISSING for record in sample.records) for name in node.fields
    }
    missing = [node.column(name) for name, found in there.items() if not found]
    needed = [node.column(name) for name in (*node.dataset.key, node.dataset.jurisdiction)]
    grave = [name for name in missing if not options.omits_nulls or name in needed]
    if grave:
        yield findings.missing_columns(grave, _names(sample.records))
    elif missing:
        listed_names = ", ".join(missing)
        yield Finding(
            "schema",
            "warn",
            f"本页记录都没有列 {listed_names}（声明了 omits_nulls，可能都为空）",
            f"no record of this page has the column {listed_names} (`omits_nulls`: all may be empty)",
            "核对列名 / check the column's name",
        )
    yield from _values(node, shape, sample)
    if not missing:
        yield findings.every_column(len(node.fields))


def _values(node: Node, shape: Shape, sample: Sample) -> Iterator[Finding]:
    raw = shape.raw([("", record) for record in sample.records], node.fields)
    rejects: pa.Table = changes_of(node, raw, present=False, cursor=None).rejects
    faults = sorted({(line["field"], line["rule"]) for line in rejects.select(["field", "rule"]).to_pylist()})
    for name, rule in faults:
        zh, en = (
            f"本页有记录的 {node.column(name)} 不合契约（{rule}）",
            f"{node.column(name)} of some records does not suit the contract ({rule})",
        )
        todo = "这些记录将被隔离；核对 times、columns 与数据 / they would be set aside; check `times`, `columns` and the data"
        yield Finding("schema", "fail" if rule == "key:duplicate" else "warn", zh, en, todo)


def _names(records: Sequence[dict[str, Any]]) -> Iterable[str]:
    return dict.fromkeys(name for record in records for name in record)


def _clock(node: Node, sample: Sample | None) -> Iterator[Finding]:
    if sample is not None and sample.skew is not None:
        yield findings.clock(sample.skew, node.dataset.clock_tolerance)
    elif sample is not None:
        yield Finding(
            "clock",
            "warn",
            "应答没有 Date，看不到系统时钟",
            "the answers have no Date: its clock cannot be seen",
            "请系统管理员确认已用 NTP 校时 / have its administrator confirm that NTP sets it",
        )


def _capture(options: RestOptions, client: Client, sample: Sample | None) -> Iterator[Finding]:
    changed, records = options.changed_since, sample.records if sample else []
    if changed is not None and records and all(dig(one, changed.field) in (MISSING, None) for one in records):
        yield Finding(
            "capture",
            "fail",
            f"没有记录在 {changed.field} 处给出修改时间",
            f"no record shows its time of change at {changed.field}",
            "核对 changed_since.field / check `changed_since.field`",
        )
    if options.state is None:
        yield Finding(
            "capture",
            "warn",
            "未声明 state：每次巡检都须读取",
            "no `state` is declared: each sweep has to read",
            "若接口能低成本告知是否有变化，请声明 state / declare `state` if the API can tell cheaply whether anything changed",
        )
        return
    found = dig(client.get(options.state.path, {}).data, options.state.field)
    if found in (MISSING, None):
        yield Finding(
            "capture",
            "fail",
            f"应答缺少 {options.state.field}",
            f"the answer has no {options.state.field}",
            "核对 state.field / check `state.field`",
        )


def _pace(node: Node, options: RestOptions, client: Client) -> Finding:
    rate, level = client.rate, node.region.level
    if rate is None:
        zh, en = "不限速", "as many requests as there are"
    else:
        zh, en = f"每秒至多 {rate.per_second:g} 次请求", f"at most {rate.per_second:g} requests a second"
        if rate.burst > 1:
            zh, en = f"{zh}（空闲后可连发 {rate.burst} 次）", f"{en} ({rate.burst} at once after a rest)"
    if "requests_per_second" in options.model_fields_set:
        return Finding("strategy", "ok", f"速率：{zh}（声明）", f"pace: {en}, as declared")
    return Finding(
        "strategy", "ok", f"速率：{zh}（{LEVEL_ZH[level]}级默认）", f"pace: {en}, the default of the level {level}"
    )
