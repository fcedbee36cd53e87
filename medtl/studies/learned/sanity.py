"""Before a training: can this recipe learn from these images, and from nothing else?

Short trainings on the recipe's own images, minutes in all (Karpathy 2019, "A recipe for training
neural networks"): a fault of labels or images shows here before it costs a night.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from medtl.data.batches import Batch
from medtl.data.reader import check_readable
from medtl.recipe.schema import Recipe
from medtl.run.chain import build_training
from medtl.run.files import RunFiles
from medtl.run.prepare import Prepared, read_study
from medtl.storage.atomic import write_json
from medtl.tasks.findings import mean_auroc
from medtl.tasks.protocols import Task
from medtl.training.epoch import forward
from medtl.training.options import Training
from medtl.types import Case, Progress, silent

START, BATCH = 64, 16
"""Images whose first loss is compared with the prior's; images of the batch to be overfitted."""

STEPS, RATE, NEAR_ZERO = 150, 1e-3, 0.1
"""Most steps on that batch, at which rate; the share of the first loss that counts as near 0."""

AGREES = 0.1
"""Relative difference between the first loss and the prior's that is none."""

SHUFFLED_STEPS, SMALL_STEPS, SMALL_SIDE = 40, 200, 64
"""Steps on shuffled labels and of the small network; most pixels per side that the latter sees."""

MOST = 600
"""Training images of the short trainings, and validation patients."""

PERMUTATIONS = 500

Truth = NDArray[np.float32]
"""`(n, K)` of 0, 1 and NaN."""


@dataclass(frozen=True)
class Check:
    """One thing that was tried.

    Attributes:
        name: "prior", "one_batch", "shuffled", "small" or "subset".
        passed: None where it has no meaning for the task, or there are too few cases to tell.
        facts: The numbers it was judged by; `reason` is the key of a text where there are none.
    """

    name: str
    passed: bool | None
    facts: dict[str, Any] = field(default_factory=dict)


def run_sanity(
    recipe: Recipe, out: str | PathLike[str], *, progress: Progress = silent
) -> list[Check]:
    """Try a recipe on its own images before it is trained; leaves `sanity.json` in a folder.

    Args:
        recipe: What is to be trained.
        out: The folder of the run to be, or of one that there is; made where it is missing.
        progress: Told of reading and of every check.

    Raises:
        MedtlError: As for a run.
    """
    prepared = read_study(recipe, progress=progress)
    check_readable(prepared.records, recipe.data.max_unreadable)
    with TemporaryDirectory() as folder:
        training, _ = build_training(prepared, Path(folder), rehearsal=True)
    plain: Any = training.train
    training = replace(training, train=replace(plain, augment=None))
    tries: list[Callable[[Training, Prepared], Check]] = [
        starts_at_the_prior,
        overfits_one_batch,
        shuffled_labels,
        small_network,
        two_classes,
    ]
    found = []
    for done, attempt in enumerate(tries):
        progress("Checks", done, len(tries))
        found.append(attempt(training, prepared))
    progress("Checks", len(tries), len(tries))
    Path(out).mkdir(parents=True, exist_ok=True)
    content = {"schema": "medtl-sanity/1", "recipe_sha256": prepared.hashes["recipe_sha256"]}
    write_json(RunFiles(Path(out)).sanity, {**content, "checks": [asdict(one) for one in found]})
    return found


def starts_at_the_prior(training: Training, prepared: Prepared) -> Check:
    """Compare the loss of the untrained network with that of what the labels say alone.

    Args:
        training: With its network untrained.
        prepared: Its study.
    """
    batch = _batch(training, range(min(START, len(training.train))))
    outputs = _outputs(training, copy.deepcopy(training.model).eval(), batch)
    bias = torch.as_tensor(training.task.head_bias(prepared.split("train")), dtype=outputs.dtype)
    alone = bias.reshape(1, -1, *[1] * (outputs.ndim - 2)).expand_as(outputs)
    start, prior = (float(training.task.loss(o, batch.targets)) for o in (outputs, alone))
    facts = {"start": start, "prior": prior, "images": len(outputs)}
    return Check("prior", abs(start - prior) <= AGREES * abs(prior) + 0.01, facts)


def overfits_one_batch(training: Training, prepared: Prepared) -> Check:
    """Train on one batch only; its loss must come near 0, or its labels be reproduced.

    Args:
        training: With its network untrained.
        prepared: Its study.
    """
    del prepared
    batch = _batch(training, _mixed(training, min(BATCH, len(training.train))))
    network = _without_dropout(copy.deepcopy(training.model))
    losses: list[float] = []
    for loss in _steps(training, network, lambda _: batch, STEPS):
        losses.append(loss)
        if loss <= NEAR_ZERO * losses[0]:
            break
    # Smoothed or soft targets leave a loss behind: then the labels themselves must come back.
    network.train()
    task = training.task
    known = task.assess([(_outputs(training, network, batch), batch.targets)])[1]
    again = task.larger_is_better and known is not None and known > 0.99
    passed = losses[-1] <= NEAR_ZERO * losses[0] or again
    facts = {
        "images": len(batch.images),
        "start": losses[0],
        "end": losses[-1],
        "steps": len(losses),
    }
    return Check("one_batch", passed, facts)


