"""The vector engine: a kept plan answers for other rows, from several threads, and work larger than memory spills."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from federation.vector import KEPT, MEMORY, SMALL, query

SUMS = "SELECT key, sum(x) AS total FROM t LEFT JOIN known USING (key) GROUP BY key ORDER BY key"


def numbers(**values: int) -> pa.Table:
    return pa.table({"key": pa.array(values, pa.string()), "x": pa.array(values.values(), pa.int64())})


def test_a_kept_plan_answers_for_the_rows_of_now() -> None:
    known = pa.table({"key": ["a"]})
    for x in range(3):
        assert query(SUMS, t=numbers(a=x, b=x + 1), known=known).to_pylist() == [
            {"key": "a", "total": x},
            {"key": "b", "total": x + 1},
        ]
    assert query(SUMS, t=numbers(), known=known).num_rows == 0


def test_a_table_of_another_shape_gets_a_plan_of_its_own() -> None:
    statement = "SELECT max(x) AS most FROM t"
    assert query(statement, t=pa.table({"x": [1, 2]})).to_pylist() == [{"most": 2}]
    assert query(statement, t=pa.table({"x": ["a", "b"]})).to_pylist() == [{"most": "b"}]


def test_small_and_large_tables_are_answered_alike() -> None:
    statement = "SELECT count(*) AS n, sum(x) AS total FROM t"
    for count in (SMALL, SMALL + 1):
        (found,) = query(statement, t=pa.table({"x": range(count)})).to_pylist()
        assert (found["n"], int(found["total"])) == (count, count * (count - 1) // 2)


def test_threads_that_ask_the_same_at_once_get_their_own_answers() -> None:
    def ask(x: int) -> int:
        (found,) = query("SELECT sum(x) AS total FROM t", t=pa.table({"x": [x] * 50})).to_pylist()
        return int(found["total"])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(400))) == [x * 50 for x in range(400)]


def test_a_statement_that_fails_says_so_and_the_next_one_works() -> None:
    statement = "SELECT CAST(x AS BIGINT) AS n FROM t"
    for _ in range(2):
        with pytest.raises(Exception, match="Conversion"):
            query(statement, t=pa.table({"x": ["no number"]}))
        assert query(statement, t=pa.table({"x": ["7"]})).to_pylist() == [{"n": 7}]


def test_a_process_that_asks_ever_new_questions_does_not_keep_them_all() -> None:
    for number in range(KEPT + 10):
        assert query(f"SELECT x + {number} AS y FROM t", t=pa.table({"x": [1]})).to_pylist() == [{"y": number + 1}]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_an_engine_of_its_own() -> None:
    query("SELECT x FROM t", t=pa.table({"x": [1]}))
    code = (
        "import os, sys, pyarrow as pa\nfrom federation.vector import query\n"
        "ask = lambda: query('SELECT x FROM t', t=pa.table({'x': [1]})).to_pylist()\nask()\n"
        "pid = os.fork()\n"
        "if pid == 0: os._exit(0 if ask() == [{'x': 1}] else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False, timeout=60).returncode == 0


SORT = (
    "import os, stat, pathlib, tempfile, pyarrow as pa\nfrom federation.vector import query\n"
    "many = pa.table({'x': range(3_000_000), 'y': ['some text of a record'] * 3_000_000})\n"
    "print(query('SELECT x, y FROM t ORDER BY -x', t=many).column('x')[0])\n"
    "folder = pathlib.Path(tempfile.gettempdir(), f'fedsync-{os.getuid()}')\n"
    "print((folder / str(os.getpid())).exists(), oct(stat.S_IMODE(folder.stat().st_mode)))"
)


@pytest.mark.parametrize(("memory", "spills"), [("", "False"), ("150MB", "True")])
def test_work_larger_than_the_memory_it_is_granted_spills_where_nobody_else_may_read(
    tmp_path: Path, memory: str, spills: str
) -> None:
    left = tmp_path / f"fedsync-{os.getuid()}" / "999999999"
    left.mkdir(parents=True)
    given = {**os.environ, MEMORY: memory, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", SORT], env=given, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2999999", spills, "0o700"]
    assert not left.exists(), "what a process that was killed left behind stays for ever"
