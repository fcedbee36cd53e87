"""Augmentation of volumes: MONAI's transforms behind the same policy, table and history as planes.

The safety table says what a modality allows and how far; everything drawn is in the history, and
the history alone reproduces the result. All that moves a volume becomes one interpolation (MONAI's
`Resample`), in millimetres, so that rotating thick slices does not shear them; rotations are about
all three axes, within the table's range. The mask follows by the nearest voxel. Volumes lie in RAS
order: the first axis runs from the patient's left to the right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtl.errors import MedtlError
from medtl.preprocess.augment import (
    Augmented,
    Augmenter,
    PolicyRow,
    Step,
    augmenter,
    check_unit,
    draw_seed,
    draw_value,
)
from medtl.preprocess.photometric import apply_photometric
from medtl.preprocess.policy import Asked
from medtl.preprocess.safety import border_of, kind_of, parameter_of
from medtl.types import FloatArray

Unit = NDArray[np.float32]

FLIPPED_AXIS = {"horizontal_flip": 0, "vertical_flip": 2}
"""Flip -> axis of a volume in RAS order."""

WARPS = frozenset({"rotate", "translate", "scale", "elastic"})
"""Geometric transforms of volumes."""

ANY_SHAPE = frozenset({"brightness", "contrast", "gamma", "noise", "rician_noise", "speckle"})
"""Photometric transforms that act on every voxel alike: the same code as for planes."""

ELASTIC_NODES = 9
"""Nodes of the elastic grid along each axis; the outer two, which a cubic needs, do not move."""


@dataclass(frozen=True)
class VolumeAugmenter:
    """A policy for volumes that has been checked; made by `volume_augmenter`.

    Attributes:
        policy: What is drawn from which range.
        spacing: Millimetres per voxel and axis.

    >>> policy = augmenter("mr", transforms={"brightness": {"shift": [0.1, 0.1]}}, probability=1.0)
    >>> augment = VolumeAugmenter(policy, (1.0, 1.0, 1.0))
    >>> [str(step) for step in augment.draw(np.random.default_rng(0))]
    ['brightness 0.1']
    """

    policy: Augmenter
    spacing: tuple[float, float, float]

    def __call__(
        self, array01: FloatArray, rng: np.random.Generator, mask: NDArray[np.generic] | None = None
    ) -> Augmented:
        """Return the volume, and its mask, after a drawn augmentation.

        Args:
            array01: `(C, I, J, K)` in [0, 1].
            rng: The same state gives the same result.
            mask: `(I, J, K)` labels or `(N, I, J, K)`, moved with the volume.

        Raises:
            MedtlError: When the volume is not 3D, not finite or not in [0, 1], or the mask is not
                on its grid.
        """
        check_unit(array01, axes=3)
        return self.apply(array01, self.draw(rng), mask)

    def draw(self, rng: np.random.Generator) -> tuple[Step, ...]:
        """Return the transforms of one volume, in the order in which they are applied.

        Args:
            rng: Advanced by what is drawn.
        """
        policy = self.policy
        steps = [
            Step(name, {})
            for name in policy.listed("orientation")
            if rng.random() < policy.probability
        ]
        if rng.random() < policy.probability:
            steps += [self._draw_warp(name, rng) for name in policy.listed("geometric")]
        return (*steps, *policy.draw_photometric(rng))

    def apply(
        self, array01: FloatArray, steps: Sequence[Step], mask: NDArray[np.generic] | None = None
    ) -> Augmented:
        """Return the volume, and its mask, after given steps: a history replayed.

        Args:
            array01: `(C, I, J, K)` in [0, 1].
            steps: As `draw` returned them.
            mask: `(I, J, K)` or `(N, I, J, K)` labels.

        Raises:
            MedtlError: As for a call.
        """
        check_unit(array01, axes=3)
        unit = array01.astype(np.float32)
        if mask is not None and mask.shape[-3:] != unit.shape[1:]:
            raise MedtlError(
                f"a mask of shape {mask.shape}", expected=f"(..., {str(unit.shape[1:])[1:-1]})"
            )
        unit, mask = self._move(unit, mask, steps)
        for step in steps:
            if kind_of(step.name) == "photometric":
                unit = _apply_intensity(step, unit)
        mask = None if mask is None else np.ascontiguousarray(mask)
        return Augmented(np.ascontiguousarray(unit), mask, tuple(steps))

    def describe(self) -> list[PolicyRow]:
        """Return the verdict on every transform for this modality, and whether it is used."""
        return self.policy.describe()

    def _draw_warp(self, name: str, rng: np.random.Generator) -> Step:
        """A geometric transform: rotations and shifts have one number per axis."""
        limits = self.policy.range_of(name)
        if name in ("rotate", "translate"):
            return Step(name, dict(zip("ijk", rng.uniform(*limits, size=3).tolist(), strict=True)))
        parameter = parameter_of(name)
        value = {parameter: draw_value(parameter, limits, rng)}
        return Step(name, {**value, "seed": draw_seed(rng)} if name == "elastic" else value)

    def _move(
        self, unit: Unit, mask: NDArray[np.generic] | None, steps: Sequence[Step]
    ) -> tuple[Unit, NDArray[np.generic] | None]:
        """Image and mask after all that moves voxels."""
        from monai.transforms.spatial.array import Resample

        drawn = {step.name: step.parameters for step in steps}
        for name, axis in FLIPPED_AXIS.items():
            if name in drawn:
                unit = np.flip(unit, axis + 1)
                mask = None if mask is None else np.flip(mask, axis - 3)
        if not WARPS & set(drawn):
            return unit, mask
        places = voxel_sources(drawn, unit.shape[1:], self.spacing)
        border = "zeros" if border_of(self.policy.modality) == "black" else "reflection"

        def sampled(array: NDArray[Any], how: str) -> NDArray[np.float32]:
            resample: Any = Resample(mode=how, padding_mode=border)
            return np.asarray(resample(array.astype(np.float32), places), dtype=np.float32)

        moved = np.clip(sampled(unit, "bilinear"), 0, 1)
        if mask is None:
            return moved, None
        labels = sampled(mask.reshape(-1, *unit.shape[1:]), "nearest")
        return moved, labels.astype(mask.dtype).reshape(mask.shape)


def volume_augmenter(
    modality: str,
    *,
    spacing: Sequence[float],
    transforms: Asked | None = None,
    probability: float = 0.5,
    i_know: Sequence[str] = (),
) -> VolumeAugmenter:
    """Return the augmentation of a modality's volumes: its SAFE transforms, or those asked for.

    Args:
        modality: One of `safety.modality_names()`.
        spacing: Millimetres per voxel and axis, of the grid the network sees.
        transforms: As for `augmenter`.
        probability: Of each part of the policy, in [0, 1].
        i_know: As for `augmenter`.

    Raises:
        MedtlError: The first of `policy_faults`, or for a transform that volumes do not have.

    >>> volume_augmenter("ct", spacing=(1, 1, 5)).spacing
    (1, 1, 5)
    >>> volume_augmenter("ct", spacing=(1, 1, 5), transforms={"crop": {}})
    Traceback (most recent call last):
    medtl.errors.MedtlError: augment.transforms: 'crop' is not made for volumes; expected ...
    """
    policy = augmenter(modality, transforms=transforms, probability=probability, i_know=i_know)
    possible = {*FLIPPED_AXIS, *WARPS, *ANY_SHAPE, *VOLUME_ONLY}
    for name in transforms or {}:
        if name not in possible:
            raise MedtlError(
                f"{name!r} is not made for volumes",
                expected=f"some of {', '.join(sorted(possible))}",
                where="augment.transforms",
                fix="Take it out; patches do what 'crop' does" if name == "crop" else "Take it out",
            )
    ranges = {name: limits for name, limits in policy.ranges.items() if name in possible}
    first, second, third = spacing
    return VolumeAugmenter(replace(policy, ranges=ranges), (first, second, third))


def forward_matrix(
    drawn: Mapping[str, Mapping[str, float]], shape: Sequence[int], spacing: Sequence[float]
) -> NDArray[np.float64]:
    """Return the `(4, 4)` map from a voxel to its new place, both counted from the centre.

    Scaled, then turned about the first, second and third axis in millimetres, then shifted.

    Args:
        drawn: Transform -> its numbers; others than "rotate", "translate", "scale" are ignored.
        shape: `(I, J, K)`; shifts are fractions of it.
        spacing: Millimetres per voxel and axis.

    >>> forward_matrix({"scale": {"factor": 2.0}}, (8, 8, 8), (1, 1, 5)).diagonal()
    array([2., 2., 2., 1.])
    """
    turned = np.eye(3) * drawn.get("scale", {}).get("factor", 1.0)
    for axis, letter in enumerate("ijk"):
        angle = np.deg2rad(drawn.get("rotate", {}).get(letter, 0.0))
        one, two = (other for other in range(3) if other != axis)
        rotation = np.eye(3)
        rotation[[one, two], [one, two]] = np.cos(angle)
        rotation[one, two], rotation[two, one] = -np.sin(angle), np.sin(angle)
        turned = rotation @ turned
    millimetres = np.diag(spacing)
    matrix = np.eye(4)
    matrix[:3, :3] = np.linalg.inv(millimetres) @ turned @ millimetres
    shift = [drawn.get("translate", {}).get(letter, 0.0) for letter in "ijk"]
    matrix[:3, 3] = np.array(shift) * shape
    return matrix


def voxel_sources(
    drawn: Mapping[str, Mapping[str, float]], shape: Sequence[int], spacing: Sequence[float]
) -> NDArray[np.float32]:
    """Return where each voxel of the moved volume comes from, `(3, I, J, K)` from the centre.

    Args:
        drawn: Transform -> its numbers, any of `WARPS`.
        shape: `(I, J, K)`.
        spacing: Millimetres per voxel and axis.

    >>> voxel_sources({"scale": {"factor": 2.0}}, (3, 3, 3), (1, 1, 1))[0, :, 0, 0]
    array([-0.5,  0. ,  0.5], dtype=float32)
    """
    axes = [np.arange(length) - (length - 1) / 2 for length in shape]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"))
    back = np.linalg.inv(forward_matrix(drawn, shape, spacing))
    places = np.tensordot(back[:3, :3], grid, 1) + back[:3, 3].reshape(3, 1, 1, 1)
    if "elastic" in drawn:
        amplitude, seed = drawn["elastic"]["amplitude"], int(drawn["elastic"]["seed"])
        sides = np.reshape(shape, (3, 1, 1, 1))
        places = places + amplitude * sides * _elastic_field(shape, seed)
    return np.asarray(places, dtype=np.float32)


def _elastic_field(shape: Sequence[int], seed: int) -> NDArray[np.float64]:
    """`(3, I, J, K)` smooth fields within [-1, 1] that vanish at the volume's faces."""
    from scipy.ndimage import zoom

    nodes = np.zeros((3, *(ELASTIC_NODES,) * 3))
    inner = (slice(2, -2),) * 3
    nodes[:, *inner] = np.random.default_rng(seed).uniform(-1, 1, nodes[:, *inner].shape)
    factors = [length / ELASTIC_NODES for length in shape]
    return np.stack([zoom(node, factors, order=3, prefilter=False) for node in nodes])


