"""Fictitious data that looks real, of any size: same tree, count and seed, same data.

Nothing here can belong to anybody: id numbers are checksummed as GB 11643 says, but begin with 1199, an area that GB/T 2260 has
never assigned; phone numbers begin with 19900. Each function returns an Arrow table with a dataset's columns in their contract
types; all work is done on whole columns, so a million residents take seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from examples.beijing import wording
from federation.regions import RegionTree

Numbers = npt.NDArray[np.int64]

TODAY = date(2026, 11, 1)
"""The day the data was "made": ages and histories are counted from it, so that they do not depend on the clock."""

_OLDEST = 100
_PER_DAY = 500
"""GB 11643 numbers the people of one area, day and sex with three digits of one parity: 500 of them."""
_AREAS = 100
_WEIGHTS = np.array([7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2])
_CHECK = "10X98765432"
_DAY_US = 86_400_000_000


def residents(tree: RegionTree, count: int, seed: int) -> pa.Table:
    """`count` residents over all communities of the tree (each has one before any has two). Keys are opaque and unique."""
    random = np.random.default_rng([seed, 1])
    places = _Places(tree)
    home = places.spread(random, count)
    male = random.random(count) < 0.503
    birth = np.datetime64(TODAY, "D").astype(np.int64) - _ages(random, count)
    age = (np.datetime64(TODAY, "D").astype(np.int64) - birth) // 365
    level = _care_levels(random, age)
    return pa.table(
        {
            "resident_id": _join("R", _padded(_scattered(random, count, 10), 10)),
            "name": _names(random, male),
            "id_number": id_numbers(birth, male),
            "gender": pc.if_else(pa.array(male), "男", "女"),
            "birth_date": pa.array(birth.astype(np.int32)).cast(pa.date32()),
            "address": _join(places.titles(home), _dwellings(random, count)),
            "community_code": places.codes(home),
            "phone": _phones(random, count, missing=0.03),
            "care_level": _take(wording.CARE_LEVELS, level),
            "care_note": _care_notes(random, level),
        }
    )


def facilities(tree: RegionTree, count: int, seed: int) -> pa.Table:
    """`count` public facilities over all communities of the tree."""
    random = np.random.default_rng([seed, 2])
    places = _Places(tree)
    home = places.spread(random, count)
    kind = random.integers(0, len(wording.FACILITIES), count)
    least = np.array([low for _, low, _ in wording.FACILITIES])[kind]
    most = np.array([high for _, _, high in wording.FACILITIES])[kind]
    names = _take([name for name, _, _ in wording.FACILITIES], kind)
    opened = np.datetime64(TODAY, "D").astype(np.int64) - random.integers(30, 9000, count)
    return pa.table(
        {
            "facility_id": _join("F", _padded(np.arange(1, count + 1), 7)),
            "name": _join(places.names(home), names),
            "kind": names,
            "address": _join(places.titles(home), _text(random.integers(1, 200, count)), "号"),
            "community_code": places.codes(home),
            "capacity": pa.array(random.integers(least, most + 1), pa.int64()),
            "opened_on": pa.array(opened.astype(np.int32)).cast(pa.date32()),
        }
    )


def work_orders(tree: RegionTree, count: int, seed: int) -> pa.Table:
    """`count` hotline work orders of the last 90 days over all streets of the tree, at every stage of handling."""
    random = np.random.default_rng([seed, 3])
    places = _Places(tree)
    home = places.spread(random, count)
    topic = random.integers(0, len(wording.TOPICS), count)
    status = np.searchsorted(np.cumsum([0.35, 0.25, 0.32]), random.random(count))
    waiting, handled, returned = status == 0, status == 2, status == 3
    end = int(datetime(TODAY.year, TODAY.month, TODAY.day, tzinfo=UTC).timestamp()) * 1_000_000
    dispatched = np.sort(end - random.integers(0, 90 * _DAY_US // 1_000_000, count) * 1_000_000)
    when = pa.array(dispatched, pa.timestamp("us", "UTC"))
    day = pc.strftime(pc.cast(when, pa.timestamp("us", "Asia/Shanghai")), format="%Y%m%d")
    handler = _take(wording.HANDLERS, random.integers(0, len(wording.HANDLERS), count))
    reason = _take(wording.RETURN_REASONS, random.integers(0, len(wording.RETURN_REASONS), count))
    return pa.table(
        {
            "order_no": _join("GD", day, "-", _padded(np.arange(1, count + 1), 7)),
            "title": _join(places.names(home), _take([title for _, title, _, _ in wording.TOPICS], topic)),
            "content": _join(
                "市民反映：", places.titles(home), _take([content for _, _, content, _ in wording.TOPICS], topic)
            ),
            "category": _take([category for category, _, _, _ in wording.TOPICS], topic),
            "caller_phone": _phones(random, count, missing=0.0),
            "street_code": places.street_codes(home),
            "dispatched_at": when,
            "status": _take(wording.STATUSES, status),
            "handler": _only(handler, ~waiting),
            "result": _only(_take([result for _, _, _, result in wording.TOPICS], topic), handled),
            "return_reason": _only(reason, returned),
        }
    )


def visits(tree: RegionTree, count: int, seed: int, *, among: pa.Table) -> pa.Table:
    """`count` visits of the last 60 days to residents of the table `among`, not yet replied to; none if it is empty.

    A visit's community is its resident's. Visits of one community are numbered from 1.
    """
    count = count if among.num_rows else 0
    random = np.random.default_rng([seed, 4])
    people = among.select(["community_code", "resident_id"]).sort_by([("community_code", "ascending")]).combine_chunks()
    home = np.asarray(_column(people, "community_code").dictionary_encode().indices, dtype=np.int64)
    first = np.flatnonzero(_rank(home) == 0)[:count]  # one in each community, the others anywhere
    more = random.integers(0, max(1, home.size), count - first.size)
    seen = people.take(pa.array(np.sort(np.concatenate([first, more]))))
    code = _column(seen, "community_code")
    known = set(places := [region.code for region in tree.at("community")])
    if not set(pc.unique(code).to_pylist()) <= known:
        raise ValueError(f"`among` holds residents outside the tree's {len(places)} communities")
    where = np.asarray(code.dictionary_encode().indices, dtype=np.int64)
    days = np.datetime64(TODAY, "D").astype(np.int64) - random.integers(0, 60, count)
    visitor = random.integers(0, 2, count).astype(bool)
    return pa.table(
        {
            "visit_id": _join("V", code, "-", _padded(_rank(where) + 1, 5)),
            "resident_id": _column(seen, "resident_id"),
            "community_code": code,
            "visited_on": pa.array(days.astype(np.int32)).cast(pa.date32()),
            "visitor": _names(random, visitor),
            "summary": _take(wording.SUMMARIES, random.integers(0, len(wording.SUMMARIES), count)),
            "reply": pa.nulls(count, pa.string()),
            "replied_by": pa.nulls(count, pa.string()),
        }
    )


def id_numbers(birth: Numbers, male: npt.NDArray[np.bool_]) -> pa.Array:
    """Unique 18-digit numbers (GB 11643) of an area that does not exist, for days since 1970 and sexes (odd is male).

    Raises ValueError if more than 50 000 people of one sex were born on one day: there are no more numbers.
    """
    rank = _rank(birth * 2 + male)
    if rank.size and int(rank.max()) >= _AREAS * _PER_DAY:
        raise ValueError("too many people were born on one day; there are no more id numbers")
    days = birth.astype("datetime64[D]")
    months = days.astype("datetime64[M]")
    year = months.astype("datetime64[Y]").astype(np.int64) + 1970
    month = months.astype(np.int64) % 12 + 1
    day = (days - months.astype("datetime64[D]")).astype(np.int64) + 1
    area = 119900 + rank // _PER_DAY
    body = ((area * 10_000 + year) * 100 + month) * 100 + day
    body = body * 1000 + 2 * (rank % _PER_DAY) + male
    digits = body[:, None] // 10 ** np.arange(16, -1, -1, dtype=np.int64) % 10
    return _join(_text(body), _take(list(_CHECK), (digits * _WEIGHTS).sum(axis=1) % 11))


class _Places:
    """The communities of a tree as columns, addressed by number."""

    def __init__(self, tree: RegionTree) -> None:
        communities = tree.at("community")
        streets = [tree.ancestor(region.code, "street") for region in communities]
        districts = [tree.ancestor(region.code, "district") for region in communities]
        cities = [tree.ancestor(region.code, "city") for region in communities]
        self._codes = [region.code for region in communities]
        self._streets = [region.code if region else None for region in streets]
        self._names = [region.name.removesuffix("居委会").removesuffix("村委会") for region in communities]
        above = zip(cities, districts, streets, self._names)
        self._titles = ["".join([*(region.name if region else "" for region in rest), name]) for *rest, name in above]

    def spread(self, random: np.random.Generator, count: int) -> Numbers:
        """Communities for `count` records: large and small ones, in no order, and none left out while there are enough."""
        number = len(self._codes)
        if not number:
            raise ValueError("the tree has no community")
        share = random.lognormal(0.0, 0.4, number)
        first = random.permutation(number)[:count]
        more = random.choice(number, count - first.size, p=share / share.sum())
        return random.permutation(np.concatenate([first, more])).astype(np.int64)

    def codes(self, at: Numbers) -> pa.Array:
        return _take(self._codes, at)

    def street_codes(self, at: Numbers) -> pa.Array:
        return _take(self._streets, at)

    def names(self, at: Numbers) -> pa.Array:
        """`多福巷社区`"""
        return _take(self._names, at)

    def titles(self, at: Numbers) -> pa.Array:
        """`北京市东城区东华门街道多福巷社区`"""
        return _take(self._titles, at)


def _ages(random: np.random.Generator, count: int) -> Numbers:
    """Days lived, shaped like a big city: few children, many at work, a long tail of the old."""
    years = random.beta(2.1, 2.5, count) * _OLDEST
    found: Numbers = (years * 365.2425).astype(np.int64)
    return found


def _names(random: np.random.Generator, male: npt.NDArray[np.bool_]) -> pa.Array:
    count = male.size
    weights = np.array([weight for _, weight in wording.SURNAMES])
    surname = random.choice(len(weights), count, p=weights / weights.sum())
    men, women = wording.MALE + wording.NEUTRAL, wording.FEMALE + wording.NEUTRAL

    def given() -> pa.Array:
        his = _take(list(men), random.integers(0, len(men), count))
        hers = _take(list(women), random.integers(0, len(women), count))
        return pc.if_else(pa.array(male), his, hers)

    second = pc.if_else(pa.array(random.random(count) < 0.15), "", given())
    return _join(_take([name for name, _ in wording.SURNAMES], surname), given(), second)


def _dwellings(random: np.random.Generator, count: int) -> pa.Array:
    building, unit = random.integers(1, 31, count), random.integers(1, 6, count)
    room = random.integers(1, 7, count) * 100 + random.integers(1, 5, count)
    return _join(_text(building), "号楼", _text(unit), "单元", _text(room), "室")


def _phones(random: np.random.Generator, count: int, *, missing: float) -> pa.Array:
    """19900 and six digits or more as the count needs; some people have none."""
    width = max(4, len(str(count)))
    if width > 8:
        raise ValueError("there are no more phone numbers: at most 99 999 999 records")
    found = _text(19_900_000_000 + _scattered(random, count, width))
    return _only(found, random.random(count) >= missing)


def _care_levels(random: np.random.Generator, age: Numbers) -> Numbers:
    """0 无, 1 一般, 2 重点; the older, the likelier."""
    some = np.where(age >= 80, 0.65, np.where(age >= 65, 0.30, 0.06))
    drawn = random.random(age.size)
    found: Numbers = np.where(drawn < some * 0.3, 2, np.where(drawn < some, 1, 0)).astype(np.int64)
    return found


def _care_notes(random: np.random.Generator, level: Numbers) -> pa.Array:
    note = _take(wording.CARE_NOTES, random.integers(0, len(wording.CARE_NOTES), level.size))
    return _only(note, (level == 2) | ((level == 1) & (random.random(level.size) < 0.5)))


def _scattered(random: np.random.Generator, count: int, width: int) -> Numbers:
    """`count` different numbers of at most `width` digits that follow no order. Needs count ≤ 10^width."""
    size = 10**width
    if count > size:
        raise ValueError(f"there are only {size} numbers of {width} digits")
    # A step without a factor in common with 10 visits every number once; kept small enough for 64 bits.
    step = int(random.integers(1, max(2, min(size, 2**62 // max(1, count)) // 10))) * 10 + 7
    found: Numbers = (np.arange(count, dtype=np.int64) * step + int(random.integers(0, size))) % size
    return found


def _rank(values: Numbers) -> Numbers:
    """For each value, how many equal ones stand before it."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if values.size else np.empty(0, np.int64)
    rank = np.empty(values.size, np.int64)
    rank[order] = np.arange(values.size) - np.repeat(starts, np.diff(np.r_[starts, values.size]))
    return rank


def _take(texts: Sequence[str | None], at: Numbers) -> pa.Array:
    return pc.take(pa.array(texts, pa.string()), pa.array(at))


def _only(values: pa.Array, where: npt.NDArray[np.bool_]) -> pa.Array:
    return pc.if_else(pa.array(where), values, pa.scalar(None, pa.string()))


def _text(numbers: Numbers) -> pa.Array:
    return pc.cast(pa.array(numbers), pa.string())


def _padded(numbers: Numbers, width: int) -> pa.Array:
    return pc.utf8_lpad(_text(numbers), width=width, padding="0")


def _join(*parts: pa.Array | str) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")


def _column(rows: pa.Table, name: str) -> pa.Array:
    column = rows.column(name)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
