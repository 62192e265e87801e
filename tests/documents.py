"""Code blocks, commands, links and anchors of the Markdown files."""

import itertools
import re
import shlex
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "experiments/**/*.md", "notebooks/*.md")
    for path in ROOT.glob(pattern)
)
# The comment before a block of Python that is not run: <!-- not run: REASON -->
NOT_RUN = re.compile(r"<!--\s*not run:(.*?)-->", re.DOTALL)


class Block(NamedTuple):
    """A code block of a document."""

    document: str
    line: int
    language: str
    text: str
    not_run: str
    """The reason why it is not run; empty for blocks that run."""


def blocks(document: str) -> list[Block]:
    """All code blocks: fenced, and indented with language ''."""
    found, reason = [], ""
    for token in MarkdownIt().parse((ROOT / document).read_text(encoding="utf-8")):
        if token.type == "html_block":
            match = NOT_RUN.search(token.content)
            reason = match[1].strip() if match else ""
            continue
        if token.type in ("fence", "code_block"):
            line = token.map[0] + 1
            found.append(Block(document, line, token.info.strip(), token.content, reason))
        if token.level == 0 and token.nesting <= 0:
            reason = ""
    return found


def commands(text: str) -> list[list[str]]:
    """The words of each command of a shell block or a docstring."""
    text = re.sub(r"\\\n\s*", " ", text)
    found = []
    for line in text.splitlines():
        # Brackets mark an optional flag.
        line = re.sub(r"\[(--[^\]]+)\]", r"\1", line.strip())
        for part in re.split(r"\s&&\s", line):
            if words := shlex.split(part, comments=True):
                found.append(words)
    return found


def links(document: str) -> list[str]:
    """The targets of links and images of a document."""
    text = (ROOT / document).read_text(encoding="utf-8")
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inline = [child for token in tokens for child in token.children or ()]
    targets = [child.attrGet("href") or child.attrGet("src") for child in inline]
    return [target for target in targets if target]


def anchors(document: str) -> set[str]:
    """The anchors of a document's headings, as GitHub and MyST form them."""
    tokens = MarkdownIt().parse((ROOT / document).read_text(encoding="utf-8"))
    headings = [
        "".join(child.content for child in after.children)
        for before, after in itertools.pairwise(tokens)
        if before.type == "heading_open"
    ]
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}
