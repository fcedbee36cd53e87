"""The ablation of selective zero-gamma: sixteen conditions derived from a staged recipe.

The claim under test is that zeroing the last gamma of some residual blocks before fine-tuning, and
warming the learning rate up, help on a given data set. So the conditions vary where, what and how
gently, and hold the controls that could explain a gain just as well: random blocks, removal of
the same blocks, a longer head stage, no head stage, other batch-norm policies, no warm-up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from medtl.errors import RunError
from medtl.recipe.schema import Recipe
from medtl.studies.conditions import Plan
from medtl.types import Stage

HEAD_FACTOR = 3
"""Factor on the epochs of the head in the control "more head epochs"."""

RANDOM_SEED = 9
"""Of the random blocks. Of EfficientNet-Lite0's nine it draws one of each third."""

GAMMA = "finetune.zero_gamma"

REFERENCE = "none"


def zero_gamma_plan(recipe: Recipe, seeds: Sequence[int]) -> Plan:
    """Return the plan of the ablation.

    Args:
        recipe: Its first stage trains the head alone, a later one everything.
        seeds: A seed fixes split, initialisation, order and augmentation.

    Raises:
        RunError: When the recipe has no such stages.
    """
    stages = recipe.finetune.stages
    if len(stages) < 2 or not _trains(stages[0], "head") or not _trains(stages[-1], "all"):
        raise RunError(
            "the ablation needs a recipe that trains the head first and everything last",
            expected="stages such as head, top, full, and no preset",
            where="finetune.stages",
        )
    return Plan(
        conditions={REFERENCE: (f"{GAMMA}.select=none",), **_gamma(), **_controls(stages)},
        reference=REFERENCE,
        seeds=tuple(seeds),
        question="Do warm-up and selectively placed zero-gamma help?",
    )


def _gamma() -> dict[str, tuple[str, ...]]:
    """Conditions that change gamma: the place, the value."""
    last = f"{GAMMA}.select=last:3"
    return {
        "last1": (f"{GAMMA}.select=last:1",),
        "last3": (last,),
        "first3": (f"{GAMMA}.select=first:3",),
        "middle3": (f"{GAMMA}.select=middle:3",),
        "random3": (f"{GAMMA}.select=random:3@{RANDOM_SEED}",),
        "last3-one": (last, f"{GAMMA}.value=1"),
        "last3-scale0.1": (last, f'{GAMMA}.value="scale:0.1"'),
        "last3-scale0.5": (last, f'{GAMMA}.value="scale:0.5"'),
        "last3-beta-zero": (last, f"{GAMMA}.beta=zero"),
        "last3-removed": (last, f"{GAMMA}.value=remove"),
    }


def _controls(stages: Sequence[Stage]) -> dict[str, tuple[str, ...]]:
    """Controls for other explanations of a gain: all without zero-gamma."""
    none = f"{GAMMA}.select=none"
    deeper = [n for n, stage in enumerate(stages) if not _trains(stage, "head")]
    head = stages[0]
    longer = f"finetune.stages.0.epochs={HEAD_FACTOR * head.epochs}"
    at_once = {
        **_spelled(stages[-1]),
        "lr": _spelled(stages[deeper[0]])["lr"],
        "epochs": sum(stage.epochs for stage in stages),
        "patience": max(stage.patience for stage in stages),
    }
    return {
        "more-head-epochs": (none, longer),
        "no-head-stage": (none, f"finetune.stages={json.dumps([at_once])}"),
        "batch-statistics": (none, *(f"finetune.stages.{n}.batch_norm=adapt" for n in deeper)),
        "bn-only": (none, *(f"finetune.stages.{n}.batch_norm=bn_only" for n in deeper)),
        "no-warmup": (none, *(f"finetune.stages.{n}.warmup_epochs=0" for n in deeper)),
    }


def _trains(stage: Stage, what: str) -> bool:
    """Tell whether a stage trains exactly what one selector names."""
    return stage.selector == what


def _spelled(stage: Stage) -> Mapping[str, Any]:
    """A stage as a recipe would spell it."""
    return asdict(stage)
