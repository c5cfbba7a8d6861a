"""What the pages of the operators' DAGs say."""

from __future__ import annotations


def pause_doc() -> str:
    """The pause DAG's page."""
    return """### 暂停与恢复 / pause and resume

暂停一条链路、一个区划（含其所有下级）或一个业务系统：不探查、不同步、不算失败，其他链路照常。恢复后下次运行从原游标补齐，不做全量重载。正在运行的同步会先完成。

Leaves a link, a region with all below it, or a system alone: neither probed nor synced, and not failed; all other links go on. Once
resumed, the next run catches up from where it stood, without a full reload. A sync that is running finishes first.

- 命令行 / by command: `fedsync pause region 110101001000 --reason …`, `fedsync resume …`, `fedsync pause list`
"""


def backfill_doc() -> str:
    """The backfill DAG's page."""
    return """### 区划补数 / backfill of a region

该区划之内、以及连接它与最上级的链路全部重新比对一次；未变化的记录不会重写，兄弟区划不受影响。

Every link inside the region, and those that join it to the top, compares all keys once. What nobody changed is not written again, and
no sibling is touched.

- 命令行 / by command: `fedsync sync --dataset resident --region 110101001000 --full`
"""
