"""What a reader sees of a report: the text of a section, and its tables as rows."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """`sections` by the identifier of their element, the figures below them by caption: text and tables."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: dict[str, str] = {"": ""}
        self.tables: dict[str, list[list[list[str]]]] = {"": []}
        self.attributes: list[tuple[str, str]] = []
        self.scripts: list[str] = []
        self.where, self.tag, self.cell = "", "", False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tag = tag
        self.attributes += [(name, value or "") for name, value in attrs]
        where = dict(attrs).get("id") if tag == "section" else self.where
        if where and where != self.where:
            self.where = where
            self.texts[where], self.tables[where] = "", []
        if tag in ("li", "p", "h3", "summary"):
            self.texts[self.where] += "\n"
        if tag == "table":
            self.tables[self.where].append([])
        elif tag == "tr":
            self.tables[self.where][-1].append([])
        elif tag in ("td", "th"):
            self.tables[self.where][-1][-1].append("")
            self.cell = True
        elif tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.tag = "" if tag in ("script", "style") else self.tag
        self.cell = self.cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.tag == "script":
            self.scripts[-1] += data
        elif self.tag != "style":
            self.texts[self.where] += data
            if self.cell:
                self.tables[self.where][-1][-1][-1] += " " * (self.tag == "small") + data.strip()


def rows(page: Page, section: str, *names: str) -> list[dict[str, str]]:
    """The rows of the first table of a section that has these columns."""
    for table in page.tables[section]:
        if table and set(names) <= set(table[0]):
            return [dict(zip(table[0], (cell.strip() for cell in row), strict=True)) for row in table[1:]]
    raise AssertionError(f"{section} has no table with {names}: {[table[:1] for table in page.tables[section]]}")
