"""The mutants of `tests/mutation` stay in step with the code that they break and the tests that must notice them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutation.mutants import ENGINE, MUTANTS, Mutant

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_breaks_exactly_one_place_and_names_tests_that_exist(mutant: Mutant) -> None:
    source = (ROOT / mutant.path).read_text(encoding="utf-8")
    assert mutant.applied(source) != source
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}" in (ROOT / file).read_text(encoding="utf-8"), test
        assert file in ENGINE


def test_each_mutant_has_a_name_of_its_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 16


def test_a_mutant_whose_original_is_gone_or_stands_twice_is_refused() -> None:
    mutant = MUTANTS[0]
    for source in ("", 2 * mutant.original):
        with pytest.raises(ValueError, match=mutant.name):
            mutant.applied(source)
