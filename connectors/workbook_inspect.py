"""Inspecting a workbook: is the file there and ours to write, has anybody it open, does its header suit the contract."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from connectors import findings
from connectors.base import Capabilities, Changes, Node
from connectors.files import may
from connectors.findings import Finding
from connectors.locations import File
from connectors.sheet import Header, label
from federation.errors import Transient


def inspected(
    node: Node, file: File, header: Header, found: Changes, capabilities: Capabilities, size: int
) -> list[Finding]:
    """All findings on a file that was read. `found`: what its sheet holds."""
    return [
        *findings.reached(f"{file.name}, {size} bytes"),
        *_rights(node, file, capabilities),
        *_open(file),
        *_schema(node, header, found),
        *findings.strategy(capabilities, node.dataset),
    ]


def _rights(node: Node, file: File, capabilities: Capabilities) -> list[Finding]:
    optional = not findings.receives(node.dataset, node.region.level, node.fields)
    if not capabilities.writes:
        todo = "另存为 xlsx / save it as xlsx"
        state: findings.State = "warn" if optional else "fail"
        return [Finding("rights", state, "这种文件只能读取", "files of this kind can only be read", todo)]
    where = file.where
    able = may(where, os.W_OK) and may(where.parent, os.W_OK) if isinstance(where, Path) else None
    needed = {"write": ("写入文件及其文件夹", "to write the file and its folder")}
    todo = "给运行账号读写该文件及其文件夹的权限 / let the engine's account read and write the file and its folder"
    return findings.rights(needed, {"write": able}, optional=optional, todo=todo)


def _open(file: File) -> Iterator[Finding]:
    try:
        file.refuse_if_open()
    except Transient as error:
        yield Finding("rights", "warn", error.zh, error.en, error.todo)


def _schema(node: Node, header: Header, found: Changes) -> Iterator[Finding]:
    if header.missing:
        there = [label(node, name) for name in header.columns]
        yield findings.missing_columns([label(node, name) for name in header.missing], there)
    else:
        yield findings.every_column(len(node.fields))
    faults = Counter((line["field"], line["rule"]) for line in found.rejects.select(["field", "rule"]).to_pylist())
    for (name, rule), times in sorted(faults.items()):
        doubled = rule == "key:duplicate"
        yield Finding(
            "schema",
            "fail" if doubled else "warn",
            f"{times} 行的“{label(node, name)}”不合契约（{rule}），将被隔离",
            f"{name} of {times} row(s) does not suit the contract ({rule}); they would be set aside",
            "改正这些行 / mend these rows",
        )