def shuffled_labels(training: Training, prepared: Prepared) -> Check:
    """Train briefly on shuffled labels: validation must stay what chance gives.

    Args:
        training: With its network untrained.
        prepared: Its study.
    """
    truth = _columns(training.task, prepared.split("val"))
    if truth is None:
        return Check("shuffled", None, {"reason": "sanity.masks"})
    rng = np.random.default_rng(0)
    samples: Any = training.train
    mixed = replace(samples, targets=samples.targets[rng.permutation(len(samples))])
    shuffled = replace(training, train=mixed)
    network = _without_dropout(copy.deepcopy(training.model))

    def draw(_: int) -> Batch:
        return _batch(shuffled, rng.integers(len(samples), size=BATCH))

    for _ in _steps(training, network, draw, SHUFFLED_STEPS):
        pass
    rows = _one_a_patient(prepared.split("val"))
    network.eval()
    val = replace(training, train=training.val)
    outputs = torch.cat([_outputs(val, network, _batch(val, [row])) for row in rows])
    scores = training.task.decode(outputs).numpy()
    return _against_chance("shuffled", truth[rows], scores, is_better=False)


def small_network(training: Training, prepared: Prepared) -> Check:
    """Train three layers on small images: something that learns must rank better than chance.

    Args:
        training: Its images.
        prepared: Its study.
    """
    return _small(training, prepared, "small", _columns)


def two_classes(training: Training, prepared: Prepared) -> Check:
    """Train three layers on what is simplest: two classes, one finding, the extremes of a quantity.

    Args:
        training: Its images.
        prepared: Its study.
    """
    return _small(training, prepared, "subset", _simplest)


