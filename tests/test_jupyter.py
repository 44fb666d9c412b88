"""`jupyter lab` of the environment shows the notebooks; that their cells run, their rehearsals show."""

import json
import os
import sys
import time
from subprocess import DEVNULL, Popen
from urllib.request import urlopen

from course.notebooks import all_notebooks
from helpers.settings import NOTEBOOKS


def test_lab_shows_every_notebook(tmp_path):
    folders = {name: str(tmp_path) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    words = ["-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0", "--IdentityProvider.token="]
    server = Popen([sys.executable, *words], cwd=NOTEBOOKS, env=os.environ | folders, stderr=DEVNULL)
    end = time.monotonic() + 120
    try:
        while not (told := "".join(path.read_text() for path in tmp_path.glob("jpserver-*.json"))):
            assert server.poll() is None and time.monotonic() < end, "jupyter lab ended by itself, or never began"
            time.sleep(0.25)
        url = json.loads(told)["url"]
        with urlopen(f"{url}api/contents", None, 60) as found, urlopen(f"{url}lab/tree/01_data.ipynb", None, 60) as lab:
            assert {path.name for path in all_notebooks()} <= {e["name"] for e in json.load(found)["content"]}
            assert "jupyterlab" in lab.read().decode().lower()
    finally:
        server.terminate()
        server.wait(30)
