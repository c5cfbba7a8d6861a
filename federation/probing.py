"""Inspecting the nodes of a federation: which, and all of them at once but never too many. Nothing is written anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from connectors.findings import Finding, State, of_error
from federation.config import Binding, Config
from federation.errors import DeclarationError, FedsyncError
from federation.federation import Federation

AT_ONCE = 8
"""Nodes that are inspected at the same time."""
_WORST: tuple[State, ...] = ("fail", "warn", "ok")


@dataclass(frozen=True)
class Report:
    """What was found at one node."""

    dataset: str
    region: str
    system: str
    findings: tuple[Finding, ...]

    @property
    def state(self) -> State:
        """The worst of its findings."""
        states = {found.state for found in self.findings}
        return next(state for state in _WORST if state in states)


def chosen(config: Config, system: str | None, region: str | None, dataset: str | None) -> list[Binding]:
    """The nodes of a system, inside a region, of a dataset; None: of any. Raises DeclarationError where there are none."""
    if region is not None:
        config.tree[region]
    found = [
        binding
        for binding in config.bindings(config.dataset(dataset).name if dataset else None)
        if system in (None, binding.system) and (region is None or config.tree.lies_in(binding.region.code, region))
    ]
    if not found:
        known = sorted({binding.system for binding in config.bindings()})
        raise DeclarationError(
            "there is no such node",
            "没有这样的节点",
            todo=f"业务系统取值 / systems: {', '.join(known)}",
            system=system,
            region=region,
            dataset=dataset,
        )
    return found


def probe_nodes(federation: Federation, nodes: Sequence[Binding]) -> Iterator[Report]:
    """Inspect nodes, and tell of each in their order."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(lambda node: _report(federation, node), nodes)


def _report(federation: Federation, node: Binding) -> Report:
    try:
        with federation.node(node.dataset.name, node.region.code) as connector:
            found = tuple(connector.inspect())
    except FedsyncError as error:
        found = (of_error(error),)
    return Report(node.dataset.name, node.region.code, node.system, found)
