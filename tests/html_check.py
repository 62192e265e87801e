"""Checks that a page is well formed and needs no other file."""

import re
from html.parser import HTMLParser

from retinanet_jax.reports.html_page import VOID


class Checker(HTMLParser):
    """Follows the tags, and keeps texts, tags and links."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.links, self.tags = [], [], [], []

    def handle_starttag(self, name, attributes):
        self.tags.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)
        self.links += [value for key, value in attributes if key in ("src", "href")]

    def handle_startendtag(self, name, attributes):
        self.handle_starttag(name, attributes)
        self.open.remove(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.text.append(data)


def check(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    allowed = ("data:image/jpeg;base64,", "data:image/png;base64,", "#")
    assert all(link.startswith(allowed) for link in checker.links)
    ids = [attributes["id"] for _, attributes in checker.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = re.findall(r"url\((.*?)\)", page) + [link for link in checker.links if link[0] == "#"]
    assert {link[1:] for link in used} <= set(ids) and all(link[0] == "#" for link in used)
    assert "@import" not in page and "http" not in page
    names = {name for name, _ in checker.tags}
    assert "script" not in names and "link" not in names and "iframe" not in names
    assert not any(key.startswith("on") for _, attributes in checker.tags for key in attributes)
    return checker
