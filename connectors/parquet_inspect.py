"""Inspecting a drop folder: may we write there, which partitions count, which are awaited, do their files suit the contract."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from connectors import findings
from connectors.base import Capabilities, Node
from connectors.files import may
from connectors.findings import Finding
from connectors.parquet_drops import Drops, Partition, named

_OTHERS = 5
"""So many folders of other names are listed."""


def inspected(node: Node, folder: Path, drops: Drops, capabilities: Capabilities) -> list[Finding]:
    """All findings on a folder that can be read. Reads the files' schemas, no record."""
    newest = drops.all[-1].name if drops.all else "none"
    return [
        *findings.reached(f"{len(drops.all)} partitions, newest {newest}"),
        *_rights(node, folder, capabilities),
        *_partitions(folder, drops),
        *_schema(node, drops),
        *findings.strategy(capabilities, node.dataset),
    ]


def _rights(node: Node, folder: Path, capabilities: Capabilities) -> list[Finding]:
    if not capabilities.writes:
        return []
    optional = not findings.receives(node.dataset, node.region.level, node.fields)
    needed = {"write": ("在目录中新建分区", "to put partitions into the folder")}
    todo = "给运行账号写入该目录的权限，或声明 read_only / let the engine's account write there, or declare `read_only`"
    return findings.rights(needed, {"write": may(folder, os.W_OK)}, optional=optional, todo=todo)


def _partitions(folder: Path, drops: Drops) -> Iterator[Finding]:
    for one in drops.waiting:
        en, zh = one.why
        yield Finding(
            "schema",
            "warn",
            f"{one.path.name} 尚未读取：{zh}",
            f"{one.path.name} is not read yet: {en}",
            "写完后自动读取；若持续，请提供方重新投递 / it is read once it is whole; if it stays, have it dropped again",
        )
    if drops.all or drops.waiting:
        return
    with named(folder):
        others = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    listed = ", ".join([*others[:_OTHERS], *(["…"] if len(others) > _OTHERS else [])])
    yield Finding(
        "schema",
        "warn",
        "没有数据分区" + (f"；其他名称的目录不读取：{listed}" if others else ""),
        "there is no partition" + (f"; folders of other names are not read: {listed}" if others else ""),
        "分区目录应名为 dt=年-月-日，并含 _manifest.json / name a partition dt=YYYY-MM-DD, with its _manifest.json",
    )


def _schema(node: Node, drops: Drops) -> Iterator[Finding]:
    """Of the newest full partition, if somebody else made it: a delta names only what it changes."""
    full = next((one for one in drops.live if one.manifest.kind == "full" and not one.own), None)
    if full is None:
        return
    files = [_columns(full, part.name) for part in full.manifest.files]
    missing = [node.column(name) for name in node.fields if any(node.column(name) not in has for has in files)]
    if missing:
        yield findings.missing_columns(missing, dict.fromkeys(name for has in files for name in has))
    else:
        yield findings.every_column(len(node.fields), full.name)


def _columns(partition: Partition, name: str) -> list[str]:
    path = partition.path / name
    with named(path):
        return list(pq.read_schema(path).names)
