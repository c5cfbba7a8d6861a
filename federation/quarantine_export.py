"""The quarantine as a table in a file, for people who have no command line: .xlsx or .csv.

Without values, a reason is the rule's own text with its placeholders left open: what a record holds stays sealed.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo

from federation.errors import FedsyncError
from federation.ledger.quarantine import Item
from federation.newfile import exists_already, not_writable
from federation.quarantined import UNDECLARED, declared
from federation.services import Services

HEADS = (
    "编号 id",
    "数据集 dataset",
    "区划 region",
    "区划代码 region code",
    "链路 link",
    "方向 direction",
    "主键 key",
    "字段 field",
    "规则 rule",
    "原因 reason (zh)",
    "原因 reason (en)",
    "首次发现 first seen",
    "最近发现 last seen",
    "状态 state",
)
CONTENTS = ("现值 value", "记录 record")
STATE_ZH = {"open": "待改 open", "replay": "待重判 replay", "released": "已解除 released", "closed": "已关闭 closed"}
DIRECTION_ZH = {"down": "回流 down", "up": "上报 up", "read": "读取 read"}
SEALED = ("内容已加密，未导出", "sealed, not exported")
_DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")
"""A spreadsheet takes a text that begins with one of these for a formula."""

Line = tuple[str, ...]


def lines(services: Services, items: Sequence[Item], *, with_values: bool) -> Iterator[Line]:
    """One line of text for each item, under `HEADS`; `with_values` appends `CONTENTS` and fills the reasons in."""
    zone = ZoneInfo(services.config.spec.timezone)
    for item in items:
        dataset = services.config.datasets.get(item.dataset)  # neither it nor the region need be declared any more
        spec = dataset.fields.get(item.field or "") if dataset else None
        tree = services.config.tree
        about = (
            item.item_id,
            f"{dataset.label} {dataset.name}" if dataset else item.dataset,
            tree[item.origin].name if item.origin in tree else "",
            item.origin,
            item.link_id,
            DIRECTION_ZH[item.direction],
            item.key,
            f"{spec.label} {item.field}" if spec else item.field or "",
            item.rule,
        )
        state = STATE_ZH[item.state] if declared(services.config, item) else f"{STATE_ZH[item.state]}；{UNDECLARED}"
        seen = (_local(item.first_seen, zone), _local(item.last_seen, zone), state)
        if not with_values:
            yield (*about, *_bare(services, item), *seen)
            continue
        opened = services.quarantine.open(item)
        value = opened.record.get(item.field or "", opened.record.get("value"))
        record = json.dumps(opened.record, ensure_ascii=False)
        shown = "" if value is None else str(value)
        yield (*about, opened.reason_zh, opened.reason_en, *seen, shown, record)


def _bare(services: Services, item: Item) -> tuple[str, str]:
    rule = services.rule(item)
    return SEALED if rule is None else (rule.zh.bare, rule.en.bare)


def _local(moment: datetime, zone: ZoneInfo) -> str:
    return moment.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")


def check_target(path: Path) -> None:
    """Refuse what `write` could not write, before anything is unsealed."""
    if path.suffix.lower() not in WRITERS:
        raise FedsyncError(
            f"cannot write {path.suffix or 'a file without a suffix'}",
            "不支持的文件类型",
            todo=f"取值 / one of: {', '.join(WRITERS)}",
            file=path,
        )
    if path.exists():
        raise exists_already(path)


def write(path: Path, heads: Line, table: Iterator[Line]) -> int:
    """Write a new file that only its owner can read; returns how many lines."""
    check_target(path)
    found = list(table)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            WRITERS[path.suffix.lower()](file, [heads, *found])
    except OSError as cause:
        raise not_writable(path, cause) from cause
    return len(found)


def _csv(file: BinaryIO, table: Sequence[Line]) -> None:
    """UTF-8 with a mark, as spreadsheets expect it. A text that looks like a formula gets an apostrophe before it."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="", write_through=True)
    csv.writer(text).writerows(
        [[f"'{cell}" if cell.startswith(_DANGEROUS) else cell for cell in line] for line in table]
    )
    text.detach()


def _xlsx(file: BinaryIO, table: Sequence[Line]) -> None:
    """Every cell is text, and so no formula."""
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    book = Workbook(write_only=True)
    sheet = book.create_sheet("隔离")
    sheet.freeze_panes = "A2"

    def cell(text: str) -> Any:
        made = WriteOnlyCell(sheet, ILLEGAL_CHARACTERS_RE.sub("�", text)[:32_767])
        made.data_type = "s"
        return made

    for line in table:
        sheet.append([cell(text) for text in line])
    book.save(file)


WRITERS: dict[str, Callable[[BinaryIO, Sequence[Line]], None]] = {".csv": _csv, ".xlsx": _xlsx}
