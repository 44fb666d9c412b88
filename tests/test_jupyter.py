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
    lab = ["-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0", "--IdentityProvider.token="]
    server = Popen([sys.executable, *lab], cwd=NOTEBOOKS, env=os.environ | folders, stderr=DEVNULL)
    try:
        while not (told := list(tmp_path.glob("jpserver-*.json"))):
            assert server.poll() is None, "jupyter lab ended by itself"
            time.sleep(0.25)
        url = json.loads(told[0].read_text())["url"]
        with urlopen(f"{url}api/contents") as listed, urlopen(f"{url}lab/tree/01_data.ipynb") as page:
            assert {path.name for path in all_notebooks()} <= {e["name"] for e in json.load(listed)["content"]}
            assert "jupyterlab" in page.read().decode().lower()
    finally:
        server.terminate()
        server.wait(30)
