"""The documentation as the tests read it: pages, sections, tables, code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PAGES: dict[str, str] = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
}
"""The text of every page by its path, but for the changelog."""


def section(page: str, title: str) -> str:
    """Return the text under a heading of a page, up to the next one of its level."""
    _, heading, rest = re.split(rf"^(#+) {re.escape(title)}$", PAGES[page], maxsplit=1, flags=re.MULTILINE)
    return re.split(rf"^#{{1,{len(heading)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def table(page: str, first: str) -> list[list[str]]:
    """Return the cells of a page's table whose first column has that heading."""
    _, _, rest = PAGES[page].partition(f"\n| {first} |")
    assert rest, f"{page} has no table that begins with the column {first!r}"
    rows = rest.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split(" |")] for row in rows]


def names(cell: str) -> list[str]:
    """Return what stands between backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def fenced(text: str) -> list[str]:
    """Return the content of every fenced block."""
    return re.findall(r"^```\w*\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def manifests(page: str) -> list[dict[str, Any]]:
    """Return the objects of a page's YAML blocks."""
    return [document for block in fenced(PAGES[page]) for document in yaml.safe_load_all(block)]


def prose(text: str) -> str:
    """Return a text without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def code(text: str) -> list[str]:
    """Return what a reader may type: indented lines, and code between backticks."""
    return re.findall(r"^ {4,}(\S.*)$", prose(text), flags=re.MULTILINE) + re.findall(r"`([^`\n]+)`", prose(text))


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
