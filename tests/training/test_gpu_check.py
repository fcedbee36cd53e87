"""The check of a GPU runs to its end on a CPU, and fails where numbers differ."""

from __future__ import annotations

import pytest
import torch

from benchmarks import gpu


@pytest.mark.slow
def test_the_rehearsal_holds(capsys):
    assert gpu.main(["--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == [
        "ok   forward pass",
        "ok   training in fp32",
        "ok   memory in fp32",
        "ok   speed in fp32",
    ]


@pytest.mark.slow
def test_other_numbers_fail(capsys, monkeypatch):
    monkeypatch.setattr(gpu, "LOGITS", -1.0)
    monkeypatch.setattr(gpu, "LOSSES", {"fp32": -1.0})
    assert gpu.main(["--device", "cpu"]) == 1
    assert capsys.readouterr().out.count("FAIL") == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_way_out_is_said(capsys):
    assert gpu.main([]) == 2
    assert "--device cpu" in capsys.readouterr().out
