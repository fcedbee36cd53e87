"""What the doctor says of scripted logs: one sign for each, none for a log that is well."""

from __future__ import annotations

import pytest

from medtl.report.language.texts import speaking
from medtl.report.page.diagnosis import diagnose


def log(train, val, metric=(), stage=(), kept=None):
    return [
        {
            "stage": stage[index] if stage else "full",
            "epoch": str(index),
            "train_loss": str(loss),
            "val_loss": str(val[index]),
            "val_metric": str(metric[index]) if metric else "",
            "best": str(int(index == kept)),
        }
        for index, loss in enumerate(train)
    ]


WELL = log([1, 0.8, 0.6, 0.52, 0.5, 0.5], [1, 0.8, 0.6, 0.53, 0.51, 0.515])
FALLING = log([1, 0.9, 0.8, 0.7, 0.6, 0.5], [1, 0.9, 0.8, 0.7, 0.6, 0.5])
OVER = log([1, 0.8, 0.6, 0.4, 0.3, 0.2], [1, 0.8, 0.65, 0.7, 0.9, 1.1])
FLAT = log([0.69] * 6, [0.69, 0.7, 0.69, 0.7, 0.69, 0.69])
# The chest recipe's: validation loss .34 -> .65 while AUROC stands still.
LOST = log(
    [0.6, 0.45, 0.35, 0.25, 0.15, 0.1],
    [0.5, 0.4, 0.34, 0.45, 0.55, 0.65],
    [0.8, 0.86, 0.9, 0.9, 0.905, 0.9],
    kept=4,
)
SLOW = log(
    [0.70, 0.70, 0.69, 0.69, 0.5, 0.4, 0.3, 0.3, 0.3],
    [0.70, 0.70, 0.69, 0.69, 0.5, 0.4, 0.3, 0.3, 0.3],
)


def keys(history, **known):
    return [sign.key for sign in diagnose(history, **known)]


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        (WELL, ["good"]),
        (WELL[:3], ["short"]),
        (FALLING, ["underfit"]),
        (OVER, ["overfit"]),
        (FLAT, ["not_learning"]),
        (LOST, ["calibration"]),
        (SLOW, ["slow"]),
        (log([0.5, 0.4, 0.7, 0.4, 0.4, 0.4], [0.5] * 6), ["rate_high"]),
        (log([0.5, 0.55, 0.48, 0.53, 0.45, 0.48], [0.5] * 6), ["rate_high"]),
        (log([0.5, 0.4, "nan"], [0.5, 0.4, "nan"]), ["not_finite"]),
    ],
)
def test_a_scripted_log_has_its_sign_and_no_other(history, expected):
    assert keys(history) == expected


def test_each_sign_names_its_evidence_and_one_suggestion():
    (lost,) = diagnose(LOST)
    for part in ("0.340 at epoch 3", "0.650 at epoch 6", "0.900", "epoch 5 was kept"):
        assert part in lost.evidence
    assert "monitor: val_loss" in lost.advice
    (over,) = diagnose(OVER)
    assert "after epoch 3" in over.evidence
    with speaking("ko"):
        assert "교정도" in diagnose(LOST)[0].evidence
        assert "에폭 3 이후 과적합" in diagnose(OVER)[0].evidence


def test_calibration_is_lost_only_while_the_measure_stands_still():
    worse = [
        {**row, "val_metric": value} for row, value in zip(LOST, (8, 8.6, 9, 8, 7, 6), strict=True)
    ]
    assert keys(worse) == ["overfit"]
    # An error in months is its own loss; a Dice has probabilities behind it.
    assert keys(LOST, recipe={"task": {"kind": "bone_age"}}) == ["overfit"]
    assert keys(LOST, recipe={"task": {"kind": "segmentation"}}) == ["calibration"]


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"finetune": {"weight_decay": 0.3}}, "finetune.weight_decay 0.3"),
        ({"model": {"dropout": 0.6}}, "model.dropout 0.6"),
        ({"task": {"loss": {"label_smoothing": 0.3}}}, "task.loss.label_smoothing 0.3"),
        ({"finetune": {"penalty": {"l1": 1}}}, "finetune.penalty"),
    ],
)
def test_strong_regularisation_hurts_what_underfits(recipe, said):
    found = {sign.key: sign for sign in diagnose(FALLING, recipe=recipe)}
    assert said in found["strong"].evidence
    assert "strong" not in keys(OVER, recipe=recipe)  # there it is what is needed
    assert "strong" not in keys(WELL, recipe=recipe)
    assert keys(FALLING, recipe={"finetune": {"weight_decay": 0.01}}) == ["underfit"]


def test_a_loss_that_still_falls_above_a_gap_is_no_underfit_to_relieve():
    """As the first fold of the chest recipe at 160 px: strong regularisation is not its fault."""
    still = log([0.6, 0.5, 0.4, 0.3, 0.25, 0.2], [0.6, 0.55, 0.5, 0.48, 0.45, 0.38])
    strong = {"finetune": {"weight_decay": 0.3}}
    assert keys(still, recipe=strong) == ["gap", "unfinished"]
    assert "strong" in keys(FALLING, recipe=strong)


def test_a_rise_where_a_stage_begins_is_no_rate_too_high():
    train = [0.5, 0.4, 0.7, 0.4, 0.35, 0.35]
    stages = ["head", "head", "full", "full", "full", "full"]
    assert "rate_high" not in keys(log(train, [0.5] * 6, stage=stages))


def group(name, change, *, trained=True):
    return {"name": name, "parameters": 10, "trained": trained, "change": change}


PRETRAINED = {"model": {"weights": {"source": "bundled"}}}


def test_layers_tell_of_dead_units_and_of_weights_that_moved_too_little_or_too_far():
    units = [
        {"layer": "act1", "units": 10, "dead": 0.7, "dead_at_start": 0.1},
        {"layer": "act2", "units": 10, "dead": 0.6, "dead_at_start": 0.58},  # so from the start
        {"layer": "act3", "units": 10, "dead": 0.3, "dead_at_start": 0.0},
    ]
    groups = [
        group("stem", 0.0, trained=False),
        group("layer1", 1e-4),
        group("layer2", 0.1),
        group("layer3", 1.5),
        group("head", 40.0),
    ]
    layers = {"images": 32, "units": units, "groups": groups}
    found = {sign.key: sign.evidence for sign in diagnose(WELL, recipe=PRETRAINED, layers=layers)}
    assert list(found) == ["dead", "unmoved", "overwritten"]
    assert "act1, 70%" in found["dead"]
    assert found["dead"].endswith("layers like this: 1.")
    assert found["unmoved"].endswith(": layer1.")
    assert "in layer3:" in found["overwritten"]
    random = {"model": {"weights": {"source": "none"}}}
    assert keys(WELL, recipe=random, layers={**layers, "units": units[1:]}) == ["good"]