def _apply_intensity(step: Step, unit: Unit) -> Unit:
    """One photometric transform, in [0, 1]."""
    value = step.parameters.get(parameter_of(step.name), 0.0)
    seed = int(step.parameters["seed"])
    if step.name in ANY_SHAPE:
        return apply_photometric(step.name, unit, value, seed)
    import monai.transforms

    transform = VOLUME_ONLY[step.name](monai.transforms, value)
    if hasattr(transform, "set_random_state"):
        transform.set_random_state(seed=seed)
    return np.clip(np.asarray(transform(unit), dtype=np.float32), 0, 1)


def _bias_field(library: ModuleType, strength: float) -> Any:
    """A smooth field of about exp(+- strength)."""
    return library.RandBiasField(degree=3, coeff_range=(-strength / 2, strength / 2), prob=1.0)


def _low_resolution(library: ModuleType, factor: float) -> Any:
    """Fewer voxels, and back."""
    return library.RandSimulateLowResolution(prob=1.0, zoom_range=(factor, factor))


VOLUME_ONLY: dict[str, Callable[[ModuleType, float], Any]] = {
    "blur": lambda library, sigma: library.GaussianSmooth(sigma=sigma),
    "bias_field": _bias_field,
    "gibbs": lambda library, kept: library.GibbsNoise(alpha=1 - kept),
    "low_resolution": _low_resolution,
}
"""Name in the safety table -> MONAI's transform with that one value."""
