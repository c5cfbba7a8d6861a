"""`python -m tests.mutation [name …] [-j 2] [--all] [--timeout s]`: break each promise in a copy of the tree and run the tests there.

Exits with 1 if a mutant survives, if one does not even run, or if the tests fail on the unmutated copy.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.mutation.mutants import ENGINE, MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
NEEDED = ("federation", "connectors", "expectations", "examples", "tests", "dags", "plugins", "docs", "pyproject.toml")
UNFIT = re.compile(r"SyntaxError|NameError|ImportError|_?duckdb\.|error during collection")
"""A mutant that fails in this way breaks no promise: it does not run."""


@dataclass(frozen=True)
class Verdict:
    """What the tests said. `word`: `caught`, `caught (hang)`, `SURVIVED` or `UNFIT`; `by`: the test that failed, and how."""

    word: str
    by: str
    seconds: float


def copied(folder: Path) -> Path:
    """The tree as it is now, uncommitted work included, in a folder of its own."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *NEEDED],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def tested(folder: Path, tests: Sequence[str], timeout: float) -> Verdict:
    """Run tests in a folder until one fails."""
    started = time.monotonic()
    # without bytecode: a file that is mutated twice within a second would be taken for its last mutant
    process = subprocess.Popen(
        [sys.executable, "-B", "-m", "pytest", "-x", "-q", "--tb=line", "-p", "no:cacheprovider", *tests],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "300"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        told, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return Verdict("caught (hang)", f"not done after {timeout:.0f} s", time.monotonic() - started)
    took = time.monotonic() - started
    if process.returncode == 0:
        return Verdict("SURVIVED", "", took)
    failed = re.search(r"^(?:FAILED|ERROR) (.*)$", told, re.MULTILINE)
    if process.returncode != 1 or failed is None or UNFIT.search(failed[1]):
        return Verdict("UNFIT", told[-2000:], took)
    return Verdict("caught", failed[1], took)


def judged(mutant: Mutant, folders: SimpleQueue[Path], tests: Sequence[str], timeout: float) -> Verdict:
    """Break one promise in a free copy, test it, and mend it."""
    folder = folders.get()
    try:
        path = folder / mutant.path
        whole = path.read_text(encoding="utf-8")
        path.write_text(mutant.applied(whole), encoding="utf-8")
        try:
            return tested(folder, tests, timeout)
        finally:
            path.write_text(whole, encoding="utf-8")
    finally:
        folders.put(folder)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help="which mutants; none: all of them")
    parser.add_argument("-j", "--jobs", type=int, choices=(1, 2), default=2, help="how many at once")
    parser.add_argument("--all", action="store_true", help="run all tests of the engine against each mutant (hours)")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds after which a mutant counts as hanging")
    given = parser.parse_args()
    known = {mutant.name: mutant for mutant in MUTANTS}
    if unknown := set(given.names) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    chosen = [known[name] for name in given.names] or list(MUTANTS)
    tests = {mutant: ENGINE if given.all else mutant.tests for mutant in chosen}
    verdicts: dict[str, Verdict] = {}
    with tempfile.TemporaryDirectory(prefix="fedsync-mutants-") as place, ThreadPoolExecutor(given.jobs) as pool:
        folders: SimpleQueue[Path] = SimpleQueue()
        for number in range(given.jobs):
            folders.put(copied(Path(place) / str(number)))
        whole = sorted({test for mutant in chosen for test in tests[mutant]})
        baseline = tested(Path(place) / "0", whole, 10 * given.timeout)
        print(f"{'unmutated':34} {'passes' if baseline.word == 'SURVIVED' else 'FAILS'} {baseline.seconds:6.0f} s")
        if baseline.word != "SURVIVED":
            print(baseline.by)
            return 1
        found = pool.map(lambda mutant: judged(mutant, folders, tests[mutant], given.timeout), chosen)
        for mutant, verdict in zip(chosen, found):
            verdicts[mutant.name] = verdict
            by = verdict.by.removeprefix("tests/").replace("\n", " ")[:160]
            print(f"{mutant.name:34} {verdict.word:13} {verdict.seconds:4.0f} s  {by}", flush=True)
    alive = [name for name, verdict in verdicts.items() if not verdict.word.startswith("caught")]
    print(f"{len(chosen) - len(alive)} of {len(chosen)} mutants caught")
    for name in alive:
        print(f"{verdicts[name].word}: {name}: {known[name].promise}\n{verdicts[name].by}")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
