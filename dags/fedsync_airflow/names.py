"""Names that the DAGs, the plugin and people share."""

from __future__ import annotations

import os

from airflow.sdk import Asset

from federation.contract import Dataset
from federation.errors import DeclarationError
from federation.regions import LEVEL_ZH


def declaration() -> str:
    """Path of the federation's declaration, from FEDSYNC_FEDERATION."""
    path = os.environ.get("FEDSYNC_FEDERATION")
    if not path:
        raise DeclarationError(
            "FEDSYNC_FEDERATION is not set",
            "未设置环境变量 FEDSYNC_FEDERATION",
            todo="指向 federation.yaml / set it to the path of federation.yaml",
        )
    return path


def hop_dag_id(dataset: Dataset, upper: str, lower: str) -> str:
    """`<dataset>__<upper>_<lower>`."""
    return f"{dataset.name}__{upper}_{lower}"


def hop_title(dataset: Dataset, upper: str, lower: str) -> str:
    """What people see: `居民 市↔区`."""
    return f"{dataset.label} {LEVEL_ZH[upper]}↔{LEVEL_ZH[lower]}"


TITLES = {"sweep": "巡查", "uploads": "文件到达", "quality": "质量报告", "reconcile": "核对"}
"""What the last word of a dataset's other DAGs, `<dataset>__<word>`, is called."""


def title(dataset: Dataset, word: str) -> str:
    """What people see: `居民 巡查`."""
    return f"{dataset.label} {TITLES[word]}"


def arrivals(dataset: Dataset, level: str, direction: str) -> Asset:
    """News that arrived at a level, `from_above` or `from_below`. Partition: the code of the region that it arrived at."""
    name = f"{dataset.name}__{level}__{direction}"
    return Asset(name=name, uri=f"fedsync://{dataset.name}/{level}/{direction}")
