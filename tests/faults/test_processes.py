"""Faults of machines, driven into real processes: kills, full disks, missing parts, two at once."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_study import RECIPE, write_tiny_study

from medtl.training.checkpoint import load_checkpoint

MEDTL = Path(sys.executable).with_name("medtl")
LONG = RECIPE.replace("train: all, epochs: 2", "train: all, epochs: 6")
"""Enough epochs to be killed in."""

PATIENCE_SECONDS = 300.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX"),
]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(recipe, finished run folder)."""
    folder = tmp_path_factory.mktemp("study")
    recipe = write_tiny_study(folder / "data", recipe=LONG)
    assert finished(start(recipe, folder / "run")) == (0, "")
    return recipe, folder / "run"


def start(recipe: Path, out: Path, *more: str, **options: object) -> subprocess.Popen[str]:
    """Start `medtl run`."""
    command = ["env", "--default-signal=INT", str(MEDTL), "run", str(recipe), "--out", str(out)]
    return subprocess.Popen(
        [*command, *more],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # the bits depend on the threads
        **options,  # type: ignore[call-overload]
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    """(exit status, what went wrong) of a process that must end by itself."""
    _, text = process.communicate(timeout=PATIENCE_SECONDS)
    said = [line for line in text.splitlines() if "medtl:" in line or "Traceback" in line]
    return process.returncode, "\n".join(said)


def wait_for(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until a run has got so far."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not reached():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def kill_after(process: subprocess.Popen[str], folder: Path, delay: float) -> None:
    """Kill a run some time after its first checkpoint."""
    wait_for((folder / "checkpoints" / "last.safetensors").exists, process)
    time.sleep(delay)
    process.kill()
    process.communicate()


def assert_same(run: Path, other: Path) -> None:
    """The same predictions, and the same weights."""
    assert (run / "predictions.csv").read_bytes() == (other / "predictions.csv").read_bytes()
    ours, theirs = (
        load_checkpoint(folder / "checkpoints" / "best.safetensors")[0] for folder in (run, other)
    )
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def kill_a_loader(parent: int) -> None:
    """Kill one loader process of a run: torch raises on each death, and clears up after one."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), signal.SIGKILL)
            return


def limited(kind: int, size: int) -> Callable[[], None]:
    """What a child process does before it starts."""
    return lambda: resource.setrlimit(kind, (size, size))


@pytest.mark.parametrize("delay", np.random.default_rng(6).uniform(0, 2.5, 2).round(2).tolist())
def test_a_killed_run_resumes_to_the_same_bits(
    study: tuple[Path, Path], tmp_path: Path, delay: float
) -> None:
    recipe, whole = study
    kill_after(start(recipe, tmp_path / "run"), tmp_path / "run", delay)
    assert finished(start(recipe, tmp_path / "run", "--resume")) == (0, "")
    assert_same(tmp_path / "run", whole)
    assert not list(tmp_path.rglob("*medtl-tmp*"))


def test_radiographs_killed_five_times_end_in_the_same_bits(shared: Path, tmp_path: Path) -> None:
    """The same on real images, and the same run killed again and again."""
    data = shared / "data" / "cxr_nih_pneumonia"
    if not data.is_dir():
        pytest.skip("needs shared/data/cxr_nih_pneumonia")
    recipe = write_real_study(data, tmp_path / "data")
    assert finished(start(recipe, tmp_path / "whole")) == (0, "")
    more: tuple[str, ...] = ()
    for delay in np.random.default_rng(7).uniform(0, 4, 5):
        kill_after(start(recipe, tmp_path / "run", *more), tmp_path / "run", delay)
        more = ("--resume",)
    assert finished(start(recipe, tmp_path / "run", *more)) == (0, "")
    assert_same(tmp_path / "run", tmp_path / "whole")


def write_real_study(data: Path, folder: Path, *, images: int = 80) -> Path:
    """A recipe and a manifest of the some radiographs of a public set."""
    import csv

    folder.mkdir()
    with (data / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rows = rows[:: len(rows) // images]
    for row in rows:
        path = folder / row["image"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((data / row["image"]).read_bytes())
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "patient_id", "target"])
        writer.writerows([row["image"], row["patient_id"], row["target"]] for row in rows)
    text = LONG.replace("target: bright, strata: [site]", "target: target, ids: pseudonymous")
    (folder / "recipe.yaml").write_text(text.replace("size: 32", "size: 64"), encoding="utf-8")
    return folder / "recipe.yaml"


@pytest.mark.parametrize("sign", [signal.SIGHUP, signal.SIGUSR1])
def test_a_stopped_run_says_so_and_loses_no_step(
    study: tuple[Path, Path], tmp_path: Path, sign: signal.Signals
) -> None:
    recipe, whole = study
    process = start(recipe, tmp_path / "run")
    wait_for((tmp_path / "run" / "checkpoints" / "last.safetensors").exists, process)
    process.send_signal(sign)
    _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 128 + sign, said
    assert "--resume" in said
    assert "Traceback" not in said
    assert finished(start(recipe, tmp_path / "run", "--resume")) == (0, "")
    assert_same(tmp_path / "run", whole)


def test_a_full_disk_keeps_the_checkpoint_and_names_the_file(
    study: tuple[Path, Path], tmp_path: Path
) -> None:
    """A limit on the size of files fails like a full disk, and needs no disk to fill."""
    recipe, whole = study
    kill_after(start(recipe, tmp_path / "run"), tmp_path / "run", 0.0)
    last = tmp_path / "run" / "checkpoints" / "last.safetensors"
    before = last.read_bytes()
    limit = limited(resource.RLIMIT_FSIZE, len(before) // 2)
    status, said = finished(start(recipe, tmp_path / "run", "--resume", preexec_fn=limit))
    assert status == 1
    assert "cannot be written" in said
    assert "MiB are free" in said
    assert "Traceback" not in said
    assert last.read_bytes() == before
    assert finished(start(recipe, tmp_path / "run", "--resume")) == (0, "")
    assert_same(tmp_path / "run", whole)


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a folder nobody can write to")
def test_a_folder_that_cannot_be_written_to_is_refused_before_any_work(
    study: tuple[Path, Path],
) -> None:
    recipe, _ = study
    status, said = finished(start(recipe, Path("/sys/kernel/medtl-run")))
    assert (status, "the folder cannot be made" in said) == (1, True)


def test_caches_are_never_believed(study: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, whole = study
    kill_after(start(recipe, tmp_path / "run"), tmp_path / "run", 0.0)
    home = Path(os.environ["XDG_CACHE_HOME"])
    caches = [path for path in home.rglob("*") if path.is_file()]
    assert {path.suffix for path in caches} >= {".units", ".json"}
    for path in caches:
        path.write_bytes(b"x" * 100 + path.read_bytes()[100:-64])
    assert finished(start(recipe, tmp_path / "run", "--resume")) == (0, "")
    assert_same(tmp_path / "run", whole)


def test_a_killed_loader_process_ends_the_run_with_advice(
    study: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe, _ = study
    long = ["finetune.stages.1.epochs=1000", "finetune.stages.1.patience=1000"]
    process = start(recipe, tmp_path / "run", "run.workers=2", *long)
    history = tmp_path / "run" / "history.csv"
    wait_for(lambda: history.exists() and "full,1" in history.read_text(), process)
    kill_a_loader(process.pid)
    status, said = finished(process)
    assert status == 1
    assert "a loader process was killed" in said
    assert "Traceback" not in said


def test_a_loss_that_explodes_ends_the_run_and_is_not_the_best(
    study: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe, _ = study
    rates = "finetune.stages.1.lr={head: 1e30, base: 1e30}"
    status, said = finished(start(recipe, tmp_path / "run", rates, "finetune.clip_norm=null"))
    assert status == 1
    assert "is not finite" in said
    best = tmp_path / "run" / "checkpoints" / "best.safetensors"
    assert all(bool(t.isfinite().all()) for t in load_checkpoint(best)[0].values())
    assert not (tmp_path / "run" / "predictions.csv").exists()


SHORT_OF_MEMORY = """
import resource, sys
import cv2, torch, timm, medtl.run.chain, medtl.report.render, sklearn.metrics
size = int(open("/proc/self/statm").read().split()[0]) * 4096 + (300 << 20)
resource.setrlimit(resource.RLIMIT_AS, (size, size))
from medtl.cli.main import main
sys.argv = ["medtl", *sys.argv[1:]]
main()
"""


def test_too_little_memory_is_said_with_what_asked_for_it(
    study: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe, _ = study
    out = tmp_path / "run"
    more = ("image.size=1024", "finetune.batch_size=48", "model.backbone=resnet18")
    command = [sys.executable, "-c", SHORT_OF_MEMORY, "run", str(recipe), *more, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "batches of 48 images of 1024 x 1024" in done.stderr
    assert not (out / "report.html").exists()


def test_two_runs_never_share_a_folder(study: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, whole = study
    first = start(recipe, tmp_path / "run")
    wait_for((tmp_path / "run" / ".lock").exists, first)
    status, said = finished(start(recipe, tmp_path / "run", "--resume"))
    assert (status, "another process works in this folder" in said) == (1, True)
    assert finished(first) == (0, "")  # the second one has removed and changed nothing
    assert_same(tmp_path / "run", whole)


def test_of_two_runs_at_the_same_moment_one_wins(study: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, whole = study
    both = [start(recipe, tmp_path / "run") for _ in range(2)]
    results: list[tuple[int, str]] = []
    threads = [threading.Thread(target=lambda p=p: results.append(finished(p))) for p in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(status for status, _ in results) == [0, 1], results
    assert_same(tmp_path / "run", whole)


def test_a_missing_gpu_is_said_before_an_image_is_read(
    study: tuple[Path, Path], tmp_path: Path
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    recipe, _ = study
    status, said = finished(start(recipe, tmp_path / "run", "run.device=cuda"))
    assert (status, "torch sees no GPU" in said) == (1, True)
    assert not (tmp_path / "run").exists()


CLOCK = """
import sys, time
real, jumps = time.time, iter(range(10**9))
time.time = lambda: real() - 86400 * (next(jumps) % 3)
from medtl.cli.main import main
sys.argv = ["medtl", *sys.argv[1:]]
main()
"""


def test_a_clock_that_jumps_changes_no_number(study: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, whole = study
    command = [sys.executable, "-c", CLOCK, "run", str(recipe), "--out", str(tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    assert_same(tmp_path / "run", whole)
    for name in ("metrics.json", "manifest.csv", "data_quality.json", "cohort.json"):
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes(), name
    history = (tmp_path / "run" / "history.csv").read_text().splitlines()
    seconds = history[0].split(",").index("seconds")
    assert all(float(line.split(",")[seconds]) >= 0 for line in history[1:])


def test_a_report_that_was_cut_is_noticed_and_made_again(
    study: tuple[Path, Path], tmp_path: Path
) -> None:
    import shutil

    recipe, whole = study
    copy = Path(shutil.copytree(whole, tmp_path / "run"))
    report = copy / "report.html"
    complete = report.read_bytes()
    report.write_bytes(complete[: len(complete) // 2])
    (copy / "metrics.json").unlink()
    examined = subprocess.run(
        [MEDTL, "doctor", "--seals", copy], capture_output=True, text=True, check=False
    )
    assert examined.returncode == 1
    assert examined.stdout.splitlines() == ["metrics.json: missing", "report.html: altered"]
    assert finished(start(recipe, copy, "--resume")) == (0, "")
    assert (copy / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()
    subprocess.run([MEDTL, "doctor", "--seals", copy], check=True, capture_output=True)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_no_bit(
    study: tuple[Path, Path], tmp_path: Path, workers: int
) -> None:
    recipe, whole = study
    assert finished(start(recipe, tmp_path / "run", f"run.workers={workers}")) == (0, "")
    assert_same(tmp_path / "run", whole)
    facts = json.loads((tmp_path / "run" / "environment.json").read_text())
    for name in ("threads", "cpu_capability", "versions", "recipe_sha256", "manifest_sha256"):
        assert facts[name], name
    assert (
        facts["split_sha256"]
        == json.loads((whole / "environment.json").read_text())["split_sha256"]
    )


def test_deterministic_says_what_it_cannot_promise(
    study: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe, whole = study
    process = start(recipe, tmp_path / "run", "--deterministic")
    said, problems = process.communicate()
    assert process.returncode == 0, problems
    assert "On another processor" in said
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["deterministic"] is True
    assert_same(tmp_path / "run", whole)


def test_a_closed_pipe_ends_without_a_word() -> None:
    """`medtl doctor | true`."""
    command = [MEDTL, "doctor"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 141
