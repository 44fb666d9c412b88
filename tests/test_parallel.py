"""Runs side by side: the same records as one after another, and a death costs only its own run."""

import os
import re
import signal
import subprocess
import sys
import threading
from unittest.mock import Mock

import pytest
import torch

from helpers.data import DataMissing
from helpers.record import read_run, record, recorder
from helpers.record.recorder import RunsFailed, train_apart
from helpers.training import Experiment

SMALL = Experiment(dataset="digits", model="r4", train_size=256, batch_size=64, epochs=1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("helpers.record.run.runs_folder", lambda: tmp_path / "runs")
    monkeypatch.setattr(recorder, "checkpoint_folder", lambda: tmp_path / "checkpoints")
    return tmp_path


def histories(experiments):
    runs = [read_run(e, recorder.device_kind()) for e in experiments]
    return [{k: v for k, v in run.history.items() if k != "seconds"} for run in runs]


def test_side_by_side_and_one_after_another_give_the_same_runs_and_each_is_trained_once(folder, monkeypatch):
    # On one kind of device and as many threads, sums are taken in the same order: equal to the last bit.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(recorder, "device_kind", lambda: "cpu")
    monkeypatch.setattr(recorder, "cpu_count", lambda: 2 * torch.get_num_threads())
    experiments = [SMALL.but(seed=seed) for seed in range(2)]
    record(experiments, jobs=1)
    one_after_another = histories(experiments)
    assert not list((folder / "checkpoints").iterdir())  # they have served
    with monkeypatch.context() as patch:
        patch.setattr(recorder, "train_run", lambda *a, **k: pytest.fail("trained again"))
        record([*experiments, *experiments], jobs=1)
    monkeypatch.setattr("helpers.record.run.runs_folder", lambda: folder / "apart")
    record(experiments, jobs=2)
    assert histories(experiments) == one_after_another


def killed(command, input, **options):
    """Start a run's process, kill it with SIGKILL a second later, and return what became of it."""
    options.pop("capture_output")
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, **options)
    threading.Timer(1, process.kill).start()
    said, complained = process.communicate(input)
    return subprocess.CompletedProcess(command, process.returncode, said, complained)


def test_a_killed_run_is_tried_again_and_costs_nobody_else_and_failing_ones_are_named(folder, monkeypatch):
    real, kills = subprocess.run, {7: 1, 8: 2}
    lost, failing, saved = SMALL.but(seed=8), SMALL.but(seed=3, train_size=10_000_000), SMALL.but(seed=7)

    def run(command, **options):
        seed = next((seed for seed in kills if f'"seed": {seed}' in options.get("input", "")), None)
        if not kills.get(seed):
            return real(command, **options)
        kills[seed] -= 1
        return killed(command, **options)

    monkeypatch.setattr(recorder.subprocess, "run", run)
    with pytest.raises(RunsFailed) as error:
        record([lost, failing, saved], jobs=2)
    assert "seed 8: killed by signal 9" in str(error.value) and "seed 7" not in str(error.value)
    assert re.search("seed 3.*too small|seed 3.*split|seed 3.*subset", str(error.value))  # its last words
    assert [bool(read_run(e, recorder.device_kind())) for e in (lost, failing, saved)] == [False, False, True]


def test_missing_data_end_it_with_one_error(folder, monkeypatch):
    monkeypatch.setattr(recorder, "load_data", Mock(side_effect=DataMissing("no copy, three ways on")))
    with pytest.raises(DataMissing, match="three ways"):
        record([SMALL.but(seed=s) for s in range(3)], jobs=2)


def test_two_dask_workers_share_the_runs_and_one_of_them_may_die(folder):
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None, local_directory=folder / "dask")
    experiments = [SMALL.but(seed=seed) for seed in range(2)]
    with cluster:
        victim = next(iter(cluster.workers.values())).pid
        threading.Timer(2, os.kill, (victim, signal.SIGKILL)).start()
        record(experiments, scheduler=cluster.scheduler_address)
    assert all(read_run(e, "cpu") for e in experiments)


def test_the_process_of_a_run_keeps_its_memory_and_has_its_threads(monkeypatch):
    tell = "import json, os, sys; json.dump(dict(os.environ), open(json.load(sys.stdin)['out'], 'w'))"
    real = subprocess.run
    monkeypatch.setattr(recorder.subprocess, "run", lambda command, **rest: real([sys.executable, "-c", tell], **rest))
    monkeypatch.setenv("MALLOC_TOP_PAD_", "1")
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)  # a Dask cluster in this process leaves it behind
    found = train_apart(SMALL.choices(), threads=3)
    assert found["MALLOC_TRIM_THRESHOLD_"] == found["MALLOC_MMAP_THRESHOLD_"] == str(8 * 1024**3)
    assert found["MALLOC_TOP_PAD_"] == str(64 * 1024**2)
    assert found["OMP_NUM_THREADS"] == found["MKL_NUM_THREADS"] == "3"
    assert "MALLOC_TRIM_THRESHOLD_" not in os.environ
