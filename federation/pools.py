"""Pools: how many of Airflow's tasks may work on one system at a time, across all datasets.

A system that says `parallel` gets a pool of so many slots. A hop's tasks take a slot of the pool of the system behind its upper or its
lower end, where all nodes of that end share one; of two, the narrower. Tasks without such a system wait for nobody.
"""

from __future__ import annotations

import json

from federation.config import Config
from federation.contract import Dataset


def pool_name(system: str) -> str:
    """`fedsync_<system>`."""
    return f"fedsync_{system}"


def pool_of(config: Config, dataset: Dataset, *levels: str) -> str | None:
    """The pool that a task takes which works on the nodes of these levels; None: none."""
    wanted = []
    for level in levels:
        systems = {
            node.system
            for node in config.spec.nodes
            if dataset.name in node.datasets
            and (node.level == level or any(config.tree[code].level == level for code in node.regions))
        }
        if len(systems) == 1 and (spec := config.spec.systems.get(name := systems.pop())) and spec.parallel:
            wanted.append((spec.parallel, name))
    return pool_name(min(wanted)[1]) if wanted else None


def dumped(config: Config) -> str:
    """All pools, as `airflow pools import` takes them."""
    found = {
        pool_name(name): {
            "slots": spec.parallel,
            "description": f"{spec.label or name}: 同时处理的任务数 / tasks at work there at a time",
            "include_deferred": False,
        }
        for name, spec in config.spec.systems.items()
        if spec.parallel
    }
    return json.dumps(found, ensure_ascii=False, indent=2)
