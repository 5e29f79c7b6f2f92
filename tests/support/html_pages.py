"""HTML as a list of elements, and what every page of the server keeps to."""

from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise
from urllib.parse import urljoin, urlsplit

VOID = {"meta", "link", "input", "br", "hr", "img"}
SVG_LEAVES = {"path", "circle", "rect", "line", "polyline"}
LABELLED = {"input", "select", "textarea"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    text: str = ""
    inside: tuple[str, ...] = field(default=())


class Page(HTMLParser):
    """The elements of a page, in order, each with the text that it holds."""

    def __init__(self, text: str, url: str = "/"):
        super().__init__()
        self.url = url
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(text)
        self.close()
        assert not self._open, f"{url}: never closed: {[it.tag for it in self._open]}"

    def handle_starttag(self, tag, attrs):
        element = Element(tag, dict(attrs), inside=tuple(it.tag for it in self._open))
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.elements.append(Element(tag, dict(attrs), inside=tuple(it.tag for it in self._open)))

    def handle_endtag(self, tag):
        assert self._open, f"{self.url}: </{tag}> closes nothing"
        assert self._open[-1].tag == tag, f"{self.url}: </{tag}> closes <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data):
        for element in self._open:
            element.text += data

    def all(self, tag: str) -> list[Element]:
        return [it for it in self.elements if it.tag == tag and (tag != "title" or "svg" not in it.inside)]

    def text_of(self, tag: str) -> str:
        """The text of the only element of that kind."""
        (element,) = self.all(tag)
        return " ".join(element.text.split())

    def links(self) -> set[str]:
        """Addresses on this server that a reader, a browser or a script may follow."""
        found = [
            element.attributes.get(name)
            for element in self.elements
            for name in ("href", "src", "data-load", "data-points", "data-clusters")
            if element.attributes.get(name) and element.attributes.get("rel") != "canonical"
        ]
        full = {urljoin(f"http://here{self.url}", link) for link in found}
        assert all(urlsplit(link).netloc == "here" for link in full), f"{self.url} leads elsewhere: {full}"
        return {urlsplit(link)._replace(scheme="", netloc="", fragment="").geturl() for link in full}


def faults_of(page: Page) -> list[str]:
    """What is wrong with a page, as far as can be seen without a browser."""
    faults = [
        f"no single {tag}" for tag in ("title", "h1", "main", "header", "footer") if len(page.all(tag)) != 1
    ]
    for element in page.elements:
        names = set(element.attributes)
        if element.tag == "style" or "style" in names:
            faults.append(f"inline style on <{element.tag}>")
        if element.tag == "script" and (element.text.strip() or not element.attributes.get("src")):
            faults.append("inline script")
        faults += [f"inline handler {name}" for name in names if name.startswith("on")]
        if (element.attributes.get("href") or "").strip().lower().startswith(("javascript:", "data:")):
            faults.append("a link that runs something")
    ids = Counter(it.attributes["id"] for it in page.elements if it.attributes.get("id"))
    faults += [f"id {name} twice" for name, count in ids.items() if count > 1]
    labels = {it.attributes.get("for") for it in page.all("label")}
    for element in page.elements:
        attributes = element.attributes
        if (
            element.tag in LABELLED
            and attributes.get("type") != "hidden"
            and attributes.get("id") not in labels
        ):
            faults.append(f"no label for <{element.tag} id={attributes.get('id')}>")
        for name in ("aria-describedby", "aria-labelledby", "for", "list"):
            faults += [
                f"{name}={it} leads nowhere" for it in (attributes.get(name) or "").split() if it not in ids
            ]
    return faults + _faults_of_links(page)


def _faults_of_links(page: Page) -> list[str]:
    """Links and buttons that say nothing, and headings that skip a level."""
    faults = [
        f"<{it.tag} {it.attributes}> says nothing"
        for it in page.elements
        if it.tag in {"a", "button"} and not (it.text.strip() or it.attributes.get("aria-label"))
    ]
    levels = [int(it.tag[1]) for it in page.elements if it.tag in {"h1", "h2", "h3", "h4"}]
    pairs = pairwise(levels)
    return faults + [f"h{low} follows h{high}" for high, low in pairs if low > high + 1]
