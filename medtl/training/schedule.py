"""Learning-rate factors as pure functions of the step, so that a resumed run needs no scheduler."""

from __future__ import annotations

import math

FINAL_FRACTION = 0.01
"""Where the cosine ends, as a fraction of the peak rate."""

STEP_MILESTONES = (1 / 3, 2 / 3, 8 / 9)
"""Fractions of a stage after which 'step' divides by 10: 30, 60 and 80 of 90 epochs (He 2019)."""

DROP = 0.1
"""Factor of one drop of 'step' and 'plateau'."""


def rate_factor(
    schedule: str, step: int, *, steps: int, warmup_steps: int, plateau_drops: int = 0
) -> float:
    """Return the factor on the peak learning rate at one optimiser step.

    Linear warm-up gives `(step + 1) / warmup_steps`; the schedule counts from its end.

    Args:
        schedule: "cosine", "step", "plateau" or "constant".
        step: Optimiser step in the stage, from 0.
        steps: Optimiser steps of the whole stage.
        warmup_steps: Steps of linear warm-up; 0 for none.
        plateau_drops: How often the plateau rule has fired in this stage.

    Returns:
        A factor in (0, 1].

    Raises:
        ValueError: For an unknown schedule.

    Reference:
        Goyal et al. 2017, section 2.2 (warm-up); Loshchilov and Hutter 2017, equation 5 (cosine).
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(steps - warmup_steps, 1)
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return FINAL_FRACTION + (1 - FINAL_FRACTION) * 0.5 * (1 + math.cos(math.pi * progress))
    if schedule == "step":
        return DROP ** sum(progress >= milestone for milestone in STEP_MILESTONES)
    if schedule == "plateau":
        return DROP**plateau_drops
    msg = f"unknown schedule {schedule!r}"
    raise ValueError(msg)
