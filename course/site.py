"""The course as a website that needs no network: the notebooks as they were executed, README as its front page.

Sphinx and myst-nb make the pages of copies of the sources; as an extension, this module writes formulas as MathML.
"""

import base64
import io
import re
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import nbformat
from docutils import nodes
from latex2mathml.converter import convert
from nbformat import NotebookNode
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils
from sphinx.writers.html5 import HTML5Translator

from course.notebooks import BADGE, all_notebooks, badge, declared_studies, read
from helpers.settings import ROOT, pages_folder

FOLDER = ROOT / "build" / "site"
EXPLORER = "12-latent-space.html"
TITLE = "Convolutional networks by experiment"
SETTINGS = {
    "project": TITLE,
    "html_title": TITLE,
    "extensions": ["myst_nb", "course.site"],
    "myst_enable_extensions": ["attrs_inline", "colon_fence", "dollarmath"],
    "exclude_patterns": ["downloads"],
    "nb_execution_mode": "off",
    "nb_render_markdown_format": "myst",
    "smartquotes": False,
    "html_math_renderer": "mathml",
    "html_theme": "pydata_sphinx_theme",
    "html_context": {"default_mode": "auto"},
    "html_static_path": ["_static"],
    "html_css_files": ["site.css"],
    "html_copy_source": False,
    "html_theme_options": {
        "logo": {"text": "Convolutional networks"},
        "search_bar_text": "Search the course",
        "secondary_sidebar_items": ["page-toc"],
        "footer_start": [],
        "footer_end": [],
    },
}
# The button's name for those who hear it is the text that others see, keys included.
NAMED = """addEventListener("DOMContentLoaded", () =>
  document.querySelectorAll(".search-button-field").forEach((b) => (b.ariaLabel = b.innerText || b.ariaLabel)))"""
# README on the site: its first paragraph, how to start, what was found (from the first picture on), all the rest.
PARTS = re.compile(r"(.*?)(```sh\n.*?)(!\[.*?)(## All commands\n.*)", re.DOTALL)
LOCAL = re.compile(r"\]\(([^)#:]+)\)")
MENTION = re.compile(r"[Nn]otebook (\d\d)\b|\*\*(\d\d)_\w+\*\*")


class SiteFailed(RuntimeError):
    """The site cannot be built as it stands; the message lists what to mend."""


def build(folder: Path = FOLDER) -> Path:
    """Return the first page of the site, after building it in ``folder``, in place of what was built there before.

    SiteFailed lists Sphinx's warnings, such as a link that leads nowhere; what was built before then stays.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".site-") as temporary:
        source, pages = Path(temporary, "source"), Path(temporary, "pages")
        warnings = io.StringIO()
        with ProcessPoolExecutor(1, get_context("spawn")) as beside, patch_docutils(), docutils_namespace():
            drawn = beside.submit(explorer)  # which takes about as long as all other pages
            stage(source)
            folders = source, None, pages, Path(temporary, "doctrees")
            Sphinx(*folders, "html", SETTINGS, None, warnings, True, parallel=2).build()
        if warnings.getvalue():
            raise SiteFailed(warnings.getvalue().replace(f"{source}/", ""))
        shown = pages / "notebooks" / pages_folder().name / EXPLORER
        shown.parent.mkdir()
        shown.write_text(drawn.result(), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        pages.rename(folder)
    return folder / "index.html"


def explorer() -> str:
    """Return the page that notebook 12 writes and shows, without pictures: those of a data set are not published."""
    from helpers.latent import latent_page  # this needs PyTorch, and building the rest does not

    (notebook,) = (path for path in all_notebooks() if path.stem == Path(EXPLORER).stem.replace("-", "_"))
    run = declared_studies(notebook)[0].runs().only("R2")[0]
    layers, last = {"convolutions": "flatten", "last hidden layer": "fc2_relu"}, run.experiment.epochs
    return latent_page(run, layers, (0, last // 2, last), film=("fc2_relu", 3_000))


def stage(source: Path) -> None:
    """Write the sources of the site to the folder ``source``: pages, notebooks, and all files that README links to."""
    readme = (ROOT / "README.md").read_text()
    parts = PARTS.fullmatch(readme)
    if parts is None:
        raise SiteFailed("README.md needs commands (```sh), then a picture, then '## All commands'")
    intro, start, findings, rest = parts.groups()
    for name in [*LOCAL.findall(readme), *(f"notebooks/{path.name}" for path in all_notebooks())]:
        copied = source / name.replace("notebooks/", "downloads/")
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copied)
    pages = {
        "index.md": f"{intro}[Read the report (PDF)](report/report.pdf){{.button}}\n\n{findings}"
        + contents("Notebooks <contents>", "commands", "CONTRIBUTING", "data/README", hidden=True),
        "commands.md": f"# Run it yourself\n\n{start}{rest}",
        "contents.md": "# The notebooks\n\n" + contents(*(f"notebooks/{path.stem}" for path in all_notebooks())),
    }
    for name, text in pages.items():
        (source / name).write_text(BADGE.sub(r"[Colab](\1)", text))
    (source / "notebooks").mkdir()
    for path in all_notebooks():
        (source / "notebooks" / path.name).write_text(nbformat.writes(page(path, source)))
    (source / "_static").mkdir()
    shutil.copy(Path(__file__).with_suffix(".css"), source / "_static")


def contents(*names: str, hidden: bool = False) -> str:
    """Return Sphinx's list of the pages ``names``, which also gives their order; ``hidden`` shows none of it."""
    return "\n".join(["", "```{toctree}", ":maxdepth: 1", *([":hidden:"] * hidden), "", *names, "```", ""])


