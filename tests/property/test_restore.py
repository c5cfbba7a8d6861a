"""An older ledger put back at random under nodes that went on: whatever people did before and after, it converges and nothing is lost.

Left out is what the ledger cannot know (docs/deployment.md): a record that came to a branch after the backup, created or moved, is then
neither moved nor deleted.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import closing
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from federation.runtime import open_backups
from federation.storage import Storage
from tests.federations import CITY
from tests.property.machine import BEGINNINGS, LOWER, PLACES
from tests.property.profiles import machine_settings
from tests.property.test_four_levels import MemoryNodes
from tests.property.world import AUTHORITY, DATASET, World

OLD, NEW = st.sampled_from(["A", "B", "C", "D"]), st.sampled_from(["X", "Y"])
EDIT = st.tuples(st.just("edit"), st.one_of(OLD, NEW), st.sampled_from([*AUTHORITY, "note"]))
MOVE, DELETE = st.tuples(st.just("move"), OLD, PLACES), st.tuples(st.just("delete"), OLD, PLACES)
CREATE = st.tuples(st.just("create"), NEW, PLACES)
SYNC = st.tuples(st.just("sync"), st.just(""), LOWER)
Deeds = list[tuple[str, str, str]]


def play(world: World, deeds: Deeds, moved: set[str]) -> None:
    """People who are entitled to what they do, and single links that are synced meanwhile. `moved`: records that have moved once."""
    for deed, key, other in deeds:
        record = world.records.get(key)
        if deed == "sync":
            upper = world.federation.config.link(DATASET, other).upper.code
            world.federation.sync_children(DATASET, upper, [other], None)
        elif deed == "create" and record is None:
            world.create(key, other)
        elif record is None or not record.alive or (deed in ("move", "delete") and key in moved):
            continue
        elif deed == "move":
            moved.add(key)
            world.move(key, other)
        elif deed == "delete":
            world.delete(key, CITY)
        elif deed == "edit" and other == "note":
            world.note(key, CITY)
        elif deed == "edit":
            world.edit(key, world._authority(record, other), other)


@given(
    capture=st.sampled_from(["snapshot", "cursor", "log"]),
    beginnings=BEGINNINGS,
    before=st.lists(st.one_of(EDIT, MOVE, SYNC), max_size=3),
    between=st.lists(st.one_of(EDIT, MOVE, DELETE, CREATE), max_size=8),
    unsettled=st.lists(st.one_of(EDIT, MOVE, DELETE, CREATE, SYNC), max_size=6),
    after=st.lists(st.one_of(EDIT, MOVE, DELETE, SYNC), max_size=6),
)
@machine_settings(examples=5, steps=1)
def test_an_older_ledger_under_nodes_that_went_on_converges_and_loses_nothing(
    capture: str,
    beginnings: list[tuple[str, str]],
    before: Deeds,
    between: Deeds,
    unsettled: Deeds,
    after: Deeds,
) -> None:
    nodes = MemoryNodes("revert", capture, True)
    target = Storage(str(Path(tempfile.mkdtemp(prefix="fedsync_backup_")) / "backup"))
    try:
        world, moved = World(nodes, "revert"), set[str]()
        for key, place in beginnings:
            world.create(key, place)
        world.settle()
        play(world, before, moved)
        with closing(open_backups(nodes.folder, "tester", clock=nodes.clock)) as backups:
            backups.take(target)
            play(world, between, moved)
            world.settle()
            play(world, unsettled, moved)
            backups.restore(target, force=True)
        play(world, after, moved)
        world.check()
    finally:
        nodes.close()
        shutil.rmtree(Path(target.url).parent, ignore_errors=True)
