"""Badges lead to git's origin where that is on GitHub; what is committed says so, never the clone that is tested."""

import shutil
import subprocess

import pytest
import yaml

from course.notebooks import badge, name_repository, origin
from helpers.settings import ROOT, STAND_INS


@pytest.fixture
def clone(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("git is not installed here")
    (tmp_path / "helpers").mkdir()
    for name in ("helpers/settings.py", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)

    def at(address):
        subprocess.run(["git", "-C", tmp_path, "remote", "add", "origin", address], check=True)
        return tmp_path

    at.folder = tmp_path
    return at


def said(folder):
    path, values = folder / "helpers" / "settings.py", {}
    exec(path.read_text(), {"__file__": str(path)}, values)
    return (values["OWNER"], values["REPO"]), yaml.safe_load((folder / "CITATION.cff").read_text())["repository-code"]


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("https://github.com/ada/cnn-fork.git", ("ada", "cnn-fork")),
        ("https://github.com/ada/cnn.fork/", ("ada", "cnn.fork")),
        ("https://ada:secret@github.com/ada/fork", ("ada", "fork")),
        ("git@github.com:ada/fork.git", ("ada", "fork")),
        ("ssh://git@github.com/ada/fork.git", ("ada", "fork")),
        ("https://gitlab.com/ada/fork.git", None),
        ("https://notgithub.com/ada/fork", None),
        ("https://github.com.example.org/ada/fork", None),
        ("/srv/github.com/ada/fork", None),
        ("https://github.com/ada/fork/tree/main", None),
    ],
)
def test_an_origin_on_github_is_taken_apart_and_any_other_is_none(clone, address, named):
    assert origin(clone(address)) == named


def test_a_forks_address_is_written_once(clone, capsys):
    folder = clone("git@github.com:ada/fork.git")
    assert name_repository(folder) and not name_repository(folder)
    assert said(folder) == (("ada", "fork"), "https://github.com/ada/fork")
    assert capsys.readouterr().err == ""
    kept, before = ((root / "helpers" / "settings.py").read_text().splitlines() for root in (folder, ROOT))
    assert sum(one != other for one, other in zip(kept, before, strict=True)) == 1  # the branch stays, and all else
    (owner, repository), _ = said(ROOT)
    assert f"/github/{owner}/{repository}/blob/" in badge(ROOT / "notebooks" / "01_data.ipynb")


@pytest.mark.parametrize("address", ["/somewhere/else", "https://example.org/ada/fork.git", None])
def test_elsewhere_nothing_changes_and_stand_ins_are_warned_of(clone, capsys, address):
    folder = clone(address) if address else clone.folder
    before = said(folder)
    path, names = folder / "helpers" / "settings.py", '"{}", "{}", "'
    path.write_text(path.read_text().replace(names.format(*before[0]), names.format(*STAND_INS)))
    assert not name_repository(folder) and said(folder)[0] == STAND_INS
    told = capsys.readouterr().err
    assert "stand-in" in told and "git remote add origin" in told and len(told.splitlines()) == 1
