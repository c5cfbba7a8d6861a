"""YAML with positions: plain data, plus the line on which each key stands, so that errors can name it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from federation.errors import DeclarationError

T = TypeVar("T", bound=BaseModel)
Position = tuple[str | int, ...]
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WORDS = {
    "missing": ("is missing", "缺少", "补上此项 / add it"),
    "extra_forbidden": (
        "is not a known word here",
        "此处没有这个词",
        "检查拼写或删去 / check the spelling or delete it",
    ),
}


class YamlFile:
    """One parsed file. `data`: its content; `line(position)`: where a key stands (the nearest known ancestor's line)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[Position, int] = {}
        try:
            node = yaml.compose(path.read_text(encoding="utf-8"), Loader=_Loader)
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
        self.data: Any = self._plain(node, ()) if node is not None else {}

    def _plain(self, node: yaml.Node, position: Position) -> Any:
        self._lines.setdefault(position, node.start_mark.line + 1)
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
                result[key] = self._plain(value_node, (*position, key))
            return result
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*position, index)) for index, item in enumerate(node.value)]
        return _scalar(node)

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
            problems = tuple(self._problem(at, dict(fault)) for fault in cause.errors(include_url=False))
            raise DeclarationError(
                f"{len(problems)} problem(s)", f"有 {len(problems)} 处问题", problems=problems, file=self.path
            ) from cause

    def _problem(self, at: Position, fault: dict[str, Any]) -> DeclarationError:
        position = (*at, *(part for part in fault["loc"] if part != "[key]"))
        name = position[-1] if position else ""
        if fault["type"] in _WORDS:
            en, zh, todo = _WORDS[fault["type"]]
            return self.error(position, f"{name} {en}", f"{zh}：{name}", todo)
        message = fault["msg"].removeprefix("Value error, ")
        given = fault.get("input")
        shown = f" (it is {given!r})" if isinstance(given, (str, int, float, bool)) else ""
        return self.error(
            position, f"{message}{shown}", "取值不符合约定", "按提示修改此行 / change this line as it says"
        )


def _scalar(node: yaml.Node) -> Any:
    return yaml.SafeLoader.construct_object(yaml.SafeLoader(""), node) if isinstance(node, yaml.ScalarNode) else None
