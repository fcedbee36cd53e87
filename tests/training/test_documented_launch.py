"""The lines of docs/speed.md that start several processes do what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from launched import PLACES, free_port
from tiny_study import write_tiny_study

from medtl.errors import RunError
from medtl.training.runtime import Runtime, refuse_lost_processes

LINES = re.findall(r"^torchrun .*$", Path("docs/speed.md").read_text("utf-8"), re.MULTILINE)


def start(line: str, folder: Path, **env: str) -> subprocess.Popen[str]:
    """Start a line of the shell as it stands, where there is no GPU."""
    scripts = str(Path(sys.executable).parent)
    env |= {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": PLACES}
    env |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        line, shell=True, cwd=folder, env=os.environ | env, stderr=pipe, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES, ids=["one host", "two hosts"])
def test_a_documented_line_starts_two_processes(tmp_path, line):
    write_tiny_study(tmp_path)
    line = line.replace("29500", str(free_port()))
    hosts = 2 if "--nnodes 2" in line else 1
    running = [start(line, tmp_path, FIRST_HOST="127.0.0.1") for _ in range(hosts)]
    said = [process.communicate(timeout=1500)[1] for process in running]
    assert [process.returncode for process in running] == [0] * hosts, said
    assert (tmp_path / "runs/chest/report.html").is_file()
    assert "2 processes" in (tmp_path / "runs/chest/log.txt").read_text()


@pytest.mark.slow
def test_a_launcher_that_starts_one_of_two_is_found_out(tmp_path):
    write_tiny_study(tmp_path)
    line = "accelerate launch --cpu --num_processes 2 $(which medtl) run recipe.yaml --out runs/one"
    process = start(line, tmp_path)
    assert "2 processes were asked for and 1 trains" in process.communicate(timeout=1500)[1]
    assert process.returncode
    assert not (tmp_path / "runs/one").exists()


@pytest.mark.parametrize("name", ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_processes_that_do_not_know_of_each_other_are_refused(monkeypatch, name):
    refuse_lost_processes(Runtime("cpu"))
    monkeypatch.setenv(name, "1")
    refuse_lost_processes(Runtime("cpu"))
    runtime = Runtime("cpu")
    monkeypatch.setenv(name, "3")
    with pytest.raises(RunError, match=r"3 processes were asked for.*torchrun --nproc_per_node 3"):
        refuse_lost_processes(runtime)
