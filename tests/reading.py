"""What a browser makes of a page, without one; and a text that would do harm if it were no text."""

from html.parser import HTMLParser

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(1)>' onload='x' {{ 7*7 }} &lt; ]]> 角色"


class Page(HTMLParser):
    """What a browser makes of the page: elements with attributes, and the text of each kind of element."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self._inside = tag
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 - the parser's signature
        """What follows is outside of script and style."""
        self._inside = ""

    def handle_data(self, data: str) -> None:
        """Note a text."""
        self.raw.get(self._inside, self.texts).append(data)

    @property
    def shape(self) -> list[tuple[str, list[str]]]:
        """Each element and the names of its attributes."""
        return [(tag, list(attributes)) for tag, attributes in self.elements]

    @property
    def text(self) -> str:
        """What is read on the page, spaces joined."""
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of each element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]
