"""A link whose one end lies behind a network that fails: whatever breaks, and whenever, both ends are equal once it is sound again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from connectors import nodes
from connectors.retrying import Budget, Retrier
from federation.errors import FedsyncError, Transient
from tests.faults.pair import SECONDS, Pair, paired
from tests.faults.proxy import Fault

KINDS = ("postgres", "mariadb", "rest")
NUMBERS = count()


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """One link for all tests: each leaves both ends equal, and so begins where the other ended."""
    with paired(request.param, tmp_path_factory.mktemp(request.param)) as made:
        made.begin()
        yield made


@pytest.fixture
def twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call is tried twice and not five times: what a fault that lasts costs is then quickly told."""
    monkeypatch.setattr(nodes, "Retrier", lambda: Retrier(Budget(attempts=2, first=0.1)))


@pytest.fixture
def mark(pair: Pair) -> Iterator[str]:
    """A text that stands in all that this test writes and nowhere else."""
    yield f"Z{next(NUMBERS)}Z"
    pair.heal()


def timed(pair: Pair) -> tuple[FedsyncError | None, float]:
    started = time.monotonic()
    error = pair.sync()
    return error, time.monotonic() - started


PASSING = {
    "the connection is cut in the middle of a page": lambda pair, mark: Fault("cut", after=9_000),
    "the connection is reset in the middle of a page": lambda pair, mark: Fault("reset", after=9_000),
    "the answer stops in the middle of a page": lambda pair, mark: Fault("stall", after=9_000),
    "the connection is cut in the middle of a write": lambda pair, mark: Fault("cut", seen=mark.encode()),
    "the commit does not arrive": lambda pair, mark: Fault("reset", seen=pair.street.commits),
    "the answer to the commit is lost": lambda pair, mark: Fault("cut", seen=pair.street.commits, answered=True),
    "the answer to the commit never comes": lambda pair, mark: Fault("stall", seen=pair.street.commits, answered=True),
}


@pytest.mark.parametrize("what", PASSING)
def test_a_passing_fault_costs_a_second_attempt_and_nothing_else(pair: Pair, mark: str, what: str) -> None:
    pair.edit(mark)
    fault = PASSING[what](pair, mark)
    before = pair.proxy.counts[fault.kind]
    pair.proxy.script(fault)
    error, elapsed = timed(pair)
    assert error is None, str(error)
    assert pair.proxy.counts[fault.kind] == before + 1
    assert elapsed < 5 * SECONDS + 5
    pair.assert_settled()


def test_a_slow_drip_is_waited_for(pair: Pair, mark: str) -> None:
    pair.edit(mark)
    pair.proxy.always(Fault("drip", size=512, every=0.002))
    assert (error := pair.sync()) is None, str(error)
    pair.heal()
    pair.assert_settled()


LASTING = {
    "nobody listens": None,
    "the server accepts and says nothing": Fault("stall"),
    "each write is cut off": Fault("cut", seen=b"Z"),
    "each answer to a commit is lost": Fault("cut", answered=True),
}


@pytest.mark.parametrize("what", LASTING)
@pytest.mark.usefixtures("twice")
def test_a_lasting_fault_is_told_in_time_and_leaves_nothing_half_done(pair: Pair, mark: str, what: str) -> None:
    pair.edit(mark)
    fault = LASTING[what]
    if fault is None:
        pair.proxy.refuse()
    elif fault.answered:
        pair.proxy.always(Fault("cut", seen=pair.street.commits, answered=True))
    else:
        pair.proxy.always(Fault(fault.kind, seen=mark.encode() if fault.seen else None))
    error, elapsed = timed(pair)
    assert isinstance(error, Transient), error
    assert elapsed < 5 * 2 * SECONDS + 5, (
        "five attempts, each until the connection was given up, and the pauses between them"
    )
    assert error.where["dataset"] == "people" and error.where["system"] == "platform"
    assert "110101001000" in str(error.where["region"])
    assert error.zh and error.en and "/" in error.todo
    if pair.street.atomic:
        # twelve phones and twelve new records: two tables of one batch, one transaction
        assert pair.arrived(mark) in (0, 24)
    pair.edit(f"{mark}later", 5)
    if fault is None:
        pair.proxy.accept()
    pair.heal()
    pair.assert_settled()


def test_whatever_breaks_at_random_while_people_go_on_editing_both_ends_are_equal_in_the_end(
    pair: Pair, mark: str
) -> None:
    before = pair.proxy.counts["cut"] + pair.proxy.counts["reset"]
    for number in range(5):
        pair.proxy.randomly(0.8, within=30_000)
        pair.edit(f"{mark}{number}", 4)
        pair.sync()
    assert pair.proxy.counts["cut"] + pair.proxy.counts["reset"] > before, "nothing broke"
    pair.heal()
    pair.assert_settled()


@pytest.mark.usefixtures("twice")
@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_a_transaction_that_was_given_up_does_not_hold_its_locks(kind: str, tmp_path: Path) -> None:
    """The network between swallows everything: the server cannot know that we are gone, and lets go by itself."""
    with paired(kind, tmp_path) as pair:
        pair.begin(30)
        pair.edit("Z", 4)
        pair.proxy.always(Fault("stall", seen=pair.street.commits))
        assert isinstance(pair.sync(), Transient)
        started = time.monotonic()
        edited = [{**pair.wanted[key], "name": "窗口办理"} for key in sorted(pair.wanted)[:8]]
        pair.above(edited)  # the very rows that our transaction had locked
        assert time.monotonic() - started < 4 * SECONDS
        assert pair.proxy.counts["stall"], "the fault is still on"
        pair.heal()
        pair.assert_settled()


@pytest.mark.usefixtures("twice")
@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_a_statement_that_waits_for_somebodys_lock_is_broken_off_by_the_server_where_that_is_declared(
    kind: str, tmp_path: Path
) -> None:
    with paired(kind, tmp_path, statement_timeout=0.5, timeout=60) as pair:
        pair.begin(30)
        with pair.street.locked():
            error, elapsed = timed(pair)
        assert isinstance(error, Transient) and "timeout" in error.todo, error
        assert elapsed < 2 * 0.5 + 4
        pair.edit("Z", 4)
        pair.assert_settled()
