"""The Data Docs page of one node: Great Expectations' own, stripped of every value before it is drawn, and needing no internet.

Only what is on a list of harmless things is taken over: how many records were judged and how many failed, the fields a rule is
about, its severity and its reason. Observed values, samples, failing keys, the arguments of rules (which a profile may have taken
from the data) and the messages of exceptions are never looked at, so nothing that Great Expectations may add to its results can
end up on a page. Its templates draw the body; the frame is ours (`pages/node.j2`), for theirs loads scripts and styles from CDNs.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from federation.config import Config
from federation.contract import Dataset
from federation.gate_expectations import quiet
from federation.gate_kinds import REPORT_KINDS
from federation.gate_reason import Reason
from federation.gate_suite import Rule
from federation.quality_expectations import Judged
from federation.regions import LEVEL_ZH

_COUNTS = ("element_count", "unexpected_count", "missing_count", "unexpected_percent", "missing_percent")
_SEVERITY = {"critical": "严重 critical", "warning": "提醒 warning", "info": "提示 info"}
_SHARES = {"% not null": "% 已填 filled", "% null": "% 为空 empty", "% unexpected": "% 不符合 fail"}
_HOLE = "\0"
_CLAUSE = re.compile(r"[，,；;]")
_LABELS = {
    "Overview": "概况 Overview",
    "Table-Level Expectations": "多字段与整表规则 Rules on several fields or the whole table",
    "Statistics": "统计 Statistics",
    "Evaluated Expectations": "规则 rules",
    "Successful Expectations": "通过 hold",
    "Unsuccessful Expectations": "未通过 fail",
    "Success Percent": "通过率 share that holds",
    "Run Info": "本次运行 This run",
    "Info": "运行 run",
    "Great Expectations Version": "Great Expectations 版本 version",
    "Run Name": "节点 node",
    "Run Time": "时间 time",
    "${suite_title} ${expectation_suite_name}\n ${data_asset} ${data_asset_name}\n ${status_title} ${html_success_icon} ${success}": "${html_success_icon} ${success}",
    "\n\n$unexpected_count unexpected values found. $unexpected_percent of $element_count total rows.": "\n$unexpected_count 条不符合 records fail ($unexpected_percent)",
    "--": "–",
    "Status": "状态 Status",
    "Expectation": "规则 Rule",
    "Observed Value": "结果 Result",
    "Succeeded": "全部通过 all hold",
    "Failed": "有未通过 some fail",
}


def node_page(config: Config, dataset: Dataset, region: str, judged: Sequence[Judged], at: datetime) -> str:
    """One node's Data Docs: the page that Great Expectations makes of the cleaned results, in a frame of our own."""
    place = config.tree[region]
    local = at.astimezone(ZoneInfo(config.spec.timezone))
    made = document(cleaned(judged, f"{dataset.label} {dataset.name}", str(place), local))
    labels = _LABELS | {name: f"{field.label} {name}" for name, field in dataset.fields.items()}
    faults = [str(one.rule.name) for one in judged if one.fault is not None]
    page: str = (
        drawing()
        .get_template("node.j2")
        .render(
            **_translated(made, labels),
            dataset=dataset,
            region=place,
            level=LEVEL_ZH[place.level],
            checked=f"{local:%Y-%m-%d %H:%M}",
            faults=faults,
        )
    )
    return page


def _translated(part: Any, labels: dict[str, str]) -> Any:
    """A page's words in both languages; everything else as it is."""
    if isinstance(part, dict):
        return {name: _translated(value, labels) for name, value in part.items()}
    if isinstance(part, list):
        return [_translated(value, labels) for value in part]
    if not isinstance(part, str):
        return part
    for word, told in _SHARES.items():
        if part.endswith(word):
            return part.removesuffix(word) + told
    return labels.get(part, part)


def text_of(reason: Reason) -> str:
    """A reason without the record that it was written for: clauses that quote a value are left out, or, if all do, it reads …."""
    text = "".join(part if isinstance(part, str) else _HOLE for part in reason.parts)
    if _HOLE not in text:
        return text
    kept = [clause for clause in _CLAUSE.split(text) if _HOLE not in clause]
    comma = "，" if "，" in text else ","
    return comma.join(kept) if kept else text.replace(_HOLE, "…")


def cleaned(judged: Sequence[Judged], dataset: str, node: str, at: datetime) -> Any:
    """A suite result of Great Expectations that holds nothing but what the module promises, ready for its page renderer."""
    from great_expectations.core.expectation_validation_result import (
        ExpectationSuiteValidationResult,
        ExpectationValidationResult,
    )

    shown = [one for one in judged if one.fault is None]
    results = [
        ExpectationValidationResult(
            success=one.result is None or bool(one.result.success),
            expectation_config=_configuration(one.rule),
            result=_counts(one),
            meta={},
            exception_info={"raised_exception": False, "exception_message": None, "exception_traceback": None},
        )
        for one in shown
    ]
    good = sum(bool(result.success) for result in results)
    return ExpectationSuiteValidationResult(
        success=good == len(results),
        results=results,
        suite_name=dataset,
        meta={"run_id": {"run_name": node, "run_time": at.isoformat()}},
        statistics={
            "evaluated_expectations": len(results),
            "successful_expectations": good,
            "unsuccessful_expectations": len(results) - good,
            "success_percent": 100 * good / len(results) if results else None,
        },
    )


def document(result: Any) -> dict[str, Any]:
    """The page that Great Expectations makes of a suite result, before it is drawn."""
    with quiet():
        from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer

        made: dict[str, Any] = ValidationResultsPageRenderer(run_info_at_end=True).render(result).to_json_dict()
    return made


def drawing() -> Any:
    """Great Expectations' own templates (a jinja2 environment), for a page that needs nothing from the internet."""
    with quiet():
        from great_expectations.render.view.view import DefaultJinjaPageView
        from jinja2 import ChoiceLoader, PackageLoader

        environment: Any = DefaultJinjaPageView().env
        environment.loader = ChoiceLoader([PackageLoader("federation", "pages"), environment.loader])
    return environment


def _counts(one: Judged) -> dict[str, Any]:
    if one.result is None or one.rule.kind in REPORT_KINDS:
        return {}
    return {name: one.result.result[name] for name in _COUNTS if one.result.result.get(name) is not None}


def _configuration(rule: Rule) -> Any:
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    class Described(ExpectationConfiguration):
        """A rule of which no argument is left: its description is all that can be drawn."""

        def to_domain_obj(self) -> Any:
            return self

    severity = f'<span class="cell {rule.severity}">{_SEVERITY[rule.severity]}</span>'
    lines = (f"{severity} {html.escape(text_of(rule.zh))}", f'<span class="en">{html.escape(text_of(rule.en))}</span>')
    about = {"column": rule.columns[0]} if rule.domain == "column" else {}
    return Described(type=rule.kind, kwargs=about, description="\n".join(lines))
