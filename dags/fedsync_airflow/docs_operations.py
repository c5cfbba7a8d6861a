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


def erase_doc() -> str:
    """The erase DAG's page."""
    return """### 删除个人记录 / erase a person's record

按《个人信息保护法》在各级节点删除一条记录，并清除引擎自存的隔离、校核、争议、豁免、暂存与托管内容；只留主键指纹与留痕。节点不可用时保持“待完成”，每小时自动重试。
触发参数（含主键与原因）由 Airflow 保存：主键应为不透明编号，原因中不写姓名。

Deletes one record at every node that holds it, and empties what the engine itself keeps of it; only the key's fingerprint stays. While a
node is down the erasure is pending, and each hour it is tried again. Airflow keeps the parameters of a run: keys should be opaque, and
the reason names no person.

- 命令行 / by command: `fedsync erase resident KEY --reason … --by …`, `fedsync erase list`, `fedsync erase finish`
"""
