"""Augmentation by policy: which transforms a modality allows, drawn first and then applied.

A policy comes from the safety table. With its probability, and independently of each other, a
picture gets: each exact flip or turn that is listed; one warp made of all the listed geometric
transforms; one of the listed photometric transforms. Everything drawn is in the history, and the
history alone reproduces the result.

The contract: images in [0, 1], before they are standardised. Elsewhere brightness, gamma and noise
do not mean what they say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medtl.errors import MedtlError
from medtl.preprocess.photometric import apply_photometric
from medtl.preprocess.policy import Asked, Range, policy_faults, policy_ranges
from medtl.preprocess.safety import Level, border_of, kind_of, parameter_of, safety, transform_names
from medtl.preprocess.warp import linear_part, turn, warp, warp_coordinates, warp_mask
from medtl.types import FloatArray

KEPT_IN_VIEW = 0.8
"""Central part of each side that a drawn scale never pushes out of the picture."""

RATIOS = frozenset({"factor", "exponent"})
"""Parameters drawn evenly in their logarithm: 1/1.1 is as likely as 1.1."""


@dataclass(frozen=True)
class Step:
    """One transform that was drawn, with its numbers."""

    name: str
    parameters: Mapping[str, float]

    def __str__(self) -> str:
        """Name and numbers, without seeds."""
        shown = [f"{value:.3g}" for key, value in self.parameters.items() if key != "seed"]
        return " ".join([self.name.replace("_", " "), *shown])


class Augmented(NamedTuple):
    """An augmented image: the image, its mask (or None), and all that was done, in order."""

    array: NDArray[np.float32]
    mask: NDArray[np.generic] | None
    history: tuple[Step, ...]


class PolicyRow(NamedTuple):
    """One line of what `medtl check` prints about augmentation."""

    transform: str
    level: Level
    used: bool
    strength: str
    reason: str


@dataclass(frozen=True)
class Augmenter:
    """A policy that has been checked; made by `augmenter`.

    Attributes:
        modality: One of `safety.modality_names()`.
        ranges: Transform -> the range its parameter is drawn from, None for those without one.
        probability: Of each of the three parts of the policy, in [0, 1].

    >>> augment = Augmenter("cxr", {"brightness": (0.1, 0.1)}, probability=1.0)
    >>> unit = np.full((1, 4, 4), 0.5, np.float32)
    >>> result = augment(unit, np.random.default_rng(0))
    >>> float(result.array.max().round(3)), str(result.history[0])
    (0.6000000238418579, 'brightness 0.1')
    """

    modality: str
    ranges: Mapping[str, Range | None]
    probability: float = 0.5

    def __call__(
        self, array01: FloatArray, rng: np.random.Generator, mask: NDArray[np.generic] | None = None
    ) -> Augmented:
        """Return the image, and its mask, after a drawn augmentation.

        Args:
            array01: `(C, H, W)` in [0, 1].
            rng: The same state gives the same result.
            mask: `(..., H, W)` labels, moved with the image.

        Returns:
            Image `(C, H, W)` float32 in [0, 1], mask, and history.

        Raises:
            MedtlError: When the image is not 2D, not finite or not in [0, 1], or the mask is not
                on its grid.
        """
        check_unit(array01, axes=2)
        return self.apply(array01, self.draw(rng, array01.shape[-2:]), mask)

    def draw(self, rng: np.random.Generator, shape: Sequence[int]) -> tuple[Step, ...]:
        """Return the transforms of one picture, in the order in which they are applied.

        Args:
            rng: Advanced by what is drawn.
            shape: `(H, W)` of the picture.
        """
        square = shape[0] == shape[1]
        steps = [
            _draw_turn(name, rng, square)
            for name in self.listed("orientation")
            if rng.random() < self.probability
        ]
        if rng.random() < self.probability:
            warps = [
                _draw_warp(name, self.range_of(name), rng) for name in self.listed("geometric")
            ]
            steps += self._keep_center(warps, shape)
        return (*steps, *self.draw_photometric(rng))

    def draw_photometric(self, rng: np.random.Generator) -> list[Step]:
        """Return one of the listed photometric transforms, or none of them.

        Args:
            rng: Advanced by what is drawn.
        """
        listed = self.listed("photometric")
        if not (rng.random() < self.probability and listed):
            return []
        name = listed[rng.integers(len(listed))]
        parameter, limits = parameter_of(name), self.ranges[name]
        value = {parameter: draw_value(parameter, limits, rng)} if limits else {}
        return [Step(name, {**value, "seed": draw_seed(rng)})]

    def apply(
        self, array01: FloatArray, steps: Sequence[Step], mask: NDArray[np.generic] | None = None
    ) -> Augmented:
        """Return the image, and its mask, after given steps: a history replayed.

        Args:
            array01: `(C, H, W)` in [0, 1].
            steps: As `draw` returned them.
            mask: `(..., H, W)` labels.

        Raises:
            MedtlError: As for a call.
        """
        check_unit(array01, axes=2)
        unit = array01.astype(np.float32)
        if mask is not None and mask.shape[-2:] != unit.shape[-2:]:
            raise MedtlError(
                f"a mask of shape {mask.shape}", expected=f"(..., {unit.shape[1]}, {unit.shape[2]})"
            )
        for step in steps:
            if kind_of(step.name) == "orientation":
                unit = turn(unit, step.name, step.parameters)
                mask = None if mask is None else turn(mask, step.name, step.parameters)
        warps = {s.name: s.parameters for s in steps if kind_of(s.name) == "geometric"}
        if warps:
            border = border_of(self.modality)
            coordinates = warp_coordinates(warps, unit.shape[-2:])
            unit = warp(unit, coordinates, border)
            mask = None if mask is None else warp_mask(mask, coordinates, border)
        for step in steps:
            if kind_of(step.name) == "photometric":
                value = step.parameters.get(parameter_of(step.name), 0.0)
                unit = apply_photometric(step.name, unit, value, int(step.parameters["seed"]))
        mask = None if mask is None else np.ascontiguousarray(mask)
        return Augmented(np.ascontiguousarray(unit), mask, tuple(steps))

    def weak(self) -> Augmenter:
        """Return the policy without what changes intensities."""
        tones = self.listed("photometric")
        return replace(self, ranges={n: r for n, r in self.ranges.items() if n not in tones})

    def strong(self) -> Augmenter:
        """Return the policy with each of its parts certain."""
        return replace(self, probability=1.0)

    def describe(self) -> list[PolicyRow]:
        """Return the verdict on every transform for this modality, and whether it is used."""
        rows = []
        for name in transform_names():
            verdict, used = safety(name, self.modality), name in self.ranges
            limits = self.ranges[name] if used else next(iter(verdict.limits.values()), None)
            strength = f"{parameter_of(name)} {limits[0]:g} to {limits[1]:g}" if limits else ""
            rows.append(PolicyRow(name, verdict.level, used, strength, verdict.reason))
        return rows

    def listed(self, kind: str) -> list[str]:
        """Return the policy's transforms of one kind, in the table's order.

        Args:
            kind: "orientation", "geometric" or "photometric".
        """
        return [name for name in transform_names() if name in self.ranges and kind_of(name) == kind]

    def range_of(self, name: str) -> Range:
        """Return the range of a transform that has one.

        Args:
            name: One of the policy's transforms.
        """
        limits = self.ranges[name]
        assert limits is not None
        return limits

    def _keep_center(self, warps: list[Step], shape: Sequence[int]) -> list[Step]:
        """Lower a drawn scale until the central part stays in view, within its range."""
        drawn = {step.name: step.parameters for step in warps}
        if "scale" not in drawn:
            return warps
        size = np.array(shape, dtype=np.float64)
        corners = np.array(list(product((-1, 1), repeat=2))) * KEPT_IN_VIEW / 2 * size
        unscaled = linear_part({**drawn, "scale": {}})
        move = drawn.get("translate", {})
        shift = np.abs([move.get("rows", 0.0), move.get("columns", 0.0)]) * size
        largest = ((size / 2 - shift) / np.abs(corners @ unscaled.T).max(axis=0)).min()
        lowest = self.range_of("scale")[0]
        factor = max(lowest, min(drawn["scale"]["factor"], float(largest)))
        return [Step("scale", {"factor": factor}) if s.name == "scale" else s for s in warps]


def augmenter(
    modality: str,
    *,
    transforms: Asked | None = None,
    probability: float = 0.5,
    i_know: Sequence[str] = (),
) -> Augmenter:
    """Return the augmentation of a modality: its SAFE transforms, or those asked for.

    Args:
        modality: One of `safety.modality_names()`.
        transforms: Instead of the modality's own list: name -> `{parameter: [low, high]}`; an empty
            mapping takes the table's limits. An empty `transforms` changes nothing.
        probability: Of each part of the policy, in [0, 1].
        i_know: UNSAFE transforms wanted all the same, and transforms beyond their limits.

    Raises:
        MedtlError: The first of `policy_faults`.

    >>> sorted(augmenter("cxr").ranges)[:3]
    ['brightness', 'contrast', 'gamma']
    >>> augmenter("cxr", transforms={"vertical_flip": {}})
    Traceback (most recent call last):
    medtl.errors.MedtlError: augment.transforms.vertical_flip: 'vertical_flip' is UNSAFE ...
    """
    faults = policy_faults(modality, transforms=transforms, probability=probability, i_know=i_know)
    if faults:
        raise faults[0]
    return Augmenter(modality, policy_ranges(modality, transforms), probability)


def check_unit(array: FloatArray, *, axes: int) -> None:
    """Hold the contract: one image, finite, in [0, 1].

    Args:
        array: `(C, *S)`.
        axes: How many spatial axes it must have.

    Raises:
        MedtlError: When it does not.

    >>> check_unit(np.zeros((1, 8, 8)), axes=2)
    >>> check_unit(np.full((1, 8, 8), 255.0), axes=2)
    Traceback (most recent call last):
    medtl.errors.MedtlError: augmentation was given values from 255 to 255; expected an ...
    """
    if array.ndim != axes + 1:
        expected = "one picture (C, H, W)" if axes == 2 else "one volume (C, I, J, K)"
        raise MedtlError(f"an array of shape {array.shape}", expected=expected)
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):
        raise MedtlError(
            f"augmentation was given values from {low:g} to {high:g}",
            expected="an image in [0, 1]",
            fix="Augment what Preprocessor.to_unit returns, before it is standardised",
        )


def draw_value(parameter: str, limits: Range, rng: np.random.Generator) -> float:
    """Return a number in the range; ratios are drawn evenly in their logarithm.

    Args:
        parameter: Of the transform.
        limits: Lowest and highest value.
        rng: Advanced by one draw.

    >>> rng = np.random.default_rng(0)
    >>> 0.9 <= draw_value("factor", (0.9, 1.1), rng) <= 1.1
    True
    """
    if parameter in RATIOS:
        return float(np.exp(rng.uniform(*np.log(limits))))
    return float(rng.uniform(*limits))


def draw_seed(rng: np.random.Generator) -> int:
    """Return a seed for the fields that a transform draws itself.

    Args:
        rng: Advanced by one draw.

    >>> draw_seed(np.random.default_rng(0))
    1826701615
    """
    return int(rng.integers(2**31))


def _draw_turn(name: str, rng: np.random.Generator, square: bool) -> Step:
    """A flip, or a turn that keeps the picture's shape."""
    if name != "quarter_turn":
        return Step(name, {})
    return Step(name, {"turns": int(rng.integers(1, 4)) if square else 2})


def _draw_warp(name: str, limits: Range, rng: np.random.Generator) -> Step:
    """A geometric transform."""
    parameter = parameter_of(name)
    if name == "translate":
        rows, columns = rng.uniform(*limits, size=2)
        return Step(name, {"rows": float(rows), "columns": float(columns)})
    parameters: dict[str, float] = {parameter: draw_value(parameter, limits, rng)}
    if name == "crop":
        row, column = rng.uniform(-1, 1, size=2)
        parameters.update(row=float(row), column=float(column))
    if name == "elastic":
        parameters["seed"] = draw_seed(rng)
    return Step(name, parameters)
