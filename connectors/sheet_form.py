"""What differs between the kinds of files that hold a sheet: one `Form` for each kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import pyarrow as pa

from connectors.base import RULINGS, Node
from connectors.locations import Copy, File
from connectors.sheet import Edit, Grid, Header, Value


@dataclass(frozen=True)
class Document:
    """One reading of a file. `cursor`: token of its data. `stored`: the cells as they stand; `grid`: with what people mended elsewhere.

    `mended`: row number → values that are not in their cells yet.
    """

    copy: Copy
    stored: Grid
    grid: Grid
    cursor: str
    mended: dict[int, dict[str, Value]] = field(default_factory=dict)


class Form(ABC):
    """One kind of file. Decides what its bytes are to become; `replace` (of the connector) puts them in place.

    `writes`: whether the engine can write such a file at all. `corrections`: whether there is room for a desk where people rule.
    """

    writes: ClassVar[bool] = True
    corrections: ClassVar[bool] = False

    def __init__(self, node: Node, file: File) -> None:
        self.node = node
        self.file = file

    @abstractmethod
    def token(self, content: bytes) -> str:
        """Differs whenever the data may differ; cheap."""

    @abstractmethod
    def opened(self, copy: Copy) -> Document:
        """The document in these bytes."""

    @abstractmethod
    def blank(self) -> bytes:
        """A new file, laid out."""

    @abstractmethod
    def laid_out(self, document: Document) -> bytes:
        """A file whose sheet is still empty, laid out."""

    @abstractmethod
    def edited(self, document: Document, header: Header, edit: Edit) -> bytes | None:
        """The file after an edit; None if nothing in it changes."""

    @abstractmethod
    def show_returns(self, returns: pa.Table) -> None:
        """`Connector.show_returns`."""

    @abstractmethod
    def show_receipts(self, receipts: pa.Table) -> None:
        """`Connector.show_receipts`."""

    def show_corrections(self, corrections: pa.Table) -> None:
        """`Connector.show_corrections`."""
        raise NotImplementedError

    def rulings(self) -> pa.Table:
        """`Connector.rulings`."""
        return RULINGS.empty_table()

    def replace(self, content: bytes | None, document: Document) -> None:
        """Put new bytes in the place of those that the document was read from; nothing if there are none."""
        if content is not None:
            self.file.refuse_if_open()
            self.file.replace(content, document.copy)
