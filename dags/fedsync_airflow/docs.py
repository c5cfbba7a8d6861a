"""What the DAGs' pages tell people who did not write them: what it does, what wakes it, what the numbers mean, what to do."""

from __future__ import annotations

from federation.contract import Dataset, LinkContract
from federation.regions import LEVEL_ZH

_FAILURE = """
#### 失败怎么办 / When it fails

系统无应答会自动重试；需人处理的错误不重试，日志最后一行写明原因与命令。Systems that do not answer are tried again by themselves; what needs
a person is not, and the last line of the log says why and which command helps.
"""


def _owned(dataset: Dataset, upper: str, lower: str) -> str:
    """Which fields flow which way on a hop, by their labels."""
    groups = LinkContract(dataset, upper, lower).groups
    ways = {
        "descending": f"回流 down（以{LEVEL_ZH[upper]}级或以上为准）",
        "ascending": f"上报 up（以{LEVEL_ZH[lower]}级或以下为准）",
        "shared": "双向 both ways",
    }
    lines = []
    for direction, way in ways.items():
        labels = [
            dataset.fields[name].label for group in groups if group.direction == direction for name in group.fields
        ]
        if labels:
            lines.append(f"- {way}：{'、'.join(labels)}")
    return "\n".join(lines)


def hop_doc(dataset: Dataset, upper: str, lower: str) -> str:
    """A hop's page."""
    return f"""### {dataset.label}：{LEVEL_ZH[upper]} ↔ {LEVEL_ZH[lower]}

每次运行对应一个{LEVEL_ZH[upper]}级区划（分区键），与其每个{LEVEL_ZH[lower]}级下级同步一次。一个下级失败不影响其他下级；再次运行即可修复，不会重复写入。
Each run is for one {upper} (the partition key) and syncs it with each of its children. One failing child never stops its siblings;
running again repairs, and writes nothing twice.

{_owned(dataset, upper, lower)}

#### 何时运行 / What wakes it

`{dataset.name}__sweep` 发现任一端有变化，或相邻一跳送来新数据；也可手动：Trigger → partition key = 区划代码。时效 {dataset.freshness} 分钟。
The sweep finds a change at either end, or the hop beside it delivered news; by hand: Trigger → partition key = the region's code. The
promise is {dataset.freshness} minutes.

#### 任务与数字 / Tasks and numbers

| 任务 task | 做什么 | what it does |
|---|---|---|
| `collect` | 只读上级一次，按批切分下级 | reads the parent once, cuts the children into batches |
| `sync` | 逐链路三方合并、过质量门、写入、结算 | merges, gates, applies and settles link by link |
| `announce_*` | 只唤醒有新数据的下一跳 | wakes only the hops with news |

日志每条链路一行，读 = 送出 + 未变 + 隔离 + 搁置 + 范围外；回流、上报为写入条数，括号内为删除。One line per link: read = delivered + unchanged +
quarantined + held + out of scope; down and up count rows written, in brackets those deleted.
{_FAILURE}
| 见到 | 做什么 what to do |
|---|---|
| 链路失败 link failed | `fedsync status --dataset {dataset.name}`，改正后 Clear 失败的 `sync` / mend it, then clear the failed `sync` |
| 链路被拦截 link held | 核对数据后 / after a look at the data: `fedsync link release {dataset.name}/区划代码`，或 / or DAG `fedsync__release` |
| 记录被隔离 set aside | `fedsync quarantine list --dataset {dataset.name}`；在来源处改正 / have it mended where it came from |
| 搁置 held | 待裁定或待相邻链路 / waits for a ruling or a neighbour: `fedsync correction list --dataset {dataset.name}` |
| 某条记录在哪 where is a record | `fedsync trace {dataset.name} 主键 / KEY` |
"""


def sweep_doc(dataset: Dataset) -> str:
    """A sweep's page."""
    return f"""### {dataset.label}：巡查 / sweep

按计划（`{dataset.schedule}`）轻量探查每个节点，只为可能有变化的区划唤醒两侧的链路。连不上的节点记入日志，不影响其他节点。
Probes every node cheaply on schedule and wakes the hops only of regions that may hold news. A node that does not answer is logged.

| 任务 task | 做什么 | what it does |
|---|---|---|
| `probe` | 探查，不读记录 | probes, reads no record |
| `wake__*` | 唤醒所列层级的链路；没有变化则跳过 | wakes that level's hops; skipped if nothing changed |
| `watch` | 发送告警与恢复通知、上报指标 | tells of what needs a person and what is over, sends metrics |

没有变化时只有 `probe` 与 `watch` 成功，其余跳过，属正常。When nothing changed, only `probe` and `watch` succeed and the rest is skipped: that is as it should be.
{_FAILURE}
- 连不上 cannot reach：检查该系统；恢复后下次巡查自动补上 / look at that system; the next sweep makes up for it
- `watch` 失败 failed：告警通道有误 / a channel is wrong: `fedsync alert test 通道 / CHANNEL`
- 全貌 / how all stands: `fedsync status --dataset {dataset.name}`, `fedsync metrics --dataset {dataset.name}`
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
- 日志每个节点一行：条数、规则数、未通过条数 / one line per node: records, rules, failing records
- 失败 / when it fails: 日志列出读不到的节点或无法计算的规则；改正后 Clear `examine` / the log names nodes that were not read and rules that
  could not be evaluated; mend them, then clear `examine`
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
    return """### 隔离重放 / replay

下次运行时重新读取并判定一条被隔离的记录。手动：Trigger → 隔离编号（`fedsync quarantine list`）。失败表示编号不存在或不唯一，或其链路已不在声明中。
At its link's next run the record is read and judged anew. By hand: Trigger → the quarantine id. It fails if no record, or more than one, has that id, or its link is no longer declared.
"""


def release_doc() -> str:
    """The release DAG's page."""
    return """### 链路放行 / release

核对数据后，让被拦截的链路下次运行通过一次保护检查。手动：Trigger → 链路（`resident/110101001001`）。失败表示该链路未被拦截。
After a look at the data: let a held link's next run pass its guards once. By hand: Trigger → the link. It fails if that link is not held.
"""
