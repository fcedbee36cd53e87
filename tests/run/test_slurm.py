"""The printed scripts, submitted to a stand-in for SLURM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medtl.run.spread.slurm import Resources, kfold_script, predict_script, run_script

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="scripts of POSIX")

SBATCH = """#!/bin/bash
number=$(ls jobs/*.asked 2>/dev/null | wc -l)
mkdir -p jobs
echo "$@" > jobs/$number.asked
cat > jobs/$number.sh
echo 70$number
"""
SCONTROL = '#!/bin/bash\necho "$@" >> requeued\n'
MEDTL = """#!/bin/bash
echo "$@" >> called
[ -n "${STAY:-}" ] || exit 0
trap 'echo saved >> called; exit 143' TERM
touch started
while true; do sleep 0.05; done
"""
RECIPE = Path("a folder/chest.yaml")


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A folder with programs that stand for those of SLURM, and for medtl."""
    for name, text in {"sbatch": SBATCH, "scontrol": SCONTROL, "medtl": MEDTL}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def submit(text: str) -> list[Path]:
    """Run a printed script; return the jobs it submitted, each of valid syntax."""
    subprocess.run(["bash", "-c", text], check=True, capture_output=True)
    jobs = sorted(Path("jobs").glob("*.sh"))
    for job in jobs:
        subprocess.run(["bash", "-n", job], check=True)
    return jobs


def test_a_run_goes_on_where_it_was(cluster):
    (job,) = submit(run_script(RECIPE, Path("out"), ["image.size=32"], Resources(partition="gpu")))
    text = job.read_text()
    for option in ("requeue", "signal=B:USR1@300", "time=24:00:00", "partition=gpu", "mem=32G"):
        assert f"#SBATCH --{option}\n" in text
    recipe = cluster / RECIPE
    subprocess.run(["bash", job], check=True)
    (cluster / "out").mkdir()
    subprocess.run(["bash", job], check=True)
    first, second = (cluster / "called").read_text().splitlines()
    assert first == f"run {recipe} image.size=32 --out {cluster / 'out'}"
    assert second == f"{first} --resume"


def test_a_job_whose_time_is_nearly_over_saves_and_is_queued_again(cluster):
    (job,) = submit(run_script(RECIPE, Path("out")))
    running = subprocess.Popen(["bash", job], env={**os.environ, "STAY": "1", "SLURM_JOB_ID": "7"})
    while not (cluster / "started").exists():
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGUSR1)
    assert running.wait() == 143
    assert (cluster / "requeued").read_text() == "requeue 7\n"
    assert (cluster / "called").read_text().endswith("saved\n")


def test_a_job_that_ends_by_itself_is_not_queued_again(cluster):
    (job,) = submit(run_script(RECIPE, Path("out")))
    assert subprocess.run(["bash", job], check=False).returncode == 0
    assert not (cluster / "requeued").exists()


def test_several_gpus_are_several_processes(cluster):
    (job,) = submit(run_script(RECIPE, Path("out"), resources=Resources(gpus=2)))
    assert "torchrun --nproc_per_node 2 $(which medtl) run " in job.read_text()
    assert "#SBATCH --gpus-per-node=2\n" in job.read_text()


def test_folds_are_an_array_and_their_summary_waits_for_them(cluster):
    folds, whole = submit(kfold_script(RECIPE, Path("out"), 5))
    assert "#SBATCH --array=0-4\n" in folds.read_text()
    assert (cluster / "jobs/1.asked").read_text() == "--parsable --dependency=afterok:700\n"
    subprocess.run(["bash", folds], check=True, env={**os.environ, "SLURM_ARRAY_TASK_ID": "3"})
    subprocess.run(["bash", whole], check=True)
    one, last = (cluster / "called").read_text().splitlines()
    assert last == f"study kfold {cluster / RECIPE} --folds 5 --resume --out {cluster / 'out'}"
    assert one == f"{last} --fold 3"


def test_predictions_are_shares_that_are_merged(cluster):
    shares, merged = submit(predict_script(Path("run"), Path("films"), Path("a.csv"), 8))
    assert "#SBATCH --array=1-8\n" in shares.read_text()
    assert "gpus" not in merged.read_text()
    assert (cluster / "jobs/1.asked").read_text() == "--parsable --dependency=afterok:700\n"
    subprocess.run(["bash", shares], check=True, env={**os.environ, "SLURM_ARRAY_TASK_ID": "2"})
    subprocess.run(["bash", merged], check=True)
    one, last = (cluster / "called").read_text().splitlines()
    assert one == f"predict {cluster / 'run'} {cluster / 'films'} --out {cluster / 'a.csv'} " + (
        "--shard 2/8"
    )
    assert last == f"merge {cluster / 'a.csv'}"
