"""One of the processes of `test_two_processes`: trains four blocks and writes what came out."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from four_blocks import FourBlocks, noisy, samples
from numpy.typing import NDArray
from torch import nn

from medtl.data.batches import EpochBatches, Samples, make_loader
from medtl.data.unlabelled_views import WithUnlabelled
from medtl.errors import RunError
from medtl.losses.adversarial import AdversarialTraining
from medtl.losses.distillation import Distillation
from medtl.losses.mixmatch import MixMatch
from medtl.losses.self_training import SelfTraining
from medtl.networks.backbones import Classifier
from medtl.preprocess.affine import Affine
from medtl.tasks.findings import Findings
from medtl.training.activations import CachePlan
from medtl.training.epoch import forward
from medtl.training.fit import fit, objective_of
from medtl.training.objective import Attacked, Distilled, MixMatched, SelfTrained
from medtl.training.options import ActivationCache, Options, Training
from medtl.training.runtime import Runtime
from medtl.training.stage import enter_stage
from medtl.training.stopping import Position
from medtl.types import Adapters, Stage

HEAD = Stage("head", "head", 2, {"head": 1e-2})
FULL = Stage("full", "all", 3, {"head": 1e-2, "base": 1e-3}, batch_norm={"all": "frozen_stats"})
TOP = Stage("top", "head,last:1", 4, {"head": 1e-2, "base": 1e-3}, patience=9)


@dataclass(frozen=True)
class Noise:
    """An augmentation with the same name in every process, by which stored views are found."""

    def __call__(self, unit: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        return noisy(unit, rng)


def build(folder: Path, cache: Path | None = None) -> Training:
    """The training; without dropout, whose draws differ between processes."""
    torch.manual_seed(0)
    return Training(
        model=Classifier(FourBlocks(), nn.Linear(4, 1)),
        task=Findings(labels=("bright",)),
        train=samples(23, 1, augment=Noise()),
        val=samples(10, 2),
        can_watch=False,
        options=Options(batch_size=8, lr_batch=8, ema_decay=0.7),
        runtime=Runtime("cpu"),
        folder=folder,
        cache=None if cache is None else ActivationCache(cache, 2),
    )


def first_gradients(run: Training) -> dict[str, list[float]]:
    """Gradients of the first batch, seven cases: processes have four and three of them."""
    run.runtime.place(run.model)
    enter_stage(run, FULL)
    network = forward(run.runtime.parallel(run.model).train(), run.runtime)
    rank, processes = run.runtime.rank, run.runtime.processes
    batches = EpochBatches(len(run.train), 8, seed=0, rank=rank, processes=processes)
    batch = next(iter(make_loader(run.train, batches, workers=0, pin=False)))
    (objective_of(run)(network, batch) * batches.share(0, len(batch.places))).backward()
    return {n: p.grad.flatten().tolist() for n, p in run.model.named_parameters()}


def adapt(folder: Path) -> str:
    """What is said to batch norm that adapts."""
    try:
        fit(build(folder), [replace(FULL, epochs=1, batch_norm={"all": "adapt"})])
    except RunError as error:
        return str(error)
    return ""


def outcome(run: Training, position: Position) -> dict[str, object]:
    """History and weights after training."""
    return {
        "history": [dict(row) for row in position.history],
        "state": {n: t.flatten().tolist() for n, t in run.model.state_dict().items()},
    }


def cached(folder: Path, *, has_own_disk: bool) -> dict[str, object]:
    """A run on stored activations, how many images the frozen layers saw, and the files."""
    own = f"own{Runtime('cpu').rank}" if has_own_disk else "shared"
    cache = folder / f"cache_{own}"
    out = folder / f"run_{has_own_disk}"
    for path in (cache, out):
        path.mkdir(exist_ok=True)
    run = build(out, cache)
    run.runtime.wait()
    seen = []
    compute = CachePlan.run

    def counted(plan: CachePlan, images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return compute(plan, images)

    with patch.object(CachePlan, "run", counted):
        position = fit(run, [HEAD, TOP])
    return {
        **outcome(run, position),
        "seen": sum(n for n in seen if n > 1),
        "files": {path.name: path.read_bytes().hex() for path in cache.iterdir()},
    }


def taught(folder: Path) -> dict[str, object]:
    """A run that a teacher teaches, with low-rank matrices in its second stage."""
    out = folder / "taught"
    out.mkdir(exist_ok=True)
    run = build(out)
    teacher = torch.linspace(-2, 2, len(run.train))[:, None]
    objective = Distilled(run.task.loss, Distillation("t", 4.0), teacher)
    run = replace(run, objective=objective)
    run.runtime.wait()
    adapt: Adapters = {"lora": {"rank": 2, "on": "*"}}
    return outcome(run, fit(run, [HEAD, replace(FULL, batch_norm="frozen", adapt=adapt)]))


def self_trained(folder: Path) -> dict[str, object]:
    """A run that learns from images without labels too, most of them answered."""
    out = folder / "self_trained"
    out.mkdir(exist_ok=True)
    run = build(out)
    assert isinstance(run.train, Samples)
    method = SelfTraining("fixmatch", "u.csv", threshold=0.5)
    more = WithUnlabelled(run.train, samples(9, 3).store, method.ratio, (Noise(), Noise()))
    run = replace(run, train=more, objective=SelfTrained(run.task.loss, method))
    run.runtime.wait()
    return outcome(run, fit(run, [HEAD, FULL]))


def with_own_draws(folder: Path) -> dict[str, dict[str, object]]:
    """Runs by objectives that draw besides: each process draws for its own part."""
    found = {}
    for name in ("attacked", "mixmatched"):
        out = folder / name
        out.mkdir(exist_ok=True)
        run = build(out)
        assert isinstance(run.train, Samples)
        if name == "attacked":
            image = run.train[0, 0].images
            as_it_is = Affine(torch.ones_like(image), torch.zeros_like(image))
            method = AdversarialTraining(eps=0.02, steps=2)
            run = replace(run, objective=Attacked(run.task.loss, method, as_it_is, len(image)))
        else:
            more = WithUnlabelled(run.train, samples(9, 3).store, 1, (Noise(), Noise()))
            run = replace(run, train=more, objective=MixMatched(run.task.loss, MixMatch("u.csv")))
        run.runtime.wait()
        found[name] = outcome(run, fit(run, [HEAD, FULL]))
    return found


def main(folder: Path) -> None:
    """Train, and write weights, history and gradients."""
    torch.set_num_threads(1)
    run = build(folder)
    facts = {
        "processes": run.runtime.processes,
        "gradients": first_gradients(run),
        "adapt": adapt(folder),
        "sizes": [len(part) for part in EpochBatches(23, 8, seed=0)],
    }
    run = build(folder)
    run.runtime.wait()
    position = fit(run, [HEAD, FULL])
    facts |= outcome(run, position)
    facts["taught"] = taught(folder)
    facts["self_trained"] = self_trained(folder)
    facts |= with_own_draws(folder)
    facts["cached"] = cached(folder, has_own_disk=False)
    facts["cached_own"] = cached(folder, has_own_disk=True)
    (folder / f"rank{run.runtime.rank}.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
