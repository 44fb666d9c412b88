"""Notebooks are validated in copies of a process that has imported what takes long: once, not 26 times.

None of the course's own modules is among it: each copy imports them anew.
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

COPIES, FORK = get_context("forkserver"), get_context("fork")
LONG = ("ipykernel.kernelapp", "matplotlib.pyplot", "nbval.plugin", "openTSNE", "seaborn", "sklearn.manifold")
COPIES.set_forkserver_preload([*LONG, "torch._dynamo", "torchvision"])


def pytest_in_a_copy(words: Sequence[str], settings: dict[str, str], told: Path) -> int:
    """Return pytest's exit status on one notebook, whose kernel has ``settings``; the file ``told`` has its output."""
    copy = COPIES.Process(target=_validate, args=(words, settings, told))
    copy.start()
    copy.join(900)
    copy.kill()  # one that hangs has failed
    copy.join()
    return copy.exitcode


def _validate(words: Sequence[str], settings: dict[str, str], told: Path) -> None:
    import pytest
    from jupyter_client.provisioning import local_provisioner

    with open(told, "ab") as output:
        os.dup2(output.fileno(), 1), os.dup2(output.fileno(), 2)
    orders, received = FORK.Pipe()
    kernel = FORK.Process(target=_serve, args=(received,))  # now, while nothing else goes on in this process
    kernel.start()
    os.setpgid(kernel.pid, kernel.pid)  # what stops a kernel stops its group
    kernel._popen.stdin = kernel._popen.stdout = kernel._popen.stderr = None

    def launch_kernel(command, env, cwd, **_):
        orders.send((command[-2:], env | settings, cwd))
        return kernel._popen

    local_provisioner.launch_kernel = launch_kernel
    sys.exit(pytest.main(list(words)))


def _serve(orders: Connection) -> None:
    import pandas
    from ipykernel.kernelapp import launch_new_instance

    pandas.set_option("display.max_columns", 20)  # as it sets itself where a notebook imports it
    connection_file, environment, folder = orders.recv()
    os.environ.update(environment)
    os.chdir(folder)
    tempfile.tempdir = None  # the environment says where
    sys.path.remove(str(Path(__file__).parent))
    launch_new_instance(argv=connection_file)
