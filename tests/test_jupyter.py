"""`jupyter lab` of the environment opens the notebooks, and a kernel that it starts runs their cells."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid

import pytest
from websocket import create_connection

from course.notebooks import all_notebooks, code_cells, read
from helpers.settings import NOTEBOOKS

TOKEN = "a-token-for-this-test"


def ask(url, content=None):
    request = urllib.request.Request(url, headers={"Authorization": f"token {TOKEN}"})
    if content is not None:
        request.data = json.dumps(content).encode()
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read().decode()
    return json.loads(text) if answer.headers.get_content_type() == "application/json" else text


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
    listed = {entry["name"] for entry in ask(f"{lab}/api/contents")["content"]}
    assert {path.name for path in all_notebooks()} <= listed
    assert "jupyterlab" in ask(f"{lab}/lab/tree/01_data.ipynb").lower()


def test_a_kernel_of_the_lab_runs_the_set_up_of_a_notebook(lab):
    kernel = {"path": "01_data.ipynb", "name": "01_data.ipynb", "type": "notebook", "kernel": {"name": "python3"}}
    session = ask(f"{lab}/api/sessions", kernel)
    channel = f"{lab.replace('http', 'ws')}/api/kernels/{session['kernel']['id']}/channels?token={TOKEN}"
    connection = create_connection(channel, timeout=120)
    wanted = [c for _, c in code_cells(read(NOTEBOOKS / "01_data.ipynb"))][:3]
    for cell in wanted:
        header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "version": "5.3"}
        header |= {"username": "", "session": ""}
        content = {"code": cell.source, "silent": False, "store_history": True, "allow_stdin": False}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
        connection.send(json.dumps(message))
        while True:
            reply = json.loads(connection.recv())
            if reply["msg_type"] == "execute_reply" and reply["parent_header"].get("msg_id") == header["msg_id"]:
                break
        assert reply["content"]["status"] == "ok", reply["content"]
    connection.close()
