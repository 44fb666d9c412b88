"""`make gpu`: a plan where there is no GPU, and where there is one, a row for every step, whatever becomes of it."""

from unittest.mock import Mock

import torch

from course import __main__ as command_line
from course import bench

never, broken = Mock(side_effect=AssertionError("ran without a GPU")), Mock(side_effect=OSError("libcudart is missing"))


def test_without_a_gpu_every_step_is_listed_with_the_reason_and_none_runs(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("_test", "_measure", "_record"):
        monkeypatch.setattr(bench, name, never)
    assert command_line.main(["gpu"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 1 + len(bench.GPU_STEPS)
    for step, line in zip(bench.GPU_STEPS, told[1:], strict=True):
        assert all(words in line for words in (step.name, step.does, "skipped", "torch sees no CUDA GPU"))


def test_with_a_gpu_a_step_that_fails_or_cannot_be_keeps_no_other_from_running(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    steps = (
        bench.Step("one", "fails", broken),
        bench.Step("two", "cannot be", never, lambda: "no library"),
        bench.Step("three", "works", lambda: "3 runs"),
    )
    table = bench.run_steps(steps)
    assert table["outcome"].tolist() == ["failed", "skipped", "done"]
    assert table["found"].tolist() == ["OSError: libcudart is missing", "no library", "3 runs"]
    monkeypatch.setattr(bench, "run_steps", lambda: table)
    assert command_line.main(["gpu"]) == 1 and "libcudart is missing" in capsys.readouterr().out
