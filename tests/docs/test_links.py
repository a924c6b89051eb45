"""Every link leads to a file that is there, and to a heading of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import CHECKOUT, PAGES, name_of, prose_of

LINK = re.compile(r"\]\((?P<target>[^)\s]*?)(?:#(?P<anchor>[^)\s]*))?\)")


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose_of(page.read_text(encoding="utf-8")), re.M):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        found.add(re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", [*PAGES, CHECKOUT / "CHANGELOG.md"], ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for match in LINK.finditer(prose_of(page.read_text(encoding="utf-8"))):
        target, anchor = match["target"], match["anchor"]
        if re.match(r"https?://", target):
            assert re.fullmatch(r"https?://[\w.-]+\.\w+(/[\w./~%-]*)?", target), target
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{name_of(page)}: no file {target}"
        assert file.is_relative_to(CHECKOUT), target
        if anchor:
            assert anchor in anchors_of(file), f"{name_of(page)}: no heading #{anchor} in {target}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_picture_has_words(page: Path) -> None:
    for words in re.findall(r"!\[([^\]]*)\]", prose_of(page.read_text(encoding="utf-8"))):
        assert len(words.split()) > 3, words


def test_every_page_says_who_it_is_for_and_what_comes_next() -> None:
    """Reference pages are generated, and decisions have a form of their own."""
    absent = []
    for page in PAGES:
        folder = page.parent.name
        if folder in ("reference", "decisions") or page.name in ("README.md", "index.md"):
            continue
        text = page.read_text(encoding="utf-8")
        if not re.search(r"\b(is for|For) (everyone|people|Python p)", text):
            absent.append(f"{name_of(page)}: for whom?")
        if not re.search(r"^(To read )?[Nn]ext:|^You have finished|To read next:", text, re.M):
            absent.append(f"{name_of(page)}: what next?")
    assert absent == []


def test_a_page_has_one_name() -> None:
    """What the site's navigation calls a page is its heading, or how that begins."""
    site = (CHECKOUT / "mkdocs.yml").read_text(encoding="utf-8")
    two = []
    for name, file in re.findall(r"^ +- ([^:\n]+): (\S+\.md)$", site, re.M):
        page = CHECKOUT / "docs" / file
        if not page.is_file() or page.name == "index.md":  # made for the site from a file elsewhere
            continue
        heading = re.search(r"^# (.*)$", page.read_text(encoding="utf-8"), re.M)
        if heading is None or not heading[1].startswith(name):
            two.append(f"{file}: {name!r}, {heading and heading[1]!r}")
    assert two == []
