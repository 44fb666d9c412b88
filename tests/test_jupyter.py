"""`jupyter lab` of the environment shows the notebooks; that their cells run, their rehearsals show."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

from course.notebooks import all_notebooks
from helpers.settings import NOTEBOOKS

TOKEN = "a-token-for-this-test"


def ask(address):
    request = urllib.request.Request(address, headers={"Authorization": f"token {TOKEN}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


def test_lab_shows_every_notebook(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folders = {name: str(tmp_path) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", f"--IdentityProvider.token={TOKEN}"]
    command = [sys.executable, "-m", "jupyter", "lab", *options]
    server = subprocess.Popen(command, cwd=NOTEBOOKS, env=os.environ | folders, stderr=subprocess.DEVNULL)
    try:
        for _ in range(240):
            try:
                listed = json.loads(ask(f"http://127.0.0.1:{port}/api/contents"))["content"]
                break
            except OSError:
                assert server.poll() is None, "jupyter lab ended by itself"
                time.sleep(0.25)
        assert {path.name for path in all_notebooks()} <= {entry["name"] for entry in listed}
        assert "jupyterlab" in ask(f"http://127.0.0.1:{port}/lab/tree/01_data.ipynb").lower()
    finally:
        server.terminate()
        server.wait(30)
