"""`jupyter lab` of the environment shows the notebooks; that their cells run, their rehearsals show."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from course.notebooks import all_notebooks
from helpers.settings import NOTEBOOKS

TOKEN = "a-token-for-this-test"


def ask(address):
    request = urllib.request.Request(address, headers={"Authorization": f"token {TOKEN}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("jupyter")
    folders = {name: str(home / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    options = ["--no-browser", "--ip=127.0.0.1", f"--port={port}", f"--IdentityProvider.token={TOKEN}"]
    root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    command = [sys.executable, "-m", "jupyter", "lab", *options, *root]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, cwd=NOTEBOOKS, env=os.environ | folders, **quiet)
    address = f"http://127.0.0.1:{port}"
    for _ in range(240):
        try:
            ask(f"{address}/api/status")
            break
        except (urllib.error.URLError, ConnectionError):
            assert server.poll() is None, "jupyter lab ended by itself"
            time.sleep(0.25)
    yield address
    server.terminate()
    server.wait(30)


def test_lab_shows_every_notebook(lab):
    listed = {entry["name"] for entry in json.loads(ask(f"{lab}/api/contents"))["content"]}
    assert {path.name for path in all_notebooks()} <= listed
    assert "jupyterlab" in ask(f"{lab}/lab/tree/01_data.ipynb").lower()
