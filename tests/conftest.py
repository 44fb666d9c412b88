"""Every test runs without network, GPU set-up or rehearsal switch, and long tests start first."""

import os
import socket

# Before torch is imported: tests run two at a time, each with one thread. More would wait for one another.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.pop("COURSE_SMOKE", None)
os.environ.pop("COURSE_GENERATED", None)

import pytest

LOOPBACK, ALONE = ("127.", "::1", "localhost"), "test_every_notebook"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Hand out what is done with each notebook alone, and a file's other tests together, with its fixtures."""
    from xdist.scheduler import LoadScopeScheduling

    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = lambda name: name if ALONE in name else name.partition("::")[0]
    return scheduler


def pytest_collection_modifyitems(config, items):
    """Start with the notebooks and the files that take longest."""
    long = ("test_parallel", "test_train", "test_report", "test_project")
    items.sort(key=lambda item: (ALONE not in item.name, item.path.stem not in long))
    for item in items:
        if item.get_closest_marker("gpu"):
            import torch  # not before it is wanted: it takes seconds

            item.add_marker(pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    connect = socket.socket.connect

    def guarded(self, address):
        if isinstance(address, tuple) and not str(address[0]).startswith(LOOPBACK):
            raise OSError(f"a test tried to reach {address[0]}: tests do without the network")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def killed(monkeypatch):
    """Let every training die as soon as it has saved a checkpoint; call what this returns to let them live again."""
    from helpers.training import loop

    save = loop.save_checkpoint

    def save_and_die(path, state):
        save(path, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_checkpoint", save_and_die)
    return lambda: monkeypatch.setattr(loop, "save_checkpoint", save)
