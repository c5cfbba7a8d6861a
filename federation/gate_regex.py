"""Python regular expressions, evaluated over Arrow text: fast where RE2 provably agrees with Python, Python itself elsewhere.

Great Expectations matches with Python's `re.search`. RE2 is an order of magnitude faster, yet differs: `\\d`, `\\w`, `\\s` and
`\\b` know only ASCII, `$` does not match before a final newline, `[[:alpha:]]` is a class, look-arounds do not exist. So a
pattern is parsed by Python's own parser and written anew for RE2 from the parse tree, node by node; a node outside the list
below makes the whole pattern Python's.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_parser: Any = re._parser  # type: ignore[attr-defined]  # the standard library's parse tree has no public name
_REPEATS = (_parser.MAX_REPEAT, _parser.MIN_REPEAT)
_MOST_REPEATS = 1000
"""RE2 refuses to repeat more often."""

_ASCII_CLASS = {
    _parser.CATEGORY_DIGIT: "0-9",
    _parser.CATEGORY_NOT_DIGIT: r"\x{0}-\x{2f}\x{3a}-\x{10ffff}",
    _parser.CATEGORY_WORD: "0-9A-Z_a-z",
    _parser.CATEGORY_NOT_WORD: r"\x{0}-\x{2f}\x{3a}-\x{40}\x{5b}-\x{5e}\x{60}\x{7b}-\x{10ffff}",
    _parser.CATEGORY_SPACE: r"\x{9}-\x{d}\x{1c}-\x{20}",
    _parser.CATEGORY_NOT_SPACE: r"\x{0}-\x{8}\x{e}-\x{1b}\x{21}-\x{10ffff}",
}
"""What Python's classes hold among the ASCII characters."""


class _PythonOnly(Exception):
    """The pattern holds something that RE2 lacks or reads differently."""


@dataclass(frozen=True)
class Pattern:
    """A compiled pattern. `re2`: the same language for RE2, or None. `ascii_only`: `re2` agrees on ASCII text alone."""

    python: re.Pattern[str]
    re2: str | None
    ascii_only: bool

    def search(self, values: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
        """Where `re.search` finds the pattern; null where the value is null."""
        if self.re2 is None:
            return self._python(values)
        found = pc.match_substring_regex(values, pattern=self.re2)
        if not self.ascii_only:
            return found
        plain = pc.string_is_ascii(values)
        if pc.all(plain, min_count=0).as_py():
            return found
        doubtful = self._python(pc.if_else(plain, pa.scalar(None, values.type), values))
        return pc.coalesce(doubtful, found)

    def _python(self, values: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
        """Python's own verdict, once per distinct value."""
        distinct = pc.unique(values).drop_null()
        search = self.python.search
        matching = distinct.filter(pa.array([search(text) is not None for text in distinct.to_pylist()], pa.bool_()))
        return pc.if_else(pc.is_valid(values), pc.is_in(values, value_set=matching), pa.scalar(None, pa.bool_()))


def compile_pattern(text: str) -> Pattern:
    """Parse a Python pattern. Raises `re.error`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # "possible nested set": Python's reading is the one that counts
        warnings.simplefilter("ignore", DeprecationWarning)
        python = re.compile(text)
        tree = _parser.parse(text)
    if python.flags != re.UNICODE:
        return Pattern(python, None, False)
    writer = _Writer()
    try:
        re2 = writer.sequence(tree, tail=True)
        pc.match_substring_regex(pa.array([""]), pattern=re2)
    except (_PythonOnly, pa.ArrowInvalid):  # RE2 also refuses patterns whose program would be too large
        return Pattern(python, None, False)
    return Pattern(python, re2, writer.ascii_only)


class _Writer:
    """Writes a parse tree in RE2's syntax."""

    def __init__(self) -> None:
        self.ascii_only = False

    def sequence(self, nodes: Sequence[Any], *, tail: bool) -> str:
        """`tail`: nothing of the pattern follows, so what `$` consumes cannot matter."""
        last = len(nodes) - 1
        return "".join(self._node(op, argument, tail and i == last) for i, (op, argument) in enumerate(nodes))

    def _node(self, op: Any, argument: Any, tail: bool) -> str:
        if op is _parser.LITERAL:
            return _char(argument)
        if op is _parser.NOT_LITERAL:
            return f"[^{_char(argument)}]"
        if op is _parser.ANY:
            return r"[^\x{a}]"
        if op is _parser.IN:
            return self._class(argument)
        if op is _parser.BRANCH:
            return "(?:" + "|".join(self.sequence(branch, tail=tail) for branch in argument[1]) + ")"
        if op is _parser.SUBPATTERN and not argument[1] and not argument[2]:
            return f"(?:{self.sequence(argument[3], tail=tail)})"
        if op in _REPEATS:
            least, most, body = argument
            endless = most is _parser.MAXREPEAT
            if least > _MOST_REPEATS or (not endless and most > _MOST_REPEATS):
                raise _PythonOnly
            return f"(?:{self.sequence(body, tail=False)}){{{least},{'' if endless else most}}}"
        if op is _parser.AT:
            return self._position(argument, tail)
        raise _PythonOnly

    def _position(self, at: Any, tail: bool) -> str:
        if at in (_parser.AT_BEGINNING, _parser.AT_BEGINNING_STRING):
            return r"\A"
        if at is _parser.AT_END_STRING:
            return r"\z"
        if at is _parser.AT_END and tail:
            return r"(?:\x{a}?\z)"
        if at is _parser.AT_BOUNDARY:  # not its negation: `\B` finds nothing in an empty text, except in RE2
            self.ascii_only = True
            return r"\b"
        raise _PythonOnly

    def _class(self, members: Sequence[Any]) -> str:
        parts: list[str] = []
        negated = False
        for op, argument in members:
            if op is _parser.NEGATE:
                negated = True
            elif op is _parser.LITERAL:
                parts.append(_char(argument))
            elif op is _parser.RANGE:
                parts.append(f"{_char(argument[0])}-{_char(argument[1])}")
            elif op is _parser.CATEGORY and argument in _ASCII_CLASS:
                self.ascii_only = True
                parts.append(_ASCII_CLASS[argument])
            else:
                raise _PythonOnly
        return f"[{'^' if negated else ''}{''.join(parts)}]"


def _char(code: int) -> str:
    if 0xD800 <= code <= 0xDFFF:
        raise _PythonOnly  # a lone surrogate: no text of ours holds one, and RE2 cannot say it
    return chr(code) if chr(code).isascii() and chr(code).isalnum() else f"\\x{{{code:x}}}"
