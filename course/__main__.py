"""The verbs of the course on the command line: ``python -m course VERB``. The Makefile calls the same."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from helpers import settings
from helpers.settings import ROOT


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a positive whole number")
    return value


def _pytest(*words: str, **environment: str) -> int:
    """Return pytest's exit status; each of its processes has one thread, so that none waits for another."""
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words]
    return subprocess.call(command, cwd=ROOT, env=os.environ | threads | settings.KEEP_MEMORY | environment)


def report(args: argparse.Namespace) -> None:
    """Re-execute every notebook and compile report/report.pdf."""
    from course.notebooks import all_notebooks, execute
    from course.report import build

    execute(all_notebooks(), jobs=args.jobs)
    with ThreadPoolExecutor(1) as beside:  # for most of this time LaTeX is at work
        refreshed = beside.submit(_refresh_readme)
        print(build())
    refreshed.result()


def test(args: argparse.Namespace) -> int:
    """Run unit tests, strict and smoke runs of every notebook, and the report's tests."""
    return _pytest("-n", str(args.jobs), "--no-loadscope-reorder", "--durations=10")


def smoke(args: argparse.Namespace) -> int:
    """Rehearse: retrain everything, tiny, on the embedded digits, into a temporary record."""
    options = ("--nbval-lax", "--nbval-current-env", "-n", str(args.jobs), "--dist", "loadscope")
    return _pytest(*options, "notebooks", COURSE_SMOKE="1", PYTHONPATH=str(ROOT))


def record(args: argparse.Namespace) -> None:
    """Train what the notebooks declare and the record lacks."""
    from course.notebooks import train_missing

    print(train_missing(args.study, args.seeds, jobs=args.jobs, scheduler=args.scheduler))


def bench(args: argparse.Namespace) -> None:
    """Run the benchmarks, print a table of ratios and write data/bench.json."""
    from course.bench import run

    print(run(args.name).round(3).to_string(index=False))


def gpu(_: argparse.Namespace) -> int:
    """Do all that waits for a GPU: its tests, its benchmarks, the record; without one, list it."""
    from course.bench import run_steps

    table = run_steps()
    print(table.to_string(index=False, max_colwidth=None, justify="left"))
    return int((table["outcome"] == "failed").any())


def status(args: argparse.Namespace) -> None:
    """List every study, and how much of it is recorded."""
    import pandas as pd

    from course import notebooks

    rows = notebooks.status(notebooks.studies_by_notebook())
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        print(pd.DataFrame(rows).fillna("-").to_string(index=False) if rows else "no notebook declares a study")


def notebooks(args: argparse.Namespace) -> None:
    """Re-execute the notebooks in place (all, or those whose names begin as given)."""
    from course.notebooks import all_notebooks, execute

    paths = [p for p in all_notebooks() if not args.names or p.name.startswith(tuple(args.names))]
    if not paths:
        sys.exit(f"no notebook's name begins with {' or '.join(args.names)}")
    execute(paths, jobs=args.jobs)


def try_(args: argparse.Namespace) -> None:
    """Train a small network on a folder of your own pictures, and write a page about it."""
    from course.try_folder import try_folder

    print(try_folder(args.folder, args.out, args.seeds, args.epochs))


def site(_: argparse.Namespace) -> None:
    """Build the course as a website that works offline, in build/site."""
    from course.site import build

    print(build())


def badges(_: argparse.Namespace) -> int | None:
    """Point badges, set-up cells and README at git's origin on GitHub, or as helpers/settings.py says."""
    from course.notebooks import all_notebooks, name_repository, set_badge

    if name_repository():  # what has been imported names the old one
        return subprocess.call([sys.executable, "-m", "course", "badges"], cwd=ROOT)
    for path in all_notebooks():
        if set_badge(path):
            print(f"{path.name}: changed; re-execute it if its set-up cell did")
    _refresh_readme()


def _refresh_readme() -> None:
    """Fill in the README's tables: the notebooks, with the training time of what they show, and the comparisons."""
    from course.notebooks import fill, overview, studies_by_notebook, surprises
    from helpers.record import DEVICES, read_run

    if settings.smoke():
        return
    times = {}
    for name, studies in studies_by_notebook().items():
        experiments = {e for study in studies if study.is_recorded() for _, e in study.experiments()}
        hours = dict.fromkeys(DEVICES, 0.0)
        for kind in DEVICES:  # to both of which NumPy's runs answer
            runs = [run for e in experiments if (run := read_run(e, kind))]
            hours[kind] = sum(run.metrics["training_seconds"] for run in runs if run.device == kind) / 3600
        times[name] = " + ".join(f"{hours[kind]:.1f} h {kind.upper()}" for kind in DEVICES if hours[kind])
    fill(ROOT / "README.md", "results", overview(times))
    fill(ROOT / "README.md", "surprises", surprises())
    for block, name in {"comparison": "03-comparison", "own-ways": "03-own-ways"}.items():
        table = settings.GENERATED / "tables" / f"{name}.md"
        if table.is_file():
            fill(ROOT / "README.md", block, table.read_text().strip())


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line: a verb, then its options."""
    main_parser = argparse.ArgumentParser(prog="python -m course", description="The verbs of the course.")
    verbs = main_parser.add_subparsers(metavar="VERB", required=True)

    def add(action, jobs: int | None = None) -> argparse.ArgumentParser:
        verb = verbs.add_parser(action.__name__.rstrip("_"), help=action.__doc__, description=action.__doc__)
        verb.set_defaults(action=action)
        if jobs:
            verb.add_argument("--jobs", type=_positive, default=jobs, help=f"how many at once (default {jobs})")
        return verb

    add(report, jobs=2)
    add(test, jobs=2)
    verb = add(record)
    verb.add_argument("--study", help="only this study")
    verb.add_argument("--seeds", type=_positive, help="only the first so many seeds")
    verb.add_argument("--jobs", type=_positive, help="runs at a time (default: what suits this machine)")
    verb.add_argument("--scheduler", help="address of a Dask scheduler, tcp://...")
    add(smoke, jobs=2)
    add(bench).add_argument("name", nargs="?", help="only this benchmark")
    add(gpu)
    add(status).add_argument("--json", action="store_true", help="as JSON")
    add(notebooks, jobs=2).add_argument("names", nargs="*", help="beginnings of names, such as 03")
    verb = add(try_)
    verb.add_argument("folder", help="one folder a class, or train/ and test/ with such folders")
    verb.add_argument("--out", metavar="PAGE.html", help="where the page goes (default: notebooks/pages/try-NAME.html)")
    verb.add_argument("--seeds", type=_positive, default=3, help="how many networks to train (default 3)")
    verb.add_argument("--epochs", type=_positive, help="of each (default: what takes minutes)")
    add(site)
    add(badges)
    return main_parser


def main(words: Sequence[str] | None = None) -> int:
    """Return the exit status of the verb in ``words``; the course's own errors show their message alone."""
    args = parser().parse_args(words)
    try:
        return args.action(args) or 0
    except Exception as error:
        if not type(error).__module__.startswith(("helpers", "course")):
            raise
        print(f"{args.action.__name__.rstrip('_')}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
