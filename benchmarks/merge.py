"""The pure merge: 1 M keys per side, 1 % changed, complete reads. Target: a plan in 2.5 s on two cores, under 1.5 GB.

Run: `python -m benchmarks.merge [keys]`. Beside it, in the same run: DuckDB's bare full join of the same three tables, which is
the least that any three-way comparison has to do. With FEDSYNC_MEMORY=1GB and 10 000 000 keys it shows that a link may be larger than
memory: the joins spill.
"""

from __future__ import annotations

import resource
import sys
import time

import pyarrow as pa

from federation.canonical import fingerprints
from federation.contract import Dataset, LinkContract
from federation.merge import Side, advance, merge, side_schema
from federation.vector import tables

NOTHING = pa.array([], pa.string())


def contract() -> LinkContract:
    """Two groups, one per direction."""
    fields = {
        "id": {"label": "编号", "authority": "city"},
        "area": {"label": "属地", "authority": "city"},
        "name": {"label": "姓名", "authority": "city"},
        "phone": {"label": "手机号", "authority": "community"},
    }
    dataset = Dataset.model_validate(
        {
            "name": "d",
            "label": "数据",
            "levels": ["city", "community"],
            "key": ["id"],
            "jurisdiction": "area",
            "originates": ["city"],
            "fields": fields,
        }
    )
    return LinkContract(dataset, "city", "community")


def side(rows: pa.Table, link: LinkContract) -> pa.Table:
    """Rows as one end of the merge."""
    hashed = fingerprints(rows, link.dataset, {group.name: group.fields for group in link.groups}, b"benchmark")
    count = hashed.num_rows
    told = {"state": pa.repeat("have", count), "version": pa.nulls(count, pa.int64())}
    no = pa.repeat(False, count)
    columns = {field.name: told.get(field.name, no) for field in side_schema(link.groups)}
    return pa.table({**columns, **{name: hashed.column(name) for name in hashed.column_names}}).select(list(columns))


def people(count: int, suffix: str) -> pa.Table:
    """So many rows; `suffix`: a SQL expression over the row's number `i`, appended to the name."""
    with tables() as engine:
        return engine.sql(
            f"""SELECT 'R' || lpad(CAST(i AS VARCHAR), 10, '0') AS id, '1' AS area, 'n' || i || {suffix} AS name,
                       '13800000000' AS phone FROM range({count}) AS r(i)"""
        ).to_arrow_table()


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    link = contract()
    plain = people(count, "''")
    started = time.perf_counter()
    settled = side(plain, link)
    hashing = time.perf_counter() - started
    upper = Side(side(people(count, "CASE WHEN i % 100 = 0 THEN 'x' ELSE '' END"), link), True, NOTHING)
    baseline = settled.select(["key", *(f"fp_{group.name}" for group in link.groups)])
    lower = Side(settled, True, NOTHING)
    started = time.perf_counter()
    with tables(b=baseline, u=upper.rows, l=lower.rows) as engine:
        engine.sql(
            "SELECT count(*) FROM b FULL JOIN u USING (key) FULL JOIN l USING (key) WHERE u.fp_city <> b.fp_city OR l.fp_city <> b.fp_city"
        ).fetchall()
    joining = time.perf_counter() - started
    started = time.perf_counter()
    plan = merge(baseline, upper, lower, link)
    merging = time.perf_counter() - started
    started = time.perf_counter()
    after = advance(plan, NOTHING, NOTHING)
    advancing = time.perf_counter() - started
    assert plan.decisions.num_rows == after.upserts.num_rows == (count + 99) // 100
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{count:,} keys per side, {plan.decisions.num_rows:,} decisions")
    print(f"fingerprints of one side  {hashing:6.2f} s")
    print(f"bare three-way join       {joining:6.2f} s")
    print(f"merge                     {merging:6.2f} s   {merging / joining:.2f} x the bare join")
    print(f"advance the baseline      {advancing:6.2f} s")
    print(f"peak memory               {peak:6.0f} MB (inputs included)")


if __name__ == "__main__":
    main()