def _small(
    training: Training,
    prepared: Prepared,
    name: str,
    columns: Callable[[Task, Sequence[Case]], Truth | None],
) -> Check:
    """Train the small network on some columns of truth and judge it on validation patients."""
    cases = [*prepared.split("train"), *prepared.split("val")]
    if training.task.encode is not None:
        return Check(name, None, {"reason": "sanity.masks"})
    truth = columns(training.task, cases)
    if truth is None:
        return Check(name, None, {"reason": "sanity.two"})
    number = len(prepared.split("train"))
    known = np.isfinite(truth).sum(axis=1) > 0
    rng = np.random.default_rng(0)
    train = rng.permutation(np.flatnonzero(known[:number]))[:MOST]
    val = [row for row in _one_a_patient(prepared.split("val")) if known[number + row]]
    x, y = _images(training.train, train), torch.from_numpy(truth[train])
    network = _SmallNetwork(x.shape[1], truth.shape[1], x.ndim - 2, x.mean(), x.std())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network.apply(_reset)
        optimizer = torch.optim.AdamW(network.parameters(), lr=3 * RATE)
        for _ in range(SMALL_STEPS):
            rows = torch.from_numpy(rng.integers(len(train), size=2 * BATCH))
            told = ~torch.isnan(y[rows])
            loss = functional.binary_cross_entropy_with_logits(
                network(x[rows])[told], y[rows][told]
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        scores = network.eval()(_images(training.val, val)).numpy()
    return _against_chance(name, truth[[number + row for row in val]], scores, is_better=True)


class _SmallNetwork(nn.Module):
    """Three convolutions and a mean over places."""

    def __init__(self, channels: int, outputs: int, axes: int, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[axes]
        widths = (channels, 16, 32, 64)
        self.layers = nn.ModuleList(
            convolution(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths)
        )
        self.last = nn.Linear(widths[-1], outputs)
        self.mean, self.std = float(mean), max(float(std), 1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / self.std
        for layer in self.layers:
            x = functional.relu(layer(x))
        found: Tensor = self.last(x.flatten(2).mean(dim=2))
        return found


def _reset(module: nn.Module) -> None:
    """Draw the weights of a layer anew."""
    getattr(module, "reset_parameters", lambda: None)()


def _images(samples: Any, rows: Sequence[int] | NDArray[np.int64]) -> Tensor:
    """Some network inputs at `SMALL_SIDE` pixels a side, or as they are along a shorter one."""
    images = [samples[0, int(row)].images for row in rows]
    shapes = zip(*(image.shape[1:] for image in images), strict=True)
    sides = [min(SMALL_SIDE, max(lengths)) for lengths in shapes]
    pool: Any = {2: functional.adaptive_avg_pool2d, 3: functional.adaptive_avg_pool3d}[len(sides)]
    return torch.stack([pool(image, sides) for image in images])


def _columns(task: Task, cases: Sequence[Case]) -> Truth | None:
    """Who has what, a column a label; of a quantity, who is above the median; None for masks."""
    if task.encode is not None:
        return None
    truth = task.truth_matrix(cases)
    if task.larger_is_better:
        return truth
    return np.where(np.isnan(truth), np.nan, truth > np.nanmedian(truth)).astype(np.float32)


def _simplest(task: Task, cases: Sequence[Case]) -> Truth | None:
    """One column: the two commonest classes, the commonest finding, or the outer thirds."""
    truth = task.truth_matrix(cases)
    if not task.larger_is_better:
        low, high = np.nanquantile(truth[:, 0], (1 / 3, 2 / 3))
        outer = np.where(truth <= low, 0, np.where(truth >= high, 1, np.nan))
        return outer.astype(np.float32)
    if truth.shape[1] < 2:
        return None
    first, second = np.argsort(-np.nansum(truth, axis=0), kind="stable")[:2]
    if not (np.nansum(truth, axis=1) <= 1).all():
        return truth[:, [first]]
    either = (truth[:, first] == 1) | (truth[:, second] == 1)
    return np.where(either, truth[:, first], np.nan)[:, None].astype(np.float32)


def _against_chance(name: str, truth: Truth, scores: Truth, *, is_better: bool) -> Check:
    """Compare a mean AUROC with what it is when the truth is dealt anew, patients as they are.

    To be better than chance is to be reached by 2.5 % of the deals at most; to be no better, to lie
    within their central 99 %, which a sound study leaves once in a hundred.
    """

    def area(rows: NDArray[np.int64]) -> float | None:
        known = [~np.isnan(column) for column in truth[rows].T]
        dealt = zip(truth[rows].T, scores.T, known, strict=True)
        return mean_auroc([(column[k] > 0.5, score[k]) for column, score, k in dealt])

    rng = np.random.default_rng(0)
    observed = area(np.arange(len(truth)))
    null = [area(rng.permutation(len(truth))) for _ in range(PERMUTATIONS)]
    dealt = np.array([value for value in null if value is not None])
    if observed is None or not len(dealt):
        return Check(name, None, {"reason": "sanity.few"})
    share = 0.025 if is_better else 0.005
    low, high = np.quantile(dealt, (share, 1 - share))
    facts = {"auroc": observed, "low": float(low), "high": float(high), "patients": len(truth)}
    if is_better:
        reached, perfect = ((dealt >= value).mean() for value in (observed, 1.0))
        return Check(name, bool(reached <= share) if perfect <= share else None, facts)
    return Check(name, bool(low <= observed <= high), facts)


def _one_a_patient(cases: Sequence[Case]) -> list[int]:
    """The place of each patient's first case: chance deals patients, not images."""
    first: dict[str, int] = {}
    for row, case in enumerate(cases):
        first.setdefault(case.patient_id, row)
    return list(first.values())[:MOST]


def _mixed(training: Training, number: int) -> list[int]:
    """Places of training cases, drawn: a file is often sorted by its labels."""
    order = np.random.default_rng(0).permutation(len(training.train))
    return [int(row) for row in order[:number]]


def _batch(training: Training, rows: Sequence[int] | NDArray[np.int64] | range) -> Batch:
    """Some cases of the training split, without augmentation."""
    parts = [training.train[0, int(row)] for row in rows]
    return Batch(*(torch.stack(list(part)) for part in zip(*parts, strict=True)))


def _outputs(training: Training, network: nn.Module, batch: Batch) -> Tensor:
    """The network's outputs for a batch, on the CPU."""
    move = training.runtime.to_device
    with torch.no_grad():
        return forward(network, training.runtime)(move(batch.images), move(batch.inputs)).cpu()


def _steps(
    training: Training, network: nn.Module, draw: Callable[[int], Batch], number: int
) -> Iterator[float]:
    """Take steps of all layers; yield the loss before each."""
    move, call = training.runtime.to_device, forward(network, training.runtime)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE)
    for step in range(number):
        batch = draw(step)
        outputs = call(move(batch.images), move(batch.inputs))
        loss = training.task.loss(outputs, move(batch.targets))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        yield float(loss.detach())


def _without_dropout(network: nn.Module) -> nn.Module:
    """A network in training mode whose units all stay, with gradients for all layers."""
    network.train().requires_grad_(True)
    for module in network.modules():
        if "drop" in type(module).__name__.lower():
            module.eval()
    return network
