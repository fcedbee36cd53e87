"""Scripts for SLURM: a run that goes on after its time, folds as an array, predictions in shares.

Each is a shell script that submits what it holds: `bash SCRIPT` on a login node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import join, quote

SAVE_SECONDS = 300
"""Before its time is over a job is told so, and saves."""


@dataclass(frozen=True)
class Resources:
    """What a job asks for.

    Attributes:
        hours: Of wall-clock time, before it is stopped and put in the queue again.
        cpus: Cores.
        memory_gb: Of memory.
        gpus: On one host; training starts a process for each.
        partition: Queue of the cluster; "" takes its default.
    """

    hours: int = 24
    cpus: int = 8
    memory_gb: int = 32
    gpus: int = 1
    partition: str = ""


def run_script(
    recipe: Path, out: Path, overrides: Sequence[str] = (), resources: Resources | None = None
) -> str:
    """Return the script of one run, which goes on where it was when its time was over.

    Args:
        recipe: The YAML file.
        out: The run folder.
        overrides: Changes of the recipe.
        resources: Of the job.
    """
    asked = resources or Resources()
    stated = join(["run", str(recipe.absolute()), *overrides, "--out", str(out.absolute())])
    lines = [
        "resume=",
        f"if [ -e {quote(str(out.absolute()))} ]; then resume=--resume; fi",
        *_requeued(f"{_launcher(asked)} {stated} $resume"),
    ]
    return _script(_submission(_job(f"medtl-{recipe.stem}", asked, lines)))


def kfold_script(
    recipe: Path,
    out: Path,
    folds: int,
    overrides: Sequence[str] = (),
    resources: Resources | None = None,
) -> str:
    """Return the script of a cross-validation: its folds as an array, then their summary.

    Args:
        recipe: The YAML file.
        out: The study folder.
        folds: Number of folds, each a job of its own.
        overrides: Changes of the recipe.
        resources: Of each job.
    """
    asked, name = resources or Resources(), f"medtl-{recipe.stem}"
    command = ["medtl", "study", "kfold", str(recipe.absolute()), *overrides]
    command += ["--folds", str(folds), "--resume"]
    whole = f"{join(command)} --out {quote(str(out.absolute()))}"
    one = _requeued(f'{whole} --fold "$SLURM_ARRAY_TASK_ID"')
    return _script(
        _submission(_job(f"{name}-fold", asked, one, array=f"0-{folds - 1}"), "folds"),
        _submission(_job(f"{name}-folds", asked, [whole]), after="folds"),
    )


def predict_script(
    run: Path, data: Path, out: Path, shares: int, resources: Resources | None = None
) -> str:
    """Return the script of predictions in shares, and of putting them together.

    Args:
        run: The run folder.
        data: A manifest or a folder of images.
        out: The table.
        shares: Number of jobs.
        resources: Of each job.
    """
    asked = resources or Resources()
    table = quote(str(out.absolute()))
    command = join(["medtl", "predict", str(run.absolute()), str(data.absolute())])
    one = f'{command} --out {table} --shard "$SLURM_ARRAY_TASK_ID/{shares}"'
    alone = Resources(asked.hours, asked.cpus, asked.memory_gb, 0, asked.partition)
    return _script(
        _submission(_job("medtl-predict", asked, [one], array=f"1-{shares}"), "shares"),
        _submission(_job("medtl-merge", alone, [f"medtl merge {table}"]), after="shares"),
    )


def _launcher(asked: Resources) -> str:
    """What starts as many processes as there are GPUs."""
    several = f"torchrun --nproc_per_node {asked.gpus} $(which medtl)"
    return several if asked.gpus > 1 else "medtl"


def _requeued(command: str) -> list[str]:
    """A command that saves when its time is nearly over, and is put in the queue again.

    A shell that waits hears no signal for its child, so the child runs beside it. SIGTERM, because
    torchrun hands that one to its processes.
    """
    return [
        f"{command} &",
        "child=$!",
        "over=",
        "trap 'over=yes; kill -TERM $child' USR1",
        "wait $child; status=$?",
        "while kill -0 $child 2>/dev/null; do wait $child; status=$?; done",
        'if [ -n "$over" ] && [ $status -ne 0 ]; then scontrol requeue "$SLURM_JOB_ID"; fi',
        "exit $status",
    ]


def _job(name: str, asked: Resources, lines: Sequence[str], *, array: str = "") -> list[str]:
    """A batch script."""
    options = {
        "job-name": name,
        "output": f"{name}-%A_%a.log" if array else f"{name}-%j.log",
        "open-mode": "append",
        "time": f"{asked.hours}:00:00",
        "nodes": "1",
        "ntasks": "1",
        "cpus-per-task": str(asked.cpus),
        "mem": f"{asked.memory_gb}G",
    }
    options |= {"gpus-per-node": str(asked.gpus)} if asked.gpus else {}
    options |= {"partition": asked.partition} if asked.partition else {}
    options |= {"array": array} if array else {}
    stated = [f"#SBATCH --{option}={value}" for option, value in options.items()]
    stated += ["#SBATCH --requeue", f"#SBATCH --signal=B:USR1@{SAVE_SECONDS}"]
    return ["#!/bin/bash", *stated, "set -u", *lines]


def _submission(job: Sequence[str], name: str = "job", *, after: str = "") -> list[str]:
    """What submits a batch script; after another one where its results are needed."""
    order = f' --dependency="afterok:${after}"' if after else ""
    return [f"{name}=$(sbatch --parsable{order} <<'MEDTL'", *job, "MEDTL", ")", f'echo "${name}"']


def _script(*submissions: Sequence[str]) -> str:
    """A shell script of several submissions."""
    lines = [line for one in submissions for line in one]
    return "\n".join(["#!/bin/bash", "set -eu", *lines]) + "\n"
