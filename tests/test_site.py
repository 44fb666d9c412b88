"""The website: every page, link and formula of it, and what a real browser makes of it without a network."""

import html
import re
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import browser

from course import site
from course.notebooks import all_notebooks, badge, read
from helpers.settings import ROOT

# What a browser fetches by itself, by tag.
FETCHED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "video": "src"}


class Page(HTMLParser):
    """The ``tags`` of a page, each with its attributes, and its ``formulas``, as text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.formulas, self.inside = [], [], False
        self.feed(text)
        self.links = [own["href"] for tag, own in self.tags if tag == "a" and "href" in own]
        self.fetched = [address for tag, own in self.tags if (address := own.get(FETCHED.get(tag)))]
        self.anchors = {own[name] for _, own in self.tags for name in ("id", "name") if own.get(name)}

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "math":
            self.formulas.append("")
        self.inside = self.inside or tag == "math"

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "math"

    def handle_data(self, data):
        if self.inside:
            self.formulas[-1] += data


def link_problems(folder: Path, pages: dict[str, Page]) -> list[str]:
    """Return the links and resources of ``pages`` (by their paths in ``folder``) that are outside, or lead nowhere."""
    found = []
    for name, page in pages.items():
        found += [f"{name} fetches {address}" for address in page.fetched if urlsplit(address).netloc]
        for address in {*page.links, *page.fetched}:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = ((folder / name).parent / unquote(parts.path)).resolve() if parts.path else folder / name
            if not target.is_file():
                found.append(f"{name} links to {address}, which is not there")
            elif parts.fragment and unquote(parts.fragment) not in pages[str(target.relative_to(folder))].anchors:
                found.append(f"{name} links to {address}, which has no such anchor")
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return site.build(tmp_path_factory.mktemp("site").resolve() / "pages").parent


@pytest.fixture(scope="module")
def pages(built):
    found = [path for path in built.rglob("*.html") if "_static" not in path.parts]
    return {str(path.relative_to(built)): Page(path.read_text()) for path in found}


def notebook_page(path: Path) -> str:
    return f"notebooks/{path.stem}.html"


def test_every_link_leads_somewhere_and_nothing_is_fetched_from_elsewhere(built, pages):
    assert link_problems(built, pages) == []
    styles = "".join(path.read_text() for path in built.rglob("*.css"))
    assert re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//[^)]*", styles) == []


def test_the_front_page_has_the_findings_and_leads_to_every_notebook_and_the_report(built, pages):
    front = pages["index.html"]
    assert {notebook_page(path) for path in all_notebooks()} <= set(front.links)
    report = next(link for link in front.links if link.endswith("/report.pdf"))
    assert (built / report).read_bytes() == (ROOT / "report/report.pdf").read_bytes()
    text = html.unescape(re.sub(r"<[^>]+>", "", (built / "index.html").read_text()))
    for block in ("surprises", "results", "comparison"):
        told = (ROOT / "README.md").read_text().partition(f"<!-- {block}:begin -->")[2].partition("<!--")[0]
        sentences = re.findall(r"(?:^- |\| )(\w[^|(\[]+)", told, re.MULTILINE)
        assert sentences and [words for words in sentences if words.strip() not in text] == []


def test_each_notebook_is_a_page_with_its_figures_formulas_and_files(built, pages):
    for path in all_notebooks():
        page, notebook = pages[notebook_page(path)], read(path)
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        alts = [o.metadata["image/png"]["alt"] for o in outputs if "image/png" in o.get("data", {})]
        assert [own["alt"] for tag, own in page.tags if tag == "img"] == alts and all(alts)
        assert [tag for tag, _ in page.tags].count("figcaption") == len(alts)
        frames = sum('class="dataframe"' in o.get("data", {}).get("text/html", "") for o in outputs)
        assert (built / notebook_page(path)).read_text().count('class="dataframe"') == frames
        assert site.BADGE.match(badge(path))[1] in page.links
        copy = next(link for link in page.links if link.startswith("../_downloads/") and link.endswith(path.name))
        assert (built / "notebooks" / copy).resolve().read_bytes() == path.read_bytes()


def test_every_formula_is_set(pages):
    count = 0
    for path in all_notebooks():
        prose = "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
        prose = re.sub(r"```.*?```|`[^`\n]*`", "", prose, flags=re.DOTALL)
        formulas = pages[notebook_page(path)].formulas
        count += len(formulas)
        assert len(formulas) >= len(re.findall(r"\$\$.+?\$\$|\$[^$]+\$", prose, re.DOTALL))
        # A command that is not known is set as it was written.
        assert [f for f in formulas if re.search(r"[\\$]|^\s*$", f)] == []
    assert count > 100


def test_a_page_links_to_the_notebooks_that_it_mentions(pages):
    linked = defaultdict(set)
    for path in all_notebooks():
        linked[path.stem[:2]] |= {link[:2] for link in pages[notebook_page(path)].links if link[:1].isdigit()}
    assert "04" in linked["03"] and {"02", "09", "13"} <= linked["01"]


def test_a_warning_of_sphinx_fails_and_leaves_the_old_site_alone(tmp_path, monkeypatch):
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "index.html").write_text("old")

    def wrong(source):
        source.mkdir()
        (source / "index.md").write_text("# Title\n\n[nowhere](nowhere.md)\n")
        (source / "_static").mkdir()

    monkeypatch.setattr(site, "stage", wrong)
    monkeypatch.setattr(site, "explorer", str)
    with pytest.raises(site.SiteFailed, match=r"index.md:3: .*nowhere"):
        site.build(tmp_path / "pages")
    assert (tmp_path / "pages" / "index.html").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["pages"]


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("chromium")) as tab:
        yield tab


def test_pages_ask_for_nothing_outside_complain_of_nothing_and_fit_a_narrow_screen(built, tab):
    tab.resize(360, 740)
    for name in ("index.html", "commands.html", *(notebook_page(path) for path in all_notebooks())):
        tab.open((built / name).as_uri())
        assert tab.problems() == [], name
        assert [a for a in tab.requests() if not a.startswith((f"{built.as_uri()}/", "data:"))] == [], name
        assert tab.run("document.documentElement.scrollWidth <= innerWidth"), f"{name} is wider than the screen"
        assert tab.run("[...document.images].every((image) => image.complete && image.naturalWidth)"), name
        assert tab.run("[...document.querySelectorAll('.search-button-field')].every((b) => b.ariaLabel)"), name


def test_search_opens_with_its_keys_and_finds_label_smoothing(built, tab):
    tab.resize(1280, 900)
    tab.open((built / "index.html").as_uri())
    tab.press("k", modifiers=2)
    assert tab.until("document.activeElement.matches('input[type=search]')")
    tab.call("Input.insertText", text="label smoothing")
    tab.run("document.activeElement.form.requestSubmit()")
    tab.until("[...document.querySelectorAll('#search-results a')].some((a) => a.pathname.endsWith('08_loss.html'))")
    assert tab.problems() == []


def test_the_dark_mode_switches_and_tab_reaches_the_skip_link(built, tab):
    tab.open((built / "notebooks/04_architecture.html").as_uri())
    tab.press("Tab")
    assert tab.run("document.activeElement.getAttribute('href')") == "#main-content"
    ground = "getComputedStyle(document.body).backgroundColor"
    picture = "getComputedStyle(document.querySelector('figure img')).backgroundColor"
    seen = set()
    for mode in ("light", "dark"):
        tab.run(f"document.querySelector('.theme-change-button[data-mode={mode}]').click()")
        seen.add((tab.run("document.documentElement.dataset.theme"), tab.run(ground), tab.run(picture)))
    assert {theme for theme, _, _ in seen} == {"light", "dark"} and len({colour for _, colour, _ in seen}) == 2
    assert {colour for _, _, colour in seen} == {"rgb(255, 255, 255)"}
