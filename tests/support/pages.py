"""Reads the dashboard's HTML: tables with the exact values that stand in the markup beside what is shown."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = frozenset({"meta", "link", "input", "br", "hr", "rect"})
Cell = str
"""The exact value of a figure, else the text."""


@dataclass(slots=True)
class Table:
    """Rows of cells; the first row is the head, `foot` the totals."""

    rows: list[list[Cell]] = field(default_factory=list[list[Cell]])
    has_foot: bool = False

    @property
    def body(self) -> list[list[Cell]]:
        """Without head and foot."""
        return self.rows[1:-1] if self.has_foot else self.rows[1:]

    @property
    def foot(self) -> list[Cell]:
        """The totals."""
        assert self.has_foot
        return self.rows[-1]


class Page(HTMLParser):
    """A page taken apart. Raises AssertionError for tags that don't match."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tables: dict[str, Table] = {}
        self.fields: dict[str, str] = {}
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self._table: Table | None = None
        self._exact: str | None = None
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag not in _VOID:
            self._open.append(tag)
        if "id" in found:
            self.ids.append(found["id"])
        self.links += [found[name] for name in ("href", "src", "action") if name in found]
        if tag == "input":
            self.fields[found["name"] if "name" in found else found["id"]] = found.get("value", "")
        self._in_table(tag, found)

    def _in_table(self, tag: str, found: dict[str, str]) -> None:
        if tag == "table":
            self._table = self.tables[found["id"]] = Table()
        elif self._table is None:
            return
        elif tag == "tfoot":
            self._table.has_foot = True
        elif tag == "tr":
            self._table.rows.append([])
        elif tag in ("th", "td"):
            self._table.rows[-1].append("")
            self._exact = None
        elif tag in ("data", "time"):
            self._exact = found["value" if tag == "data" else "datetime"]
            self._table.rows[-1][-1] = self._exact

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self._open.pop() == tag
        if tag == "table":
            self._table = None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._table is not None and self._exact is None and self._open[-1] not in ("table", "caption"):
            self._table.rows[-1][-1] += data
