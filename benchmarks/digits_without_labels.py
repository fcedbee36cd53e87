"""Does learning from digits without labels help where it should, and not where it cannot?

python -m benchmarks.digits_without_labels --seeds 10 --steps 800

Each seed draws 40 digits with labels and 300 without; what nobody learned from is the test. In the
control the pixels of the digits without labels are in disorder.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import torch
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.semi_supervised import LabelSpreading
from torch import Tensor, nn
from torch.nn import functional

from medtl.data.batches import Batch
from medtl.losses.self_training import SelfTraining
from medtl.training.objective import Objective, SelfTrained, Supervised, lowered

LABELLED, UNLABELLED, BATCH = 40, 300, 16
METHOD = SelfTraining("fixmatch", "digits", ratio=4, threshold=0.95)

Digits = tuple[Tensor, Tensor]
"""Pictures `(n, 1, 8, 8)` in [0, 1], and what they are `(n,)`."""


def moved(pictures: Tensor, degrees: float, shift: float, zoom: float) -> Tensor:
    """Return digits turned, moved by up to so many pixels and scaled, each by its own."""

    def drawn(limit: float) -> Tensor:
        return (2 * torch.rand(len(pictures)) - 1) * limit

    turn, scale = drawn(math.radians(degrees)), drawn(zoom).exp()
    cos, sin = turn.cos() * scale, turn.sin() * scale
    rows = [[cos, -sin, drawn(shift / 4)], [sin, cos, drawn(shift / 4)]]
    matrices = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grid = functional.affine_grid(matrices, [*pictures.shape], align_corners=False)
    return functional.grid_sample(pictures, grid, align_corners=False)


def weak(pictures: Tensor) -> Tensor:
    """Return digits moved a little."""
    return moved(pictures, 5, 0.5, 0.05)


def strong(pictures: Tensor) -> Tensor:
    """Return digits moved more, in other tones and with noise."""
    tones = 1 + 0.3 * (2 * torch.rand(len(pictures), 1, 1, 1) - 1)
    return moved(pictures, 25, 1.2, 0.2) * tones + 0.1 * torch.randn(pictures.shape)


def accuracy(
    objective: Objective, seed: int, steps: int, known: Digits, others: Tensor, test: Digits
) -> float:
    """Return what a small network reaches on the digits that nobody learned from."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten()),
        *(nn.Dropout(0.3), nn.Linear(512, 10)),
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.05)
    for _ in range(steps):
        places = torch.randint(LABELLED, (BATCH,))
        more = others[torch.randint(len(others), (BATCH * METHOD.ratio,))]
        views = torch.stack([weak(more), strong(more)], dim=1)
        views = views.reshape(BATCH, METHOD.ratio, 2, 1, 8, 8)
        nothing = torch.zeros(BATCH, 0)
        batch = Batch(weak(known[0][places]), nothing, known[1][places], places, views)
        optimizer.zero_grad()
        lowered(objective(lambda images, _inputs: net(images), batch)).loss.backward()
        optimizer.step()
    with torch.inference_mode():
        return float((net.eval()(test[0]).argmax(1) == test[1]).double().mean())


def drawn_digits(seed: int) -> list[Digits]:
    """Return the digits with labels, without, and to test on."""
    pictures, truth = load_digits(return_X_y=True)
    order = np.random.default_rng([seed, 1]).permutation(len(truth))
    shaped = torch.tensor(pictures / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    parts = np.split(order, [LABELLED, LABELLED + UNLABELLED])
    return [(shaped[part], torch.tensor(truth[part])) for part in parts]


def one_seed(seed: int, steps: int) -> dict[str, float]:
    """Return the accuracy of each way to learn."""
    known, (others, truth), test = drawn_digits(seed)
    rng = np.random.default_rng(seed)
    disorder = torch.tensor(rng.permuted(others.flatten(1).numpy(), axis=1)).reshape(others.shape)
    labels = Supervised(functional.cross_entropy)
    fixmatch = SelfTrained(functional.cross_entropy, METHOD)
    flat, unlabelled, tested = (
        16 * x.flatten(1).double().numpy() for x in (known[0], others, test[0])
    )
    given = np.concatenate([known[1].numpy(), np.full(len(others), -1)])
    spread = LabelSpreading(gamma=0.25, max_iter=20).fit(np.concatenate([flat, unlabelled]), given)
    logistic = LogisticRegression(max_iter=5000).fit(flat, known[1].numpy())
    return {
        "logistic regression on the labels": float(logistic.score(tested, test[1].numpy())),
        "network, the labels alone": accuracy(labels, seed, steps, known, others, test),
        "network, FixMatch": accuracy(fixmatch, seed, steps, known, others, test),
        "network, FixMatch on pixels in disorder": accuracy(
            fixmatch, seed, steps, known, disorder, test
        ),
        "LabelSpreading, on the 300 themselves": float(
            (spread.transduction_[LABELLED:] == truth.numpy()).mean()
        ),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=800)
    asked = parser.parse_args()
    rows = [one_seed(seed, asked.steps) for seed in range(asked.seeds)]
    plain = np.array([row["network, the labels alone"] for row in rows])
    print(f"mean accuracy of {asked.seeds} seeds, {asked.steps} steps; difference to the labels")
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        gains = values - plain
        half = stats.t.ppf(0.975, len(rows) - 1) * gains.std(ddof=1) / len(rows) ** 0.5
        ends = f"{gains.mean():+.3f} [{gains.mean() - half:.3f}, {gains.mean() + half:.3f}]"
        print(f"{name}: {values.mean():.3f}, {ends}")


if __name__ == "__main__":
    main()
