"""Likeness of inputs to the images that the model was trained on, and what differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Facts = Mapping[str, str | float]

COMPARED = ("modality", "view_position", "photometric_interpretation")
"""Header facts whose value must have occurred in training."""

MIN_SHARE = 0.01
"""A value seen in fewer than this share of the training images counts as not seen."""

RANGES = ("spacing_mm", "unit_p5", "unit_p50", "unit_p95")
"""Numbers that must lie within the training range, widened by `MARGIN` of its width."""

MARGIN = 0.25


def training_profile(facts: Sequence[Facts]) -> dict[str, Any]:
    """Summarise the training images.

    Args:
        facts: One mapping per image: header facts, `spacing_mm`, and the 5th, 50th and 95th
            percentile of the unit image.

    Returns:
        JSON types: for each of `COMPARED` the values seen, for each of `RANGES` [low, high] of the
        central 99 % of the training images. What too few images state is left out.
    """
    profile: dict[str, Any] = {}
    for name in COMPARED:
        counts = Counter(str(f[name]) for f in facts if f.get(name))
        seen = sorted(v for v, count in counts.items() if count >= MIN_SHARE * len(facts))
        if seen and sum(counts.values()) > len(facts) / 2:
            profile[name] = seen
    for name in RANGES:
        values = [float(f[name]) for f in facts if name in f]
        if len(values) > len(facts) / 2:
            low, high = np.percentile(values, (0.5, 99.5))
            profile[name] = [float(low), float(high)]
    return profile


def unlike_training(facts: Facts, profile: Mapping[str, Any]) -> list[str]:
    """Return what is unlike the training images, in words; empty when nothing is.

    Args:
        facts: Of one image, as in `training_profile`.
        profile: What `training_profile` returned.
    """
    reasons = []
    for name in COMPARED:
        value = facts.get(name)
        if name in profile and value and str(value) not in profile[name]:
            reasons.append(f"{name.replace('_', ' ')} not seen in training")
    for name in RANGES:
        if name in profile and name in facts:
            low, high = profile[name]
            slack = MARGIN * (high - low) + 1e-6
            if not low - slack <= float(facts[name]) <= high + slack:
                quantity = "pixel spacing" if name == "spacing_mm" else "intensity"
                reasons.append(f"{quantity} outside the training range")
    return list(dict.fromkeys(reasons))
