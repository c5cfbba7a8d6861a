"""Formats of an xlsx package: finding or adding the one that a cell needs, without touching those that are there.

A cell names a format (an `xf`) by its number. Formats are only ever added at the end, so no other cell changes its look.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from openpyxl.styles.numbers import BUILTIN_FORMATS

from connectors.xlsx_parts import STYLES, Odd, Parts

_BUILTIN: dict[str, int] = {code: number for number, code in BUILTIN_FORMATS.items()}
_XF = re.compile(r"<xf\b[^>]*?/>|<xf\b[^>]*?>.*?</xf>", re.DOTALL)
_FIRST_CUSTOM = 164


@dataclass(frozen=True)
class Look:
    """What a cell of the engine's looks like. `fill`: `RRGGBB` of a solid ground, "" for none."""

    code: str
    locked: bool = True
    fill: str = ""
    quoted: bool = False
    bold: bool = False
    horizontal: str = ""
    vertical: str = ""
    wrapped: bool = False


class Styles:
    """The formats of one package. Call `store` once all are found."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._xml = parts.text(STYLES)
        inside = _block(self._xml, "cellXfs")
        self._formats: list[str] = _XF.findall(inside)
        if not self._formats or "<cellXfs" not in self._xml or len(self._formats) != inside.count("<xf"):
            raise Odd("the list of formats is not as expected")
        self._known = len(self._formats)
        self._of_text: dict[str, int] = {xml: number for number, xml in reversed(list(enumerate(self._formats)))}
        tree = ElementTree.fromstring(self._xml)
        self._codes = {int(f.get("numFmtId", 0)): f.get("formatCode", "") for f in _children(tree, "numFmts")}
        self._fonts = [_font_key(font) for font in _children(tree, "fonts")]
        self._fills = [_fill_key(fill) for fill in _children(tree, "fills")]
        self._added: dict[str, list[str]] = {"numFmts": [], "fonts": [], "fills": []}
        self._derived: dict[tuple[int, str | None, bool], int] = {}

    def code(self, number: int) -> str:
        """The number format of a format."""
        if number >= len(self._formats):
            return "General"
        found = int(_attribute(self._formats[number], "numFmtId") or 0)
        return self._codes.get(found) or BUILTIN_FORMATS.get(found, "General")

    def derived(self, number: int, code: str | None, *, quoted: bool) -> int:
        """A format like another, with this number format (None: its own), and a mark that its text is no formula, or none."""
        wanted = (number, code, quoted)
        found = self._derived.get(wanted)
        if found is None:
            found = self._derived[wanted] = self._derive(number, code, quoted)
        return found

    def _derive(self, number: int, code: str | None, quoted: bool) -> int:
        xml = self._formats[number] if number < len(self._formats) else self._formats[0]
        if code is not None and code != self.code(number):
            xml = _with(_with(xml, "numFmtId", str(self._code_number(code))), "applyNumberFormat", "1")
        if quoted != (_attribute(xml, "quotePrefix") in ("1", "true")):
            xml = _with(xml, "quotePrefix", "1" if quoted else None)
        return self._number(xml)

    def look(self, look: Look) -> int:
        """The format of a look: one that is there already, whoever wrote it, or a new one."""
        found: int | None = self._looks.get(look)
        if found is None:
            found = self._looks[look] = self._number(self._written(look))
        return found

    @cached_property
    def _looks(self) -> dict[Look, int]:
        """The looks of the formats that are there; the first of each counts."""
        found: dict[Look, int] = {}
        for number, xml in enumerate(self._formats):
            seen = self._seen(number, xml)
            if seen is not None:
                found.setdefault(seen, number)
        return found

    def _seen(self, number: int, xml: str) -> Look | None:
        """The look of a format; None if it is more than a look can say."""
        try:
            element: ElementTree.Element = ElementTree.fromstring(xml)
        except ElementTree.ParseError:  # an extension whose prefix is declared further out
            return None
        font = self._fonts[int(element.get("fontId", 0))]
        fill = self._fills[int(element.get("fillId", 0))]
        bold = font == self._bold
        if int(element.get("borderId", 0)) or fill is None or not (bold or font == self._fonts[0]):
            return None
        look = Look(self.code(number), fill=fill, bold=bold, quoted=element.get("quotePrefix") in ("1", "true"))
        for child in element:
            if child.tag.endswith("protection"):
                look = replace(look, locked=child.get("locked") not in ("0", "false"))
            elif child.tag.endswith("alignment"):
                words = {"horizontal", "vertical", "wrapText"}
                if any(name not in words and value not in ("0", "false") for name, value in child.attrib.items()):
                    return None
                look = replace(
                    look,
                    horizontal=child.get("horizontal", ""),
                    vertical=child.get("vertical", ""),
                    wrapped=child.get("wrapText") in ("1", "true"),
                )
        return look

    def _written(self, look: Look) -> str:
        fill = 0 if not look.fill else self._fill_number(look.fill)
        font = self._font_number() if look.bold else 0
        attributes = f'numFmtId="{self._code_number(look.code)}" fontId="{font}" fillId="{fill}" borderId="0" xfId="0"'
        attributes += ' applyNumberFormat="1" applyFont="1" applyFill="1" applyAlignment="1" applyProtection="1"'
        attributes += ' quotePrefix="1"' if look.quoted else ""
        words = [
            f'{name}="{value}"'
            for name, value in (("horizontal", look.horizontal), ("vertical", look.vertical))
            if value
        ]
        words += ['wrapText="1"'] if look.wrapped else []
        alignment = f"<alignment {' '.join(words)}/>" if words else ""
        return f'<xf {attributes}>{alignment}<protection locked="{int(look.locked)}"/></xf>'

    def _number(self, xml: str) -> int:
        if xml not in self._of_text:
            self._of_text[xml] = len(self._formats)
            self._formats.append(xml)
        return self._of_text[xml]

    def _code_number(self, code: str) -> int:
        if code in _BUILTIN:
            return _BUILTIN[code]
        found = next((number for number, known in self._codes.items() if known == code), None)
        if found is None:
            found = max((_FIRST_CUSTOM - 1, *self._codes)) + 1
            self._codes[found] = code
            self._added["numFmts"].append(f'<numFmt numFmtId="{found}" formatCode={quoteattr(code)}/>')
        return found

    @property
    def _bold(self) -> frozenset[tuple[str, ...]]:
        return self._fonts[0] | {("b",)}

    def _font_number(self) -> int:
        if self._bold not in self._fonts:
            first = re.search(r"<font>(.*?)</font>", _block(self._xml, "fonts"), re.DOTALL)
            if first is None:
                raise Odd("the first font is not as expected")
            self._added["fonts"].append(f"<font><b/>{first[1]}</font>")
            self._fonts.append(self._bold)
        return self._fonts.index(self._bold)

    def _fill_number(self, colour: str) -> int:
        if colour not in self._fills:
            fill = f'<fgColor rgb="FF{colour}"/><bgColor indexed="64"/>'
            self._added["fills"].append(f'<fill><patternFill patternType="solid">{fill}</patternFill></fill>')
            self._fills.append(colour)
        return self._fills.index(colour)

    def store(self) -> None:
        """Write the formats that were added; nothing if none was."""
        xml = self._xml
        for name, added in [*self._added.items(), ("cellXfs", self._formats[self._known :])]:
            xml = _grown(xml, name, added)
        if xml != self._xml:
            self._parts.write(STYLES, xml)
            self._xml, self._known = xml, len(self._formats)
            self._added = {name: [] for name in self._added}


def _block(xml: str, name: str) -> str:
    """What stands inside the first element of this name."""
    found = re.search(rf"<{name}\b[^>]*(?<!/)>(.*?)</{name}>", xml, re.DOTALL)
    return found[1] if found else ""


def _grown(xml: str, name: str, added: Iterable[str]) -> str:
    """The XML with elements added at the end of a list, its count mended; the list is made if there is none."""
    new = list(added)
    if not new:
        return xml
    found = re.search(rf"<{name}\b([^>]*)(?<!/)>", xml)
    if found is None:
        if name != "numFmts":
            raise Odd(f"there is no list of {name}")
        made = f'<numFmts count="{len(new)}">{"".join(new)}</numFmts>'
        return re.sub(r"(<styleSheet\b[^>]*>)", lambda root: root[1] + made, xml, count=1)
    head = found[0]
    count = _attribute(head, "count")
    grown = head if count is None else _with(head, "count", str(int(count) + len(new)))
    return xml.replace(head, grown, 1).replace(f"</{name}>", f"{''.join(new)}</{name}>", 1)


def _attribute(xml: str, name: str) -> str | None:
    """An attribute of the first tag."""
    found = re.search(rf'\b{name}="([^"]*)"', xml[: xml.index(">")])
    return found[1] if found else None


def _with(xml: str, name: str, value: str | None) -> str:
    """The XML with an attribute of its first tag set, or taken away."""
    end = xml.index(">")
    head, rest = xml[:end], xml[end:]
    head = re.sub(rf'\s{name}="[^"]*"', "", head)
    if value is None:
        return head + rest
    closed = head.endswith("/")
    return f'{head.rstrip("/").rstrip()} {name}="{value}"{"/" if closed else ""}{rest}'


def _children(tree: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return next((list(child) for child in tree if child.tag.endswith(f"}}{name}")), [])


def _font_key(font: ElementTree.Element) -> frozenset[tuple[str, ...]]:
    """A font's properties; a property that is on says so in several ways."""
    found: set[tuple[str, ...]] = set()
    for item in font:
        name = item.tag.rpartition("}")[2]
        if name == "b":
            if item.get("val") not in ("0", "false"):
                found.add(("b",))
        else:
            found.add((name, *(f"{key}={value}" for key, value in sorted(item.attrib.items()))))
    return frozenset(found)


def _fill_key(fill: ElementTree.Element) -> str | None:
    """`RRGGBB` of a solid fill, "" for none, None for any other."""
    for pattern in fill:
        kind = pattern.get("patternType", "none")
        if kind == "none":
            return ""
        colour = next((c.get("rgb") for c in pattern if c.tag.endswith("fgColor")), None)
        return colour[-6:].upper() if kind == "solid" and colour else None
    return ""
