"""YAML with positions: plain data, plus the line on which each key stands, so that errors can name it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from federation.errors import DeclarationError

T = TypeVar("T", bound=BaseModel)
Position = tuple[str | int, ...]
Fault = tuple[Position, str, str]
"""Where inside a model, and what is wrong, in English and in Chinese."""
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WORDS = {
    "missing": ("is missing", "缺少", "补上此项 / add it"),
    "extra_forbidden": (
        "is not a known word here",
        "此处没有这个词",
        "检查拼写或删去 / check the spelling or delete it",
    ),
}


class Faults(ValueError):
    """Raised by a model's validator that finds several faults."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults
        super().__init__("; ".join(f"{'.'.join(map(str, position))}: {en}" for position, en, _ in faults))


class YamlFile:
    """One parsed file. `data`: its content; `line(position)`: where a key stands (the nearest known ancestor's line)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[Position, int] = {}
        self._scalars = yaml.SafeLoader("")
        try:
            node = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=_Loader)
        except (OSError, UnicodeDecodeError) as cause:
            raise DeclarationError(
                f"cannot be read: {cause}",
                "无法读取",
                todo="检查路径与 UTF-8 编码 / check the path and save it as UTF-8",
                file=path,
            ) from cause
        except yaml.YAMLError as cause:
            mark = getattr(cause, "problem_mark", None)
            raise DeclarationError(
                f"is not YAML: {getattr(cause, 'problem', cause)}",
                "不是有效的 YAML",
                todo="检查缩进与引号 / check the indentation and quotes",
                file=path,
                line=mark.line + 1 if mark else None,
            ) from cause
        self.data: Any = self._plain(node, (), ()) if node is not None else {}

    def _plain(self, node: yaml.Node, position: Position, above: tuple[yaml.Node, ...]) -> Any:
        self._lines.setdefault(position, node.start_mark.line + 1)
        if node in above:
            raise self.error(position, "an alias holds itself", "别名引用了自身", "删去该别名 / delete the alias")
        above = (*above, node)
        if isinstance(node, yaml.MappingNode):
            result: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = str(key_node.value)
                line = key_node.start_mark.line + 1
                if key in result:
                    raise DeclarationError(
                        f"the key {key!r} stands twice",
                        f"键 {key!r} 重复",
                        todo="删去一处 / delete one of them",
                        file=self.path,
                        line=line,
                        key=".".join(map(str, (*position, key))),
                    )
                self._lines[(*position, key)] = line
                result[key] = self._plain(value_node, (*position, key), above)
            return result
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*position, index), above) for index, item in enumerate(node.value)]
        return self._scalar(node, position)

    def _scalar(self, node: yaml.Node, position: Position) -> Any:
        try:
            return self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError) as cause:  # an unknown tag, or a date such as 2026-13-45
            raise self.error(
                position,
                f"{node.value!r} is no value: {getattr(cause, 'problem', cause)}",
                f"无法识别的值 {node.value!r}",
                "文本请加引号 / put quotes around text",
            ) from cause

    def line(self, position: Position) -> int:
        """The line of a position, or of its nearest ancestor that stands in the file."""
        while position and position not in self._lines:
            position = position[:-1]
        return self._lines.get(position, 1)

    def error(self, position: Position, en: str, zh: str, todo: str = "") -> DeclarationError:
        """An error that names this file, the line and the key."""
        return DeclarationError(
            en, zh, todo=todo, file=self.path, line=self.line(position), key=".".join(map(str, position)) or None
        )

    def model(self, kind: type[T], data: Any, at: Position = ()) -> T:
        """Validate `data` (found at position `at`) as a model. Raises DeclarationError with one problem per fault."""
        try:
            return kind.model_validate(data)
        except ValidationError as cause:
            faults = [dict(fault) for fault in cause.errors(include_url=False)]
            problems = tuple(problem for fault in faults for problem in self._problems(at, fault))
            raise DeclarationError(
                f"{len(problems)} problem(s)", f"有 {len(problems)} 处问题", problems=problems, file=self.path
            ) from None  # pydantic's own text shows what was given, which may be a secret

    def _problems(self, at: Position, fault: dict[str, Any]) -> list[DeclarationError]:
        position = self._known((*at, *(part for part in fault["loc"] if part != "[key]")), fault["type"])
        found = fault.get("ctx", {}).get("error")
        if isinstance(found, Faults):
            todo = "按提示修改此行 / change this line as it says"
            return [self.error((*position, *inside), en, zh, todo) for inside, en, zh in found.faults]
        return [self._problem(position, fault)]

    def _known(self, position: Position, kind: str) -> Position:
        """The position without what pydantic adds to it (which member of a union it tried)."""
        above, last = (position[:-1], position[-1:]) if kind == "missing" else (position, ())
        kept: Position = ()
        for part in above:
            if (*kept, part) in self._lines:
                kept = (*kept, part)
        return (*kept, *last)

    def _problem(self, position: Position, fault: dict[str, Any]) -> DeclarationError:
        name = position[-1] if position else ""
        if fault["type"] in _WORDS:
            en, zh, todo = _WORDS[fault["type"]]
            return self.error(position, f"{name} {en}", f"{zh}：{name}", todo)
        message = fault["msg"].removeprefix("Value error, ")
        given = fault.get("input")
        # Where an object is due, a text may be a secret that somebody typed instead of a reference to it.
        plain = isinstance(given, (str, int, float, bool)) and fault["type"] not in (
            "model_type",
            "model_attributes_type",
        )
        shown_en, shown_zh = (f" (it is {given!r})", f"（现为 {given!r}）") if plain else ("", "")
        return self.error(
            position,
            f"{message}{shown_en}",
            f"{name} 的取值不符合约定{shown_zh}",
            "按提示修改此行 / change this line as it says",
        )
