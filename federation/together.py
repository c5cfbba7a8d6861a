"""Work that is done side by side, where it is worth the threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def together(work: Callable[[T], R], items: Sequence[T], at_a_time: int) -> list[R]:
    """The answer for each item, in their order, so many at a time. Raises what the first of them raises."""
    if at_a_time < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(at_a_time) as threads:
        return list(threads.map(work, items))