def page(path: Path, source: Path) -> NotebookNode:
    """Return the notebook as a page: buttons for its badge, others linked, its figures written to ``source``, too."""
    notebook = read(path)
    files = {other.stem[:2]: other.name for other in all_notebooks() if other != path}
    colab, download = BADGE.match(badge(path))[1], f"path:../downloads/{path.name}"
    buttons = f"[Open in Colab]({colab}){{.button}} [Download the notebook]({download}){{.button}}"

    def linked(mention: re.Match[str]) -> str:
        file = files.get(mention[1] or mention[2])
        return f"[{mention[0]}]({file})" if file else mention[0]

    notebook.cells = [cell for cell in notebook.cells if "setup" not in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = MENTION.sub(linked, BADGE.sub(lambda _: buttons, cell.source))
        elif cell.cell_type == "code":
            cell.outputs = figures(cell.outputs, source / "notebooks" / f"{path.stem}-{cell.id}")
    return notebook


def figures(outputs: list[NotebookNode], stem: Path) -> list[NotebookNode]:
    """Return the outputs with each picture and the caption that follows it as one figure; ``stem`` names its file."""
    shown: list[NotebookNode] = []
    for i, output in enumerate(outputs):
        data = output.get("data", {})
        if "image/png" in data:
            file, facts = stem.with_name(f"{stem.name}-{i}.png"), output.metadata["image/png"]
            file.write_bytes(base64.b64decode(data["image/png"]))
            start = f":::{{figure}} {file.name}\n:alt: {facts['alt']}\n:width: {facts['width']}px"
            markdown = f"{start}\n\n{outputs[i + 1].data['text/markdown']}\n:::"
            shown.append(nbformat.v4.new_output("display_data", {"text/markdown": markdown}))
        elif not (i and "image/png" in outputs[i - 1].get("data", {})):
            shown.append(output)
    return shown


def mathml(writer: HTML5Translator, node: nodes.math | nodes.math_block) -> None:
    """Write a formula as MathML."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    formula = convert(node.astext(), display=display)
    writer.body.append(f'<div class="math" tabindex="0">{formula}</div>\n' if display == "block" else formula)
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Make Sphinx write formulas as MathML, name the search button, and search pages that were opened as files."""
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
    app.add_js_file(None, body=NAMED)
    # A page opened as a file may not read others: search then lists titles, without an excerpt of each page.
    app.add_js_file(None, body="DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = location.protocol !== 'file:'")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
