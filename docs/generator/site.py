"""MkDocs hook: pages from the checkout's root, plain `.md` beside each page, and `llms.txt`."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation, Section
from mkdocs.structure.pages import Page

CHECKOUT = Path(__file__).resolve().parents[2]
DOCS = CHECKOUT / "docs"
ROOT_PAGES = {"SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md"}
FENCE = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?\[[^\]]*\])\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
LOADED = re.compile(
    r'<(?:script|img|iframe|source)[^>]*\ssrc="(https?:)?//|<link[^>]*\shref="https?://(?![^"]*"[^>]*rel="canonical")'
)

_nav: list[Any] = []
_plain: dict[str, str] = {}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the root's pages, and every file outside `docs/` that a page links to."""
    for name in sorted(ROOT_PAGES):
        source = str(CHECKOUT / name)
        files.append(File.generated(config, name.lower(), abs_src_path=source))
    linked: set[str] = set()
    for file in files.documentation_pages():
        source = Path(file.abs_src_path or "")
        for _, target, _ in LINK.findall(FENCE.sub("", source.read_text(encoding="utf-8"))):
            path = _in_checkout(source, target)
            if _uri(path).startswith("files/"):
                linked.add(path)
    for path in sorted(linked):
        if (CHECKOUT / path).is_file():
            content = (CHECKOUT / path).read_text(encoding="utf-8")
            files.append(File.generated(config, _uri(path), content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where their files are in the site."""
    source = Path(page.file.abs_src_path or "")
    here = posixpath.dirname(page.file.src_uri)

    def led(match: re.Match[str]) -> str:
        label, target, anchor = match.groups()
        uri = posixpath.relpath(_uri(_in_checkout(source, target)), here or ".")
        return f"{label}({uri}{anchor or ''})"

    parts = FENCE.split(markdown)
    text = "".join(p if p.startswith("```") else LINK.sub(led, p) for p in parts)
    _plain[page.file.src_uri] = text
    return text


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> None:
    _nav[:] = nav.items


def on_post_build(config: MkDocsConfig) -> None:
    site = Path(config.site_dir)
    for uri, text in _plain.items():
        (site / uri).parent.mkdir(parents=True, exist_ok=True)
        (site / uri).write_text(text, encoding="utf-8")
    lines = [f"# {config.site_name}", "", f"> {config.site_description}", ""]
    for item in _nav:
        lines += _listed(item)
    (site / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for page in site.rglob("*.html"):
        if found := LOADED.search(page.read_text(encoding="utf-8")):
            raise PluginError(f"{page.relative_to(site)} loads from elsewhere: {found[0][:200]}")


def _listed(item: Any) -> list[str]:
    """A page as a line with its first sentence; a section as a heading above its pages."""
    if isinstance(item, Section):
        inside = [line for child in item.children for line in _listed(child)]
        return [f"## {item.title}", "", *[i for i in inside if i], ""]
    return [f"- [{item.title}]({item.file.src_uri}): {_about(item.file.src_uri)}"]


def _about(uri: str) -> str:
    """The first paragraph of prose of a page, on one line."""
    text = re.sub(r"<!--.*?-->", "", FENCE.sub("", _plain[uri]), flags=re.DOTALL)
    prose = (" ".join(p.split()) for p in text.split("\n\n"))
    first = next((p for p in prose if re.match(r"[\w`*\[]", p)), "")
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", first)


def _in_checkout(source: Path, target: str) -> str:
    return os.path.relpath((source.parent / target).resolve(), CHECKOUT)


def _uri(path: str) -> str:
    """Where a file of the checkout is in the site."""
    if path in ROOT_PAGES:
        return path.lower()
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    # As text: a Markdown file of another folder is not a page of the site.
    return f"files/{path}" + ".txt" * path.endswith(".md")
