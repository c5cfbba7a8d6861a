"""A correct little declaration, and what a slip in it is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.config import Config, load
from federation.errors import DeclarationError
from tests.federations import written

REGIONS = """code,name,level,parent
110000000000,北京市,city,
110101000000,东城区,district,110000000000
110102000000,西城区,district,110000000000
110101001000,东华门街道,street,110101000000
110101001001,多福巷社区,community,110101001000
110101001002,银闸社区,community,110101001000
"""
RESIDENT = """name: resident
label: 居民
levels: [city, district, street, community]
key: [rid]
jurisdiction: place
originates: [city]
fields:
  rid: {label: 编号, authority: city}
  place: {label: 社区, authority: city}
  idno: {label: 证件号, authority: city, visible: [city, district]}
  phone: {label: 电话, authority: community}
  kind: {label: 类型, type: enum, values: [甲, 乙], authority: community}
"""
TOP = """name: little
systems:
  store:
    connector: memory
    options: {store: "{dataset}/{region}"}
nodes:
  - system: store
    level: city
    datasets:
      resident:
        columns: {phone: tel}
  - system: store
    regions: ["110101001001"]
    datasets: {resident: {hosted: [kind]}}
"""
FILES = {"federation.yaml": TOP, "regions.csv": REGIONS, "datasets/resident.yaml": RESIDENT}


def declare(folder: Path, **files: str | None) -> Path:
    """Write the declaration; `top`, `regions` and `resident` replace a file, None leaves it out."""
    names = {"top": "federation.yaml", "regions": "regions.csv", "resident": "datasets/resident.yaml"}
    texts: dict[str, str | None] = {**FILES, **{names[word]: text for word, text in files.items()}}
    return written(folder, {name: text for name, text in texts.items() if text is not None})


def changed(text: str, old: str, new: str) -> str:
    """`text` with one slip; `old` must stand in it exactly once."""
    assert text.count(old) == 1, old
    return text.replace(old, new)


def line_of(text: str, part: str) -> int:
    """The number of the line that holds `part`."""
    return next(number for number, line in enumerate(text.splitlines(), start=1) if part in line)


def accepted(folder: Path, **files: str | None) -> Config:
    """Load a declaration that must be right."""
    return load(declare(folder, **files))


def refused(folder: Path, **files: str | None) -> list[DeclarationError]:
    """Load a declaration that must be wrong; its problems, each with a file and in both languages."""
    with pytest.raises(DeclarationError) as caught:
        load(declare(folder, **files))
    problems = list(caught.value.problems) or [caught.value]
    for problem in problems:
        assert isinstance(problem, DeclarationError)
        assert problem.en and problem.zh and problem.todo and "file" in problem.where
        assert str(problem) in str(caught.value)
    return problems  # type: ignore[return-value]


def the_one(problems: list[DeclarationError], *, file: str, line: int, key: str | None, says: str) -> None:
    """There is one problem, and it names the place and the fault."""
    assert len(problems) == 1, [str(problem) for problem in problems]
    where = problems[0].where
    assert Path(str(where["file"])).name == file
    assert (where.get("line"), where.get("key")) == (line, key)
    assert says in problems[0].en
