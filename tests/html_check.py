"""Whether a page is well formed and needs nothing from elsewhere."""

from html.parser import HTMLParser

from retinanet_jax.reports.html.markup import VOID


class Checker(HTMLParser):
    """Follows the tags, and keeps text and attributes."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.links, self.tags = [], [], [], []

    def handle_starttag(self, name, attributes):
        self.tags.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)
        self.links += [value for key, value in attributes if key in ("src", "href")]

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.text.append(data)


def check(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in checker.links)
    assert "url(" not in page and "@import" not in page and "http" not in page
    names = {name for name, _ in checker.tags}
    assert "script" not in names and "link" not in names and "iframe" not in names
    assert not any(key.startswith("on") for _, attributes in checker.tags for key in attributes)
    return checker
