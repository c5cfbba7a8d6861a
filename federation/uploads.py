"""Uploads: a file that people have just saved is news at once, without waiting for the next sweep.

`Watcher` looks at the files of nodes (cheaply: no file is opened), `news_at` asks the nodes whether they really hold something
new: what a sync itself writes into a file changes it as well. The sweep remains the safety net for whatever is not seen here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from federation.contract import Dataset
from federation.errors import FedsyncError, Resting

if TYPE_CHECKING:
    from federation.federation import Federation

FILE_CONNECTORS = ("workbook", "parquet")
"""Connectors whose nodes may be files of this machine (`Connector.watched`)."""
RECENT = 600.0
"""Seconds: what was saved so short before the first look counts as saved after it, since nobody may have looked then."""

Mark = tuple[object, ...]


@dataclass
class Watcher:
    """Looks at files again and again. `places`: region → file or folder.

    A place is news once its file differs from what it was and has been at rest for one look: nobody is in the middle of saving.
    """

    places: Mapping[str, Path]
    _seen: dict[str, Mark] = field(default_factory=dict)
    _moving: dict[str, Mark] = field(default_factory=dict)

    def look(self) -> list[str]:
        """The regions whose file people (or a sync) have saved since the last look."""
        marks = {code: mark_of(path) for code, path in self.places.items()}
        news = []
        for code, mark in marks.items():
            if code not in self._seen:
                self._seen[code] = mark if not self._recent(code) else ("unknown",)
            if mark == self._seen[code]:
                self._moving.pop(code, None)
            elif self._moving.get(code) == mark:
                self._seen[code] = self._moving.pop(code)
                news.append(code)
            else:
                self._moving[code] = mark
        return news

    def moved_to(self, places: Mapping[str, Path]) -> Watcher:
        """The same for the places of another declaration; what is known of places that stay is kept."""
        stay = {code for code, path in places.items() if self.places.get(code) == path}
        return Watcher(
            places,
            {code: mark for code, mark in self._seen.items() if code in stay},
            {code: mark for code, mark in self._moving.items() if code in stay},
        )

    def _recent(self, code: str) -> bool:
        try:
            return time.time() - self.places[code].stat().st_mtime < RECENT
        except OSError:
            return False


def mark_of(path: Path) -> Mark:
    """Differs whenever a file was saved, or something was put into or taken out of a folder or its sub-folders; empty: nothing there."""
    try:
        own = path.stat()
        if not path.is_dir():
            return own.st_mtime_ns, own.st_size, own.st_ino
        with os.scandir(path) as entries:
            return tuple(sorted((entry.name, entry.stat().st_mtime_ns) for entry in entries))
    except OSError:
        return ()


def watched_levels(dataset: Dataset, levels_of: Iterable[tuple[str, str]]) -> list[str]:
    """The levels of a dataset with nodes that may be files. `levels_of`: connector's word, level, of each declared node."""
    found = {level for word, level in levels_of if word in FILE_CONNECTORS}
    return [level for level in dataset.levels if level in found]


def news_at(federation: Federation, dataset: str, regions: Sequence[str]) -> list[str]:
    """Those of these nodes that may hold something their links have not seen.

    A node that does not answer counts: the link's run tells why. One whose quiet hours it is does not.
    """
    states = federation.services.links.all(dataset).values()
    found = []
    for code in regions:
        known = [state.lower_token for state in states if state.lower == code and state.state == "ok"]
        known += [state.upper_token for state in states if state.upper == code and state.state == "ok"]
        token = federation.token(dataset, code)
        if isinstance(token, Resting):
            continue
        if isinstance(token, FedsyncError) or not known or any(token != one for one in known):
            found.append(code)
    return found
