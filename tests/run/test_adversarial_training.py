"""`finetune.learn: {method: adversarial}`: what is learned, what is refused, what is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from resumed import stopped_and_resumed
from tiny_study import write_tiny_study
from torch import nn
from torch.nn import functional

from medtl.data.batches import Batch
from medtl.errors import RecipeError
from medtl.losses.adversarial import AdversarialTraining
from medtl.preprocess.affine import Affine
from medtl.run.build import build_objective
from medtl.run.chain import build_training, run_study, train_study
from medtl.run.check import read_recipe
from medtl.run.plan import describe_plan
from medtl.run.prepare import read_study
from medtl.training.checkpoint import load_checkpoint
from medtl.training.objective import Attacked

SHORT = ["finetune.stages.1.epochs=1"]
LEARN = "finetune.learn={method: adversarial, eps: 0.02, steps: 2}"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_tiny_study(tmp_path_factory.mktemp("study") / "data", patients=12)


class Seen:
    """A linear network of one finding that remembers every batch it was shown."""

    def __init__(self):
        self.weight = nn.Parameter(torch.linspace(-1, 1, 16).reshape(4, 4))
        self.images = []

    def __call__(self, images, _inputs):
        self.images.append(images.detach())
        return (images[:, 0] * self.weight).sum((1, 2))[:, None]


def batch_of(units, affine):
    return Batch(affine(units), torch.zeros(6, 0), torch.ones(6, 1), torch.arange(6))


def test_what_is_learned_lies_within_eps_of_the_image_before_it_is_standardised():
    torch.manual_seed(0)
    affine = Affine(torch.full((3, 1, 1), 4.0), torch.full((3, 1, 1), -2.0))
    units, network = torch.rand(6, 1, 4, 4), Seen()
    loss = functional.binary_cross_entropy_with_logits
    objective = Attacked(loss, AdversarialTraining(eps=0.03, steps=3, weight=1), affine, 1)
    found = objective(network, batch_of(units, affine)).loss
    found.backward()
    learned = (network.images[-1][6:] + 2) / 4
    assert len(network.images) == 3 + 1
    assert float((learned - units).abs().max()) <= 0.03 + 1e-6
    assert learned.min() >= 0 and learned.max() <= 1  # noqa: PT018  one fact
    assert torch.equal(learned[:, 0], learned[:, 2])  # a grey image stays grey
    # Of a linear network the worst image is known: every pixel goes against its weight.
    worst = (units - 0.03 * network.weight.sign()).clamp(0, 1)
    torch.testing.assert_close(learned[:, :1], worst, rtol=0, atol=1e-5)
    clean = loss(network(affine(units), None), torch.ones(6, 1))
    assert found.detach() > clean.detach()
    half = Attacked(loss, AdversarialTraining(eps=0.03, steps=3), affine, 1)
    torch.manual_seed(0)
    mean = half(network, batch_of(units, affine)).loss.detach()
    torch.testing.assert_close(mean, (found.detach() + clean.detach()) / 2)
    # The gradient is that of the last pass alone: the attack has left none behind.
    expected = torch.autograd.grad(loss(network(affine(worst), None), torch.ones(6, 1)),
                                   network.weight)[0]  # fmt: skip
    torch.testing.assert_close(network.weight.grad, expected, rtol=1e-4, atol=1e-5)


def test_a_bound_of_next_to_nothing_is_learning_from_the_images_as_they_are():
    affine = Affine(torch.ones(1, 1, 1), torch.zeros(1, 1, 1))
    units, network = torch.rand(6, 1, 4, 4), Seen()
    loss = functional.binary_cross_entropy_with_logits
    found = Attacked(loss, AdversarialTraining(eps=1e-9), affine, 1)(
        network, batch_of(units, affine)
    )
    clean = loss(network(units, None), torch.ones(6, 1))
    torch.testing.assert_close(found.loss, clean)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (["image.standardise=z_score"], "these are standardised by z_score: state image.standard"),
        (["finetune.mix={mixup: 0.2}"], "and finetune.learn adversarial both change the images"),
        (["finetune.learn={method: adversarial, eps: 0}"], "eps 0 changes nothing"),
        (["finetune.learn={method: adversarial, weight: 0}"], "weight 0 changes nothing"),
        (["finetune.learn={method: adversarial, eps: 2}"], "eps"),
        (["finetune.learn={method: adversarial, steps: 0}"], "steps"),
        (["finetune.learn={method: adversarial, teacher: t}"], "unknown option of adversarial"),
    ],
)
def test_what_has_no_bound_is_refused(study, changes, reason):
    with pytest.raises(RecipeError, match=reason):
        read_recipe(study, [LEARN, *changes])


def test_the_attack_is_on_the_images_that_the_reader_makes(study):
    recipe = read_recipe(study, [LEARN])
    prepared = read_study(recipe)
    objective = build_objective(recipe, prepared.task, prepared.reader)
    images = prepared.samples(prepared.split("val"))[0, 0].images[None]
    unit = prepared.store.unit(int(prepared.store.rows(prepared.split("val"))[0]))
    np.testing.assert_allclose(
        objective.affine.undone(images, objective.channels)[0].numpy(), unit, atol=1e-6
    )


def test_a_run_says_so_and_goes_on_to_the_same_bits(study, tmp_path):
    recipe = read_recipe(study, [*SHORT, LEARN])
    whole = run_study(recipe, tmp_path / "whole")
    again = stopped_and_resumed(recipe, tmp_path / "again", after=1)
    assert again.files.predictions.read_bytes() == whole.files.predictions.read_bytes()
    rows = whole.history
    np.testing.assert_allclose(
        rows["train_loss"], (rows["label_loss"] + rows["attacked_loss"]) / 2, rtol=1e-5
    )
    plain = run_study(read_recipe(study, SHORT), tmp_path / "plain")
    assert plain.files.predictions.read_bytes() != whole.files.predictions.read_bytes()
    page = whole.files.report.read_text("utf-8")
    assert "each pixel may change by 2% of the range from black to white, in 2 steps" in page
    assert "(adversarial training, 0.5 of the loss)" in page
    korean = whole.report(tmp_path / "ko.html", language="ko").read_text("utf-8")
    assert "흑백 전체 범위의 2%까지 2단계" in korean
    assert any("attacked anew" in line for line in describe_plan(recipe))


def test_frozen_layers_run_in_every_epoch(study):
    asked = [LEARN, "finetune.cached_views=1", "finetune.stages.0.epochs=3"]
    lines = "\n".join(describe_plan(read_recipe(study, asked)))
    assert "what is learned changes the images themselves" in lines


@pytest.mark.slow
def test_loader_processes_change_no_bit(study, tmp_path):
    runs = [
        train_study(read_recipe(study, [*SHORT, LEARN, f"run.workers={n}"]), tmp_path / str(n))
        for n in (0, 2)
    ]
    tensors = [load_checkpoint(run.files.best)[0] for run in runs]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


def test_masks_and_quantities_can_learn_so_too(study, tmp_path):
    """The attack raises whatever loss the task has."""
    recipe = read_recipe(study, [*SHORT, LEARN, "run.members=2"])
    training, _ = build_training(read_study(recipe), tmp_path)
    assert isinstance(training.objective, Attacked)
