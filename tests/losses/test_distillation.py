"""Distillation at its limits: equal networks, high temperature, one class, nothing known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medtl.losses.distillation import Distillation, agreement


def logits(classes, seed=0):
    """Logits of a student and of a teacher, of mean 0 in each case."""
    drawn = torch.from_numpy(np.random.default_rng(seed).normal(0, 3, (2, 5, classes)))
    student, teacher = drawn - drawn.mean(dim=-1, keepdim=True)
    return student.requires_grad_(), teacher


def gradient(student, teacher, temperature, *, exclusive):
    loss = Distillation("t", temperature)(student, teacher, exclusive=exclusive)
    return torch.autograd.grad(loss, student)[0] * loss.new_tensor(len(student))


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(exclusive, temperature):
    student, _ = logits(3)
    loss = Distillation("t", temperature)(student, student.detach(), exclusive=exclusive)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert torch.autograd.grad(loss, student)[0].abs().max() < 1e-12


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_a_high_temperature_compares_logits(classes):
    """Hinton et al. 2015, equation 4, times T squared: (z - r) / K."""
    student, teacher = logits(classes)
    expected = (student - teacher).detach() / classes
    errors = [
        float((gradient(student, teacher, t, exclusive=True) - expected).abs().max())
        for t in (20.0, 1e3, 1e5)
    ]
    assert errors[2] < 1e-4 < errors[0], "20 is not yet the limit"
    assert errors[0] > errors[1] > errors[2]


def test_of_findings_the_limit_is_a_quarter_of_the_difference():
    """A sigmoid is a softmax over (z / 2, -z / 2): (z / 2 - r / 2) / 2 for the logit z."""
    student, teacher = logits(3)
    found = gradient(student, teacher, 1e5, exclusive=False)
    expected = (student - teacher).detach() / 4
    np.testing.assert_allclose(3 * found, expected, atol=1e-4)  # the mean is over findings too


def test_the_gradient_at_any_temperature_is_that_of_soft_cross_entropy():
    """T (softmax(z / T) - softmax(r / T)), by torch's own cross-entropy with soft targets."""
    student, teacher = logits(4)
    soft = (teacher / 3).softmax(dim=-1)
    oracle = 9 * torch.nn.functional.cross_entropy(student / 3, soft, reduction="sum")
    expected = torch.autograd.grad(oracle, student)[0]
    np.testing.assert_allclose(gradient(student, teacher, 3.0, exclusive=True), expected)
    assert not np.allclose(gradient(student, teacher, 2.0, exclusive=True), expected)


@pytest.mark.parametrize("exclusive", [True, False])
def test_cases_without_a_teacher_count_for_nothing(exclusive):
    student, teacher = logits(3)
    some = teacher.clone()
    some[2:] = torch.nan
    loss = Distillation("t")
    found = loss(student, some, exclusive=exclusive).item()
    assert found == pytest.approx(loss(student[:2], teacher[:2], exclusive=exclusive).item())
    assert agreement(student, some, exclusive=exclusive) == agreement(
        student[:2], teacher[:2], exclusive=exclusive
    )
    nobody = loss(student, some.fill_(torch.nan), exclusive=exclusive)
    assert nobody.item() == 0
    assert not torch.autograd.grad(nobody, student)[0].any()


def test_agreement_counts_cases_or_findings():
    student = torch.tensor([[2.0, 1.0], [-1.0, 3.0]])
    teacher = torch.tensor([[0.5, -1.0], [4.0, 1.0]])
    assert float(agreement(student, teacher, exclusive=True)) == 0.5
    assert float(agreement(student, teacher, exclusive=False)) == 0.5
    assert float(agreement(student, student, exclusive=True)) == 1.0
