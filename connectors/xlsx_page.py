"""The engine's own sheets in a workbook: small tables of texts, made anew each time they change.

Written straight into the package beside the sheets that people keep, which stay byte for byte. All cells are texts, whatever they
begin with; what people may fill in is open, the rest is grey and locked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import quoteattr

from openpyxl.utils import get_column_letter

from connectors.sheet_layout import GREY, HEADER, TEXT
from connectors.sheet_text import escaped, is_armed
from connectors.xlsx_parts import Parts, xml_text
from connectors.xlsx_styles import Look, Styles

_OPEN_ACTIONS = "formatCells formatColumns formatRows sort autoFilter"


@dataclass(frozen=True)
class Page:
    """One of the engine's sheets. `rows`: texts, as many to a row as `header` has. `open`: (row, column) from 0 that people fill in.

    `choices`: column → what its open cells choose from. `hints`: column → what is said when an open cell of it is chosen.
    `colour`: `RRGGBB` of the tab.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    widths: Sequence[int]
    colour: str
    open: frozenset[tuple[int, int]] = frozenset()
    choices: dict[int, tuple[str, ...]] = field(default_factory=dict)
    hints: dict[int, str] = field(default_factory=dict)


def with_page(content: bytes, sheets: dict[str, str], title: str, page: Page | None) -> bytes:
    """The workbook with the engine's sheet `title` as the page says, in its place; without it if there is no page.

    `sheets`: name → part, in the workbook's order. Raises Odd for a package that cannot be edited in place.
    """
    parts = Parts(content)
    if page is None:
        parts.remove_sheet(title, sheets[title])
        return parts.dump()
    styles = Styles(parts)
    xml = _xml(page, parts.namespace(), styles)
    styles.store()
    if title in sheets:
        parts.remake_sheet(sheets[title], xml)
    else:
        parts.add_sheet(title, xml)
    return parts.dump()


def _xml(page: Page, namespace: str, styles: Styles) -> str:
    width = "".join(
        f'<col min="{at}" max="{at}" width="{width}" customWidth="1"/>' for at, width in enumerate(page.widths, start=1)
    )
    pane = '<pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/><selection pane="bottomLeft"/>'
    header = styles.look(HEADER)
    rows = [_row(1, [(text, header) for text in page.header], ' ht="30" customHeight="1"')]
    for at, texts in enumerate(page.rows):
        cells = [(text, styles.look(_look((at, column) in page.open, text))) for column, text in enumerate(texts)]
        rows.append(_row(at + 2, cells, ""))
    allowed = " ".join(f'{word}="0"' for word in _OPEN_ACTIONS.split())
    return (
        '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
        f'<worksheet xmlns="{namespace}"><sheetPr><tabColor rgb="FF{page.colour}"/><pageSetUpPr fitToPage="1"/></sheetPr>'
        f'<sheetViews><sheetView workbookViewId="0">{pane}</sheetView></sheetViews><sheetFormatPr defaultRowHeight="15"/>'
        f"<cols>{width}</cols><sheetData>{''.join(rows)}</sheetData>"
        f'<sheetProtection sheet="1" {allowed}/>{_guides(page)}'
        '<pageSetup orientation="landscape" fitToWidth="1" fitToHeight="0"/></worksheet>'
    )


def _look(is_open: bool, text: str) -> Look:
    return Look(
        TEXT, locked=not is_open, fill="" if is_open else GREY, vertical="top", wrapped=True, quoted=is_armed(text)
    )


def _row(number: int, cells: list[tuple[str, int]], attributes: str) -> str:
    inner = "".join(
        f'<c r="{get_column_letter(column)}{number}" s="{style}" t="inlineStr"><is><t xml:space="preserve">'
        f"{xml_text(escaped(text))}</t></is></c>"
        if text
        else f'<c r="{get_column_letter(column)}{number}" s="{style}"/>'
        for column, (text, style) in enumerate(cells, start=1)
    )
    return f'<row r="{number}"{attributes}>{inner}</row>'


def _guides(page: Page) -> str:
    """Drop-downs and hints for the open cells."""
    made = []
    for column in sorted({*page.choices, *page.hints}):
        cells = " ".join(f"{get_column_letter(at + 1)}{row + 2}" for row, at in sorted(page.open) if at == column)
        if not cells:
            continue
        words = 'allowBlank="1"'
        formula = ""
        if column in page.choices:
            words += ' type="list" showErrorMessage="1" errorTitle="取值不在列表内" error="请从列表中选择 / choose from the list"'
            formula = f"<formula1>{xml_text(chr(34) + ','.join(page.choices[column]) + chr(34))}</formula1>"
        if column in page.hints:
            words += f' showInputMessage="1" promptTitle={quoteattr(page.header[column])} prompt={quoteattr(page.hints[column])}'
        made.append(f'<dataValidation {words} sqref="{cells}">{formula}</dataValidation>')
    return f'<dataValidations count="{len(made)}">{"".join(made)}</dataValidations>' if made else ""
