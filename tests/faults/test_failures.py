"""Machines that fail, as far as it can be driven without a process of its own."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from medtl.errors import RunError, WeightsError
from medtl.run.folder import Run
from medtl.storage.atomic import TEMPORARY_MARK, atomic_path, remove_leftovers
from medtl.training.checkpoint import load_checkpoint, load_exactly, save_checkpoint
from medtl.training.runtime import explained_failures

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus"


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (MemoryError(), "there is not enough memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "there is not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9"), "not enough memory"),
        (OSError(12, "Cannot allocate memory"), "not enough memory"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal"), "loader process"),
        (RuntimeError("x does not have a deterministic implementation"), "no deterministic"),
    ],
)
def test_failures_of_a_machine_are_explained(failure: Exception, said: str) -> None:
    with pytest.raises(RunError, match=said), explained_failures("batches of 8 images"):
        raise failure


def test_failures_of_the_program_are_not() -> None:
    with pytest.raises(RuntimeError, match="own fault"), explained_failures("x"):
        raise RuntimeError("own fault")


def test_a_full_disk_under_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """safetensors wraps the error of the system; what is said must be the system's."""
    from safetensors import SafetensorError
    from safetensors import torch as library

    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {"a": torch.ones(3)}, {"number": 1})

    def full(*_args: object, **_options: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(library, "save_file", full)
    expected = rf"c\.safetensors: cannot be written: {os.strerror(errno.ENOSPC)} \(\d+ MiB"
    with pytest.raises(RunError, match=expected):
        save_checkpoint(path, {"a": torch.ones(3)}, {"number": 2})
    assert load_checkpoint(path)[1] == {"number": 1}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_a_killed_process_left_is_cleared_by_the_next_owner(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    left = tmp_path / "checkpoints" / f".last{TEMPORARY_MARK}abc.safetensors"
    left.write_bytes(b"half")
    (tmp_path / "kept.txt").write_text("x")
    with Run(tmp_path).locked():
        assert not left.exists()
    assert (tmp_path / "kept.txt").exists()
    remove_leftovers(tmp_path)  # nothing is left to do


KILLED_BETWEEN_WRITE_AND_RENAME = """
import os, signal, sys
from pathlib import Path
import torch
from medtl.training import checkpoint
path = Path(sys.argv[1])
checkpoint.save_checkpoint(path, {"a": torch.ones(3)}, {"number": 1})
checkpoint._same_bits = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
checkpoint.save_checkpoint(path, {"a": torch.ones(3)}, {"number": 2})
"""


def test_a_kill_between_write_and_rename_keeps_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    command = [sys.executable, "-c", KILLED_BETWEEN_WRITE_AND_RENAME, str(path)]
    assert subprocess.run(command, check=False).returncode == -9
    assert load_checkpoint(path)[1] == {"number": 1}
    assert len(list(tmp_path.iterdir())) == 2
    remove_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_an_atomic_write_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("theirs")
    (tmp_path / "mine.txt").symlink_to(tmp_path / "other.txt")
    with atomic_path(tmp_path / "mine.txt") as temporary:
        temporary.write_text("mine")
    assert (tmp_path / "other.txt").read_text() == "theirs"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("bias"), "missing keys: bias"),
        (lambda t: t.update(other=torch.ones(1)), "unexpected keys: other"),
        (lambda t: t.update(bias=torch.ones(5)), "keys of another shape: bias"),
        (lambda t: t["weight"].fill_(np.nan), "values that are not finite: weight"),
    ],
)
def test_weights_of_another_network(change, said: str) -> None:
    network = nn.Linear(3, 2)
    before = network.weight.detach().clone()
    tensors = {name: t.clone() for name, t in nn.Linear(3, 2).state_dict().items()}
    load_exactly(network, tensors, "w")
    assert not torch.equal(network.weight, before)
    change(tensors)
    with pytest.raises(WeightsError, match=said):
        load_exactly(network, tensors, "w")


@pytest.mark.slow
def test_every_kind_of_the_corpus(tmp_path: Path) -> None:
    if not CORPUS.is_dir():
        pytest.skip("needs shared/corpus beside the checkout")
    adapter = Path(__file__).parents[1] / "corpus_adapter.py"
    out = tmp_path / "results.json"
    subprocess.run([sys.executable, adapter, CORPUS, out], check=True)
    judge = [sys.executable, CORPUS / "judge.py", CORPUS / "manifest.json", out]
    done = subprocess.run(judge, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    results = json.loads(out.read_text())
    assert all("bomb" not in name or result["mb"] < 400 for name, result in results.items())
