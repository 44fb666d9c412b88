"""The project as a whole: what it installs, the order of its imports, its commands, its set-up in Colab."""

import ast
import os
import py_compile
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from contracts import import_problems
from IPython.core.inputtransformer2 import TransformerManager
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from course import __main__ as command_line
from course import bench, site
from course.notebooks import REPOSITORY, SETUP_CELL
from helpers.settings import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
README, MAKEFILE = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()

# From the ground up: a package imports from the floors below its own alone, and files within it in no circle.
FLOORS = (
    ("settings", "style", "models", "numpy_cnn"),
    ("data",),
    ("training",),
    ("record",),
    ("figures", "latent", "show"),
)


def requirements(*extras: str, core: bool = True) -> dict[str, Requirement]:
    lines = list(PYPROJECT["dependencies"]) if core else []
    for extra in extras:
        lines += PYPROJECT["optional-dependencies"][extra]
    return {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def conda_names(text: str) -> set[str]:
    """Return the canonical PyPI names of the packages in an environment.yml, Python and pip aside."""
    listed = yaml.safe_load(text)["dependencies"]
    names = [n for n in listed if isinstance(n, str)]
    names += [n for entry in listed if isinstance(entry, dict) for n in entry["pip"] if n != "-e ."]
    names = {canonicalize_name(Requirement(re.sub(r"=.*", "", name)).name) for name in names}
    return {"torch" if name == "pytorch" else name for name in names} - {"python", "pip"}


def test_environment_yml_names_what_pyproject_names():
    text = (ROOT / "environment.yml").read_text()
    assert conda_names(text) == set(requirements("dev", "cluster", "site"))
    assert conda_names(text.replace("# - tsnecuda", "- tsnecuda")) == set(requirements("dev", "cluster", "site", "gpu"))


def test_constraints_hold_every_requirement_at_a_version_that_suits_it_and_no_local_one():
    held = pins()
    for name, requirement in requirements("dev", "cluster", "site", "gpu").items():
        assert name in held, f"constraints.txt lacks {name}"
        assert requirement.specifier.contains(held[name]), f"{requirement} against {held[name]}"
    # A local version, such as a build for CPUs alone, comes from elsewhere and does not fit the others.
    assert [name for name, version in held.items() if not re.fullmatch(r"[\d.]+(post\d+)?", version)] == []


def test_every_import_is_declared():
    provided = metadata.packages_distributions()
    own = {path.stem for folder in ("tests", "benchmarks") for path in (ROOT / folder).glob("*.py")}
    own |= {"helpers", "course", *sys.stdlib_module_names}
    found = {"helpers": set(), "course": set(), "tests": set(), "benchmarks": set()}
    for folder, names in found.items():
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    names |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    names.add(node.module.split(".")[0])
    declared = set(requirements("gpu", "cluster", "site"))
    for folder, names in found.items():
        allowed = declared if folder in ("helpers", "course") else declared | set(requirements("dev"))
        for name in sorted(names - own):
            distributions = {canonicalize_name(d) for d in provided.get(name, [name])}
            assert distributions & allowed, f"{folder} imports {name}, which pyproject.toml does not declare"


def test_citation_and_set_up_cell_name_the_repository_of_the_settings():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["repository-code"] == REPOSITORY
    assert REPOSITORY in SETUP_CELL


def test_imports_go_one_way_and_by_full_names():
    assert import_problems(ROOT / "helpers", FLOORS) == []
    assert [path for path in (ROOT / "helpers").rglob("*.py") if "from ." in path.read_text()] == []
    sources = [*(ROOT / "helpers").rglob("*.py"), *(ROOT / "notebooks").glob("*.ipynb")]
    named = {str(path.relative_to(ROOT)): path.read_text().count("from course") for path in sources}
    # Beyond its set-up cell, no notebook imports from course.
    assert [name for name, count in named.items() if count != name.endswith(".ipynb")] == []


def test_the_afternoon_path_takes_an_afternoon():
    told = (ROOT / "CONTRIBUTING.md").read_text().partition("An afternoon's path")[2].partition("\n\n")[0]
    files = [ROOT / "helpers" / name.removeprefix("helpers/") for name in re.findall(r"`([\w/]+\.py)`", told)]
    assert len(files) == 10 and sum(len(path.read_text().splitlines()) for path in files) <= 2000


def test_wrong_imports_are_noticed(tmp_path):
    package = tmp_path / "pack"
    (package / "sub").mkdir(parents=True)
    for name, text in {
        "__init__": "",
        "a": "from pack import b",
        "b": "def f():\n    import pack.a",
        "c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pack.d import D",
        "d": "from pack.sub.x import X",
        "sub/x": "X = 1",
    }.items():
        (package / f"{name}.py").write_text(text)
    above, circle = import_problems(package, (("a",), ("b",), ("c",), ("sub",), ("d",)))
    assert above == "pack.a imports pack.b, which stands on a higher floor"
    assert circle.startswith("a circle of imports: pack.")


def test_ruff_is_content():
    for words in (["check"], ["format", "--check"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *words, "."], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_large_is_kept():
    left_out = {".git", ".venv", "__pycache__", ".pytest_cache", ".ruff_cache", "build", "pages"}
    data_sets = [path for path in (ROOT / "data").iterdir() if path.name not in ("runs", "embeddings")]
    large = []
    for folder, below, files in os.walk(ROOT):
        below[:] = [n for n in below if n not in left_out and Path(folder, n) not in data_sets]
        paths = [Path(folder, name) for name in files if Path(folder, name) not in data_sets]
        large += [str(p.relative_to(ROOT)) for p in paths if p.stat().st_size > 5 * 2**20]
    assert large == []


def make_verbs(text: str) -> set[str]:
    return set(re.findall(r"^([a-z]+):[^#\n]*## ", text, re.MULTILINE))


def command_problems(readme: str, makefile: str) -> list[str]:
    found = re.findall(r"```sh\n(.*?)```|`([^`\n]+)`", readme, re.DOTALL)
    code, verbs = "\n".join(block or span for block, span in found), make_verbs(makefile)
    mentioned = set(re.findall(r"\bmake ([a-z]+)", code))
    problems = [f"README has `make {verb}`, the Makefile has not" for verb in sorted(mentioned - verbs)]
    problems += [f"the Makefile has {verb}, README has not" for verb in sorted(verbs - mentioned)]
    for line in re.findall(r"\bmake [a-z]+[^\n`]*", code):
        for variable in re.findall(r"\b([A-Z]+)=", line):
            if f"$({variable})" not in makefile:
                problems.append(f"README sets {variable}, the Makefile does not use it")
    for verb in re.findall(r"-m course ([a-z]+)", f"{code}\n{makefile}"):
        if not any(callable(getattr(command_line, name, None)) for name in (verb, f"{verb}_")):  # try is Python's
            problems.append(f"`python -m course {verb}` does not exist")
    return problems


def test_readme_has_the_commands_of_the_makefile_and_others_are_noticed():
    assert command_problems(README, MAKEFILE) == []
    makefile = "a: ## first\n\t@x $(JOBS)\nb: ## second\n"
    assert command_problems("`make a JOBS=2`\n```sh\nmake b\n```\nmake c in prose", makefile) == []
    wrong = command_problems("`make a STUDY=x` and `make c`, `python -m course nothing`", makefile)
    assert wrong == [
        "README has `make c`, the Makefile has not",
        "the Makefile has b, README has not",
        "README sets STUDY, the Makefile does not use it",
        "`python -m course nothing` does not exist",
    ]


def test_the_command_line_lists_the_same_verbs_and_shows_the_courses_own_errors_as_messages_alone(capsys):
    with pytest.raises(SystemExit):
        command_line.main(["--help"])
    listed = capsys.readouterr().out
    verbs = ("report", "test", "record", "smoke", "bench", "gpu", "status", "notebooks", "try", "site", "badges")
    for verb in verbs:
        assert re.search(rf"^ +{verb}\b", listed, re.MULTILINE) and verb in make_verbs(MAKEFILE)
    assert command_line.main(["bench", "x"]) == 1
    assert capsys.readouterr().err.startswith("bench: no benchmark 'x'; there are: ")


def test_continuous_integration_calls_make_test_and_publishes_what_make_site_builds():
    text = (ROOT / ".ci" / "run").read_text()
    assert "make test" in text and "set -euo pipefail" in text and os.access(ROOT / ".ci" / "run", os.X_OK)
    text = (ROOT / ".github/workflows/pages.yml").read_text()
    steps = yaml.safe_load(text)["jobs"]["publish"]["steps"]
    assert "make site" in [step.get("run") for step in steps]
    assert [step["uses"] for step in steps if not step.get("uses", "actions/").startswith("actions/")] == []
    published = next(step["with"]["path"] for step in steps if "upload-pages-artifact" in step.get("uses", ""))
    assert ROOT / published == site.FOLDER


def test_every_benchmark_can_be_measured_and_those_for_a_gpu_are_there():
    paths = {path.stem: path for path in bench.FOLDER.glob("*.py")}
    for path in paths.values():
        names = {n.name for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef)}
        assert "measure" in names, f"{path.name} has no measure()"
    named = {step.name.removeprefix("bench ") for step in bench.GPU_STEPS if step.name.startswith("bench ")}
    assert named == {"loop", "tsne"} <= set(paths)


def write_benchmark(folder: Path, name: str, ratio: int) -> None:
    figures = (f"loop-{name}", 1, ratio, "s", "cpu", True, 1)
    (folder / f"{name}.py").write_text(f"def measure():\n    return [{figures}]\n")


def test_benchmarks_keep_each_others_results(tmp_path):
    write_benchmark(tmp_path, "a", 2)
    write_benchmark(tmp_path, "b", 3)
    results = tmp_path / "bench.json"
    bench.run(folder=tmp_path, results=results)
    write_benchmark(tmp_path, "b", 4)
    assert list(bench.run("b", folder=tmp_path, results=results)["ratio"]) == [4]
    assert [(r["name"], r["ratio"]) for r in yaml.safe_load(results.read_text())] == [("loop-a", 2), ("loop-b", 4)]
    with pytest.raises(bench.BenchmarkFailed, match="no benchmark 'c'; there are: a, b"):
        bench.run("c", folder=tmp_path, results=results)


def test_a_benchmark_edited_within_a_second_is_run_as_it_now_stands(tmp_path):
    script = tmp_path / "a.py"
    write_benchmark(tmp_path, "a", 3)
    os.utime(script, (1e9, 1e9))
    py_compile.compile(script, invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP)
    write_benchmark(tmp_path, "a", 4)  # of the same size
    os.utime(script, (1e9, 1e9))
    assert list(bench.run(folder=tmp_path, results=tmp_path / "bench.json")["ratio"]) == [4]


STAND_IN = """
import os, subprocess, sys, types
sys.modules["google.colab"] = types.ModuleType("google.colab")
get_ipython = lambda: types.SimpleNamespace(system=lambda line: subprocess.run(line, shell=True))
cell = sys.argv[1]
exec(cell)
exec(cell)  # running it again changes nothing
import helpers
print(os.getcwd(), helpers.__file__, sep="\\n")
"""
PIP = """
import pathlib, sys
constraints = pathlib.Path(sys.argv[sys.argv.index("-c") + 1]).read_text()
pathlib.Path(__file__).with_name("called").write_text("\\n".join([*sys.argv[1:], constraints]))
"""


@pytest.fixture
def colab(tmp_path):
    """Return a function that runs the set-up cell twice in a Python with no packages but those in ``stub``."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed here; Colab has it")
    origin, content = tmp_path / "origin", tmp_path / "content"
    shipped = "helpers/__init__.py helpers/settings.py course/__init__.py course/colab.py pyproject.toml"
    for name in shipped.split():
        (origin / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, origin / name)
    (origin / "notebooks").mkdir()
    (origin / "notebooks/README").write_text("kept")
    (tmp_path / "gitconfig").write_text(f'[url "file://{origin}"]\n\tinsteadOf = {REPOSITORY}.git\n')
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path / "stub")}
    environment |= {"GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig"), "GIT_CONFIG_NOSYSTEM": "1"}
    identity = ["-c", "user.name=Course", "-c", "user.email=course@example.org"]
    for words in (["init", "-q", "-b", "main"], ["add", "."], [*identity, "commit", "-q", "-m", "Course"]):
        subprocess.run(["git", *words], cwd=origin, env=environment, check=True)
    (tmp_path / "stub/pip").mkdir(parents=True)
    (tmp_path / "stub/pip/__init__.py").touch()  # a package, so that it goes before the real one
    (tmp_path / "stub/pip/__main__.py").write_text(PIP)
    content.mkdir()

    def run() -> list[str]:
        command = [sys.executable, "-S", "-c", STAND_IN, TransformerManager().transform_cell(SETUP_CELL)]
        done = subprocess.run(command, cwd=content, env=environment, check=True, capture_output=True, text=True)
        return done.stdout.splitlines()

    return run


def test_colab_gets_what_it_lacks_and_keeps_what_it_ships(colab, tmp_path):
    course, called = tmp_path / "content" / REPOSITORY.rpartition("/")[2], tmp_path / "stub/pip/called"
    here = [str(course / "notebooks"), str(course / "helpers/__init__.py")]

    def pretend_installed(name, version):
        info = tmp_path / "stub" / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    assert colab() == here
    words = called.read_text().split()
    assert words[:3] == ["install", "-q", "-c"]
    # An empty machine gets everything but the notebook server, which Colab is itself.
    assert {canonicalize_name(Requirement(word).name) for word in words[4:]} == set(requirements()) - {"jupyterlab"}
    (course / "mine").write_text("kept")
    for name in set(requirements()) - {"nbval", "jupyterlab"}:
        pretend_installed(name, "2.11.0+cu128" if name == "torch" else "1.0")
    assert colab() == here
    words = called.read_text().splitlines()
    assert words[4] == str(requirements()["nbval"])
    assert "torch==2.11.0+cu128" in words[5:] and not any(word.startswith("nbval") for word in words[5:])
    pretend_installed("nbval", "0.11")
    called.unlink()
    # After the kernel was restarted the copy is there, and nothing is fetched again.
    assert colab() == here and (course / "mine").exists() and not called.exists()


def test_elsewhere_the_set_up_cell_does_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(TransformerManager().transform_cell(SETUP_CELL), {})
    assert Path.cwd() == tmp_path and not any(tmp_path.iterdir())
