"""What the DAGs' pages tell people who did not write them."""

from __future__ import annotations

from federation.contract import Dataset
from federation.regions import LEVEL_ZH


def hop_doc(dataset: Dataset, upper: str, lower: str) -> str:
    """A hop's page."""
    return f"""### {dataset.label}：{LEVEL_ZH[upper]} ↔ {LEVEL_ZH[lower]}

每次运行对应一个{LEVEL_ZH[upper]}级区划（分区键），与其每个{LEVEL_ZH[lower]}级下级同步一次：`collect` 只读上级一次 → `sync` 逐链路三方合并、过质量门、写入、结算 →
`announce_*` 只唤醒有新数据的下一跳。一个下级失败不影响其他下级；再次运行即可修复。

Each run is for one {upper} (the partition key) and syncs it with each of its children: `collect` reads the parent once → `sync` merges,
gates, applies and settles link by link → `announce_*` wake only the hops with news. One failing child never stops its siblings.

- 手动运行 / by hand: Trigger → partition key = 区划代码 / region code
- 失败怎么办 / what to do: `fedsync status --dataset {dataset.name}`
- 被隔离的记录 / records set aside: `fedsync quarantine list --dataset {dataset.name}`
"""


def sweep_doc(dataset: Dataset) -> str:
    """A sweep's page."""
    return f"""### {dataset.label}：巡查 / sweep

按计划（`{dataset.schedule}`）轻量探查每个节点，只为可能有变化的区划唤醒两侧的链路。连不上的节点记入日志，不影响其他节点。

Probes every node cheaply on schedule and wakes the hops only of regions that may hold news. A node that does not answer is logged.
"""


def uploads_doc(dataset: Dataset) -> str:
    """The page of the DAG that saved files wake."""
    return f"""### {dataset.label}：文件到达 / uploads

有人保存了表格或放入了文件：几秒内由触发器（triggerer）发现，本次运行核实确有新内容后，唤醒该区划的链路。同步自己写入的文件不算。
巡查 `{dataset.name}__sweep` 是兜底：此处漏看的，下次巡查会发现。SFTP、对象存储上的文件由巡查发现，或由上传方调用资产事件接口（见 docs/events.md）。

Somebody saved a workbook or dropped a file: the triggerer notices it within seconds, and this run wakes the hop of its region if there
really is something new. What a sync wrote itself does not count. The sweep `{dataset.name}__sweep` is the safety net. Files on SFTP or in
an object store are found by the sweep, or announced by whoever uploads them through the asset-event API (docs/events.md).

- 运行成功但未唤醒 / nothing woken: 文件没有新内容 / the file holds nothing new
"""


def quality_doc(dataset: Dataset, schedule: str) -> str:
    """A quality report's page."""
    return f"""### {dataset.label}：质量报告 / quality report

按计划（`{schedule}`）用 Great Expectations 检查每个节点现存的全部数据，比例与趋势记入台账，并发布静态页面；页面与日志只有条数，不含任何记录内容。
不隔离、不退回、不修改任何记录。读不到的节点不影响其他节点，页面保留其上次结果。

Judges all that each node holds on schedule, keeps shares and their trend in the ledger and publishes static pages. Pages and logs
hold counts only. It quarantines, returns and changes nothing. A node that does not answer stops no other and keeps its last result.

- 手动运行 / by hand: Trigger → 区划 / regions，或 / or `fedsync quality run {dataset.name} --region CODE`
- 趋势 / trend: `fedsync quality trend {dataset.name}`
"""


def reconcile_doc(dataset: Dataset) -> str:
    """A reconciliation's page."""
    return f"""### {dataset.label}：核对 / reconcile

{f"按计划（`{dataset.reconcile}`）" if dataset.reconcile else "由人触发，"}用摘要核对每条链路的两端，找出游标与变更表漏掉的记录（迟到的提交、恢复的备份、停用触发器时的改动），按常规合并修复。
隔离、校核、争议等有原因的差异不算损坏；仍无原因的差异使任务失败。日志只有条数。

Compares both ends of each link by digests, finds what cursors and change tables missed (late commits, restored backups, changes made with
triggers off) and repairs it by the ordinary merge. What differs for a reason is no damage; what differs without one fails the task. Logs
hold counts only.

- 手动运行 / by hand: Trigger → 区划 / regions，或 / or `fedsync reconcile {dataset.name} --region CODE`
- 是哪些记录 / which records: `fedsync reconcile {dataset.name} --dry-run --keys`
"""


def replay_doc() -> str:
    """The replay DAG's page."""
    return "### 隔离重放 / replay\n\n下次运行时重新读取并判定一条被隔离的记录。/ At its link's next run the record is read and judged anew.\n"


def release_doc() -> str:
    """The release DAG's page."""
    return "### 链路放行 / release\n\n核对数据后，让被拦截的链路下次运行通过一次保护检查。/ After a look at the data: let a held link's next run pass its guards once.\n"
