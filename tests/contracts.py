"""The contracts as functions: each returns what is wrong, in words, for any notebook or source tree."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from IPython.core.inputtransformer2 import TransformerManager

from course.notebooks import SETUP_CELL, badge, code_cells, read

ANATOMY = "The question|Predict first|Set-up|Experiment|Evidence|Verdict|What this does not show|Exercises|What next"
# The test set is read at the end of final runs alone. FINAL notebooks are about final networks; those of BESIDE repeat
# a published table of test accuracies, and read it in cells tagged "published", beside the published figures; 01 shows
# how large it is. No other notebook touches it, and every choice is made on validation.
FINAL, BESIDE, SIZES = ("02_", "03_", "11_", "13_"), ("04_", "07_", "09_", "10_"), ("01_",)
# A difference in a finding: so many points, and the interval that it has to carry.
POINTS = re.compile(r"[+-]?\d+(?:\.\d+)? points(?: lower| higher)?(?: \[(-?[\d.]+), (-?[\d.]+)\])?")
UNTOLD = ("not separable", "cannot be told", "cannot tell")
TOO_LONG = 25
PERSONAL_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|Users|tmp|mnt|media|content|opt|srv|work)/\w|\b[A-Z]:\\\w")
ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")
VOLATILE_METADATA = {"execution", "ExecuteTime", "collapsed", "scrolled"}


def notebook_problems(path: Path) -> list[str]:
    notebook = read(path)
    found = [*_frame_problems(path, notebook), *_anatomy_problems(notebook)]
    found += [*_finding_problems(notebook), *_family_problems(notebook)]
    for position, cell in code_cells(notebook):
        found += [f"cell {position}: {problem}" for problem in _cell_problems(path, cell)]
    return [f"{path.name}, {problem}" for problem in found]


def _frame_problems(path: Path, notebook) -> Iterator[str]:
    first = notebook.cells[0]
    if first.cell_type != "markdown" or not first.source.startswith("# "):
        yield "cell 0: must be Markdown and begin with the title, `# ...`"
    if badge(path) not in first.source:
        yield "cell 0: the Colab badge is missing or points elsewhere; run `make badges`"
    code = code_cells(notebook)
    if not code or code[0][1].source != SETUP_CELL or "setup" not in tags(code[0][1]):
        yield "the first code cell must be the set-up cell, tagged setup; run `make badges`"
    if sum("imports" in tags(cell) for _, cell in code) != 1:
        yield "exactly one cell must be tagged imports"
    counts = [cell.execution_count for _, cell in code]
    if counts != list(range(1, len(code) + 1)):
        yield f"execution counts are {counts}, not 1 to {len(code)}: nbval cannot compare; `make notebooks`"
    if any(not cell.source.strip() for cell in notebook.cells):
        yield "there is an empty cell"
    if any(VOLATILE_METADATA & set(cell.metadata) for cell in notebook.cells):
        yield "a cell's metadata hold what changes with every run; run `make notebooks`"


def _anatomy_problems(notebook) -> Iterator[str]:
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    place = 0
    for wanted in ANATOMY.split("|"):
        starts = [i for i, text in enumerate(headings) if text.lower().startswith(wanted.lower())]
        later = [i for i in starts if i >= place]
        if not later:
            yield f'the heading "{wanted}" is missing or out of order ({ANATOMY})'
            return
        place = later[0] + 1


def _finding_problems(notebook) -> Iterator[str]:
    """Yield what a finding or a surprise, which README repeats, says without evidence."""
    for position, cell in code_cells(notebook):
        if not tags(cell) & {"finding", "surprise"}:
            continue
        if "takeaway(" not in cell.source:
            yield f"cell {position}: a finding is told by takeaway(..., rests_on=...), which names its facts"
        told = " ".join("".join(output.get("text", "") for output in cell.outputs).split())
        if "does not bear this out" in told:
            yield f"cell {position}: the record does not bear the finding out"
        for sentence in re.split(r"(?<=[.;]) ", told):
            for match in POINTS.finditer(sentence):
                if match[1] is None:
                    yield f"cell {position}: {match[0]!r} has no interval behind it"
                elif float(match[1]) <= 0 <= float(match[2]) and not any(word in sentence for word in UNTOLD):
                    yield f"cell {position}: {match[0]!r} is told as a difference, and is not separable"


def _family_problems(notebook) -> Iterator[str]:
    """Yield the studies that are judged twice by one figure: a contrast must not have two intervals."""
    judged = {}
    for position, cell in code_cells(notebook):
        for node in ast.walk(ast.parse(TransformerManager().transform_cell(cell.source))):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func) in ("verdict", "compare") and node.args):
                continue
            given = [*node.args[1:2], *(k.value for k in node.keywords if k.arg == "metric")]
            metric = ast.unparse(given[0]) if given else "'validation_accuracy'"
            runs = ast.unparse(node.args[0]).split(".")[0]
            if (runs, metric) in judged:
                first = judged[runs, metric]
                yield f"cells {first} and {position} judge {runs} by {metric}: one question, one family"
            judged[runs, metric] = position


def tags(cell) -> set[str]:
    return set(cell.metadata.get("tags", []))


def _cell_problems(path: Path, cell) -> Iterator[str]:
    source = cell.source
    # Names that do not fit a line stand one a line, so a cell of imports is measured by its statements.
    length = len(ast.parse(source).body) if "imports" in tags(cell) else len(source.splitlines())
    if length > TOO_LONG:
        yield f"{length} lines; {TOO_LONG} at most"
    declaring = tags(cell) & {"imports", "study"}
    if "Study(" in source and not declaring:
        yield "declares a Study without the tag study"
    if declaring and ".runs(" in source:
        yield "a declaring cell must not train; call .runs() in the next one"
    try:
        tree = ast.parse(source if declaring else TransformerManager().transform_cell(source))
    except SyntaxError as error:
        yield f"is not plain Python ({error.msg})"
        return
    imports = any(isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body)
    if imports and not tags(cell) & {"imports", "setup"}:
        yield "imports outside the import cell"
    yield from _source_problems(path, cell, tree)
    yield from _output_problems(cell)


def _source_problems(path: Path, cell, tree: ast.AST) -> Iterator[str]:
    source, final, beside = cell.source, path.name.startswith(FINAL), path.name.startswith(BESIDE)
    may_flag = final or (beside and "study" in tags(cell))
    may_read = final or path.name.startswith(SIZES) or (beside and "published" in tags(cell))
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "flagship" and not may_flag:
            yield "flagship= is for final runs: in 02, 03, 11, 13, and in study cells of 04, 07, 09, 10"
        if isinstance(node, ast.Attribute) and node.attr == "test" and not may_read:
            yield "reads the test split"
        named = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if named and re.match(r"test(_\w+)?$", node.value) and not may_read:
            yield f"reads the test split ({node.value!r})"
    if "COURSE_SMOKE" in source or re.search(r"\bsmoke\(", source):
        yield "asks whether this is a rehearsal; no notebook may"
    if match := PERSONAL_PATH.search(source):
        yield f"a path of one machine ({match[0]}...)"


def _output_problems(cell) -> Iterator[str]:
    for output in cell.outputs:
        if output.output_type == "error":
            yield f"holds an error: {output.ename}"
        if output.get("name") == "stderr":
            yield "holds what was written to stderr; run `make notebooks`"
        data = output.get("data", {})
        texts = [output.get("text", ""), *(text for kind, text in data.items() if kind.startswith("text/"))]
        for text in texts:
            if match := PERSONAL_PATH.search(text):
                yield f"its output shows a path of one machine ({match[0]}...)"
            if match := ADDRESS.search(text):
                yield f"its output shows an address in memory ({match[0]})"
        if any("widget" in kind for kind in data):
            yield "its output holds a widget"


def import_problems(package: Path, order: tuple[tuple[str, ...], ...]) -> list[str]:
    """Return the imports in ``package`` that lead to a higher floor of ``order`` (from the ground up) or in a circle.

    Modules of one group may import each other in no circle; a subpackage counts as one module.
    """
    rank = {module: i for i, group in enumerate(order) for module in group}
    names = (path.relative_to(package.parent).with_suffix("") for path in sorted(package.rglob("*.py")))
    files = {".".join(name.parts).removesuffix(".__init__"): package.parent / f"{name}.py" for name in names}
    graph, problems = {}, []
    for module, path in files.items():
        found = {deepest for name in _imported(ast.parse(path.read_text())) if (deepest := _deepest(name, files))}
        graph[module] = found - {package.name, module}
        for target in graph[module] if module != package.name else ():
            here, there = (name.split(".")[1] for name in (module, target))
            if here not in rank or there not in rank:
                problems.append(f"{module} imports {target}: give both a floor")
            elif rank[there] > rank[here]:
                problems.append(f"{module} imports {target}, which stands on a higher floor")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        problems.append("a circle of imports: " + " -> ".join(error.args[1]))
    return problems


def _imported(tree: ast.AST) -> Iterator[str]:
    """Yield all that is imported, in functions too, but not for types alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield from _imported(node)


def _deepest(name: str, files: dict[str, Path]) -> str | None:
    """Return the module that ``name``, of a module or of what stands in one, leads to."""
    return next((part for part in (name, name.rpartition(".")[0]) if part in files), None)
