"""Parse an HTML page as a browser would, for tests of what a reader sees."""

import re
from collections import Counter
from html.parser import HTMLParser


class Page(HTMLParser):
    """The page as a browser parses it: elements, their attributes, the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.numbers: list[tuple[float, str]] = []
        self.headings: list[tuple[int, str]] = []
        self.text = ""
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += attrs
        if tag == "data":
            self.numbers.append((float(dict(attrs)["value"] or "nan"), ""))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))
        self._open.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        tags = {tag for tag, _ in self._open}
        if tags & {"style", "script"}:
            return
        self.text += data
        if self._open and self._open[-1][0] == "data":
            self.numbers[-1] = (self.numbers[-1][0], self.numbers[-1][1] + data)
        for level in range(1, 7):
            if f"h{level}" in tags and self.headings:
                self.headings[-1] = (level, self.headings[-1][1] + data)
