"""How a DAG's work is cut into mapped tasks, and what a task is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
MOST = 1000
"""Mapped tasks at most: Airflow refuses more than 1 024."""


def batches(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """At least `size` items each, and as many more as it takes to make no more than `MOST` batches."""
    size = max(size, -(-len(items) // MOST))
    return [items[start : start + size] for start in range(0, len(items), size)]


def label(names: Sequence[str]) -> str:
    """What people see of a mapped task: the first of its regions."""
    return "、".join(names[:4]) + ("…" if len(names) > 4 else "")
