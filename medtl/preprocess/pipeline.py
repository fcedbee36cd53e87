"""The intensity contract of a network: from an `Image` to what its weights expect.

Two halves with augmentation between them. `to_unit` is done once per image; its result is in [0, 1]
on the network's grid. `standardise` is done every time. A checkpoint carries the whole of it, and
`contract_mismatch` says what differs from what a recipe or a set of weights asks for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from medtl.errors import ImageError, MedtlError, WeightsError
from medtl.preprocess import intensity
from medtl.preprocess.geometry import Fit, Label, fit_mask, fit_to, plan_fit, unfit
from medtl.preprocess.superres import Superres
from medtl.types import BoolArray, FloatArray, Image

Scale = Literal["percentile", "min_max", "window"]
Standardisation = Literal["weights", "z_score", "pixel_mean", "local_contrast", "none"]

BESIDE = frozenset({"pixel_mean", "superres"})
"""Fields that `to_dict` writes in a way of their own."""

TOLERANCE = 1e-6
"""Relative difference below which two numbers of a contract are the same."""


@dataclass(frozen=True, eq=False)
class Preprocessor:
    """The way of an image to the network's input. All fields are plain values.

    Attributes:
        size: Shape of the network's grid; one number is a square.
        color: "grey" keeps one channel before `standardise`, "rgb" three.
        scale: How real-world values become [0, 1].
        percentiles: For "percentile": the two that become 0 and 1.
        nonzero: Take percentiles or range from the pixels that are not 0 (MR, collimated films).
        window: For "window": (centre, width) in real-world units.
        clahe: None, or (clip limit, tiles) of `intensity.clahe`.
        channels: Channels of the network's stem; one is repeated into three.
        standardisation: What comes after augmentation: the weights' own mean and std, or another
            one, which the weights must then have been trained with.
        mean, std: Of the weights, in units of `input_range`; one value, or one per channel.
        input_range: What 0 and 1 become before mean and std: (0, 1) for ImageNet weights,
            (-1024, 1024) for torchxrayvision.
        interpolation: Name of the resampling that the weights were trained with, for the record;
            this pipeline averages over area when shrinking whatever it says.
        superres: How an image of fewer pixels than the grid is enlarged; None is linear.
        local_contrast_sigma: For "local_contrast": width of the Gaussian in pixels.
        pixel_mean: For "pixel_mean": `(C, *size)` mean image of the training split, set by `fit`.
    """

    size: int | tuple[int, ...] = 224
    color: Literal["grey", "rgb"] = "grey"
    scale: Scale = "percentile"
    percentiles: tuple[float, float] = (0.5, 99.5)
    nonzero: bool = False
    window: tuple[float, float] | None = None
    clahe: tuple[float, int] | None = None
    channels: Literal[1, 3] = 3
    standardisation: Standardisation = "weights"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    input_range: tuple[float, float] = (0.0, 1.0)
    interpolation: str = ""
    superres: Superres | None = None
    local_contrast_sigma: float = 2.0
    pixel_mean: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        """Refuse fields that contradict each other."""
        require_window(self)
        if self.color == "rgb" and self.channels == 1:
            raise MedtlError("colour images into a stem of one channel", fix="Say color 'grey'")
        if not {len(self.mean), len(self.std)} <= {1, self.channels} or min(self.std) <= 0:
            raise MedtlError(
                f"mean {self.mean} and std {self.std} for {self.channels} channels",
                expected="one value for all channels or one each, std above 0",
            )
        if not self.input_range[0] < self.input_range[1]:
            raise MedtlError(f"input range {self.input_range}", expected="low below high")

    @property
    def grid_shape(self) -> tuple[int, ...]:
        """Spatial shape of the network's grid."""
        return (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)

    @property
    def unit_shape(self) -> tuple[int, ...]:
        """Shape of what `to_unit` returns."""
        return (3 if self.color == "rgb" else 1, *self.grid_shape)

    def grid(self, image: Image) -> Fit:
        """Return where an image lies on the grid, to bring a map back by `from_unit`.

        Args:
            image: `(C, *S)` with as many spatial axes as the grid.

        Raises:
            ImageError: When the image has another number of axes.
        """
        if image.array.ndim != len(self.unit_shape):
            raise ImageError(
                f"an image of {image.array.ndim - 1} dimensions", expected=f"{len(self.grid_shape)}"
            )
        return plan_fit(image.array.shape[1:], self.grid_shape, spacing=image.spacing)

    def to_unit(self, image: Image) -> NDArray[np.float32]:
        """Return the image in [0, 1] on the network's grid, before augmentation.

        Clipped at full resolution, resized, scaled, padded with 0, equalised if `clahe` says so.
        Scaling is linear between the clipped ends, so it is the same before and after averaging.

        Args:
            image: `(C, *S)` in real-world units, C 1 or 3.

        Returns:
            `unit_shape` float32 in [0, 1].

        Raises:
            ImageError: When channels or axes are wrong, or no pixel is finite.
        """
        self.grid(image)
        array = self._colored(image.array)
        ends = unit_limits(self, array, real_pixels(image))
        fitted = fit_to(
            array,
            self.grid_shape,
            spacing=image.spacing,
            fill=ends[0],
            clip=ends,
            resample=self.superres,
        )
        unit = intensity.ramp(fitted.array, *ends)
        return unit if self.clahe is None else intensity.clahe(unit, *self.clahe)

    def mask_to_unit(self, mask: NDArray[Label], image: Image) -> NDArray[Label]:
        """Return a mask of the image on the network's grid, nearest pixel, padded with 0.

        Args:
            mask: `(..., *S)` with S the image's shape.
            image: The image it belongs to.

        Raises:
            MedtlError: When the mask does not have the image's shape.
        """
        return fit_mask(mask, self.grid(image))

    def from_unit(self, probabilities: FloatArray, grid: Fit) -> NDArray[np.float32]:
        """Return maps on the network's grid (probabilities, a heat map) on the image's own pixels.

        Args:
            probabilities: `(K, *grid_shape)`.
            grid: What `grid` returned for the image.

        Returns:
            `(K, *S)` float32 with S the image's shape.

        Raises:
            MedtlError: When the maps do not have the grid's shape.
        """
        return unfit(probabilities, grid)

    def standardise(self, unit: FloatArray) -> NDArray[np.float32]:
        """Return what the weights expect, after augmentation.

        "z_score" and "local_contrast" take their statistics from the picture at hand, padding
        included.

        Args:
            unit: `unit_shape` in [0, 1].

        Returns:
            `(channels, *grid)` float32; a single channel is repeated.

        Raises:
            MedtlError: When "pixel_mean" has not been fitted, or was on another shape.
        """
        result = self._standardised(np.asarray(unit, dtype=np.float32))
        return np.repeat(result, self.channels, axis=0) if len(result) < self.channels else result

    def fit(self, units: Iterable[FloatArray]) -> Preprocessor:
        """Return this contract with its mean image; unchanged when it needs none.

        Args:
            units: What `to_unit` returned for the training split, and only for that.

        Raises:
            MedtlError: When there is no image, or one has another shape.
        """
        if self.standardisation != "pixel_mean":
            return self
        total = np.zeros(self.unit_shape)
        count = 0
        for count, unit in enumerate(units, start=1):  # noqa: B007  the last count is the number
            _check_unit_shape(unit.shape, self.unit_shape)
            total += unit
        if count == 0:
            raise MedtlError("no training image to take the mean of")
        return replace(self, pixel_mean=(total / count).astype(np.float32))

    def to_dict(self) -> dict[str, Any]:
        """The contract as JSON types; of the mean image only the hash, the array goes beside it."""
        names = [field.name for field in fields(self) if field.name not in BESIDE]
        values = {name: plain(getattr(self, name)) for name in names}
        if self.superres is not None:  # absent, it is the contract of a version that had none
            values["superres"] = asdict(self.superres)
        size, sha256 = list(self.grid_shape), _sha256(self.pixel_mean)
        return {**values, "size": size, "pixel_mean_sha256": sha256}

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], pixel_mean: NDArray[np.float32] | None = None
    ) -> Preprocessor:
        """Return the contract that `to_dict` wrote.

        Args:
            values: What `to_dict` returned, or what JSON made of it.
            pixel_mean: The mean image that belongs to it, if any.

        Raises:
            WeightsError: When keys are missing or unknown, or the mean image is another one.
        """
        known = {field.name for field in fields(cls)} - BESIDE | {"pixel_mean_sha256"}
        asked = values.get("superres")
        require_keys(values.keys() - {"superres"}, known)
        if values["pixel_mean_sha256"] != _sha256(pixel_mean):
            raise WeightsError("the mean image is not the one that the weights were trained with")
        rest = {name: tuples(values[name]) for name in known - {"pixel_mean_sha256"}}
        superres = None if asked is None else Superres(**asked)
        return cls(**rest, superres=superres, pixel_mean=pixel_mean)

    def contract_mismatch(self, expected: Mapping[str, Any]) -> list[str]:
        """Say in words where this contract differs from another; empty when it does not.

        Args:
            expected: `to_dict` of a checkpoint, or the part of it that pretrained weights fix
                (mean, std, input_range, channels). Keys it lacks are not compared.
        """
        ours = self.to_dict()
        faults = [f"unknown key {key!r}" for key in expected if key not in ours]
        return faults + [
            f"{key} is {ours[key]}, the weights need {plain(value)}"
            for key, value in expected.items()
            if key in ours and not _same(ours[key], plain(value))
        ]

    def require_contract(self, expected: Mapping[str, Any], *, where: str = "weights") -> None:
        """Refuse weights that need another preprocessing.

        Args:
            expected: As for `contract_mismatch`.
            where: Name of the weights, for the message.

        Raises:
            WeightsError: With every difference.
        """
        faults = self.contract_mismatch(expected)
        if faults:
            fix = "Set the image section of the recipe to what the weights need, or choose others"
            raise WeightsError("; ".join(faults), where=where, fix=fix)

    def _colored(self, array: FloatArray) -> FloatArray:
        """The image with the channels of a unit image."""
        wanted = self.unit_shape[0]
        if len(array) == wanted:
            return array
        if {len(array), wanted} != {1, 3}:
            raise ImageError(f"an image of {len(array)} channels", expected="1 or 3")
        if wanted == 3:
            return np.repeat(array, 3, axis=0)
        return np.tensordot(intensity.LUMINANCE, array, 1)[None]

    def _standardised(self, unit: NDArray[np.float32]) -> NDArray[np.float32]:
        """The chosen standardisation, before channels are repeated (except by the weights')."""
        if self.standardisation == "weights":
            low, high = self.input_range
            mean, std = (_per_channel(values, unit.ndim) for values in (self.mean, self.std))
            return (unit * np.float32(high - low) + np.float32(low) - mean) / std
        if self.standardisation == "z_score":
            return intensity.z_score(unit)
        if self.standardisation == "local_contrast":
            return intensity.local_contrast(unit, sigma=self.local_contrast_sigma)
        if self.standardisation == "pixel_mean":
            return unit - self._fitted_mean(unit.shape)
        return unit.copy()

    def _fitted_mean(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The mean image, of the shape at hand."""
        if self.pixel_mean is None:
            raise MedtlError("the mean image has not been fitted", fix="Fit it on the train split")
        _check_unit_shape(shape, self.pixel_mean.shape)
        return self.pixel_mean


class Scaling(Protocol):
    """The scaling of real-world values to [0, 1]: fields that both preprocessors have."""

    @property
    def scale(self) -> Scale: ...  # noqa: D102
    @property
    def percentiles(self) -> tuple[float, float]: ...  # noqa: D102
    @property
    def nonzero(self) -> bool: ...  # noqa: D102
    @property
    def window(self) -> tuple[float, float] | None: ...  # noqa: D102


def unit_limits(
    scaling: Scaling, array: FloatArray, real: BoolArray | None = None
) -> tuple[float, float]:
    """Return the real-world values that become 0 and 1, by the pixels that are real.

    Args:
        scaling: A preprocessor.
        array: `(C, *S)` of channels that belong together.
        real: `(*S)` False where pixels only pad the image, None when none do.

    Raises:
        ImageError: When no pixel is finite.

    >>> array = np.array([[0.0, 10.0, 20.0]])
    >>> unit_limits(Preprocessor(scale="min_max"), array)
    (0.0, 20.0)
    >>> unit_limits(Preprocessor(scale="min_max", nonzero=True), array)
    (10.0, 20.0)
    """
    if scaling.window is not None:
        return intensity.window_limits(*scaling.window)
    mask = real
    if scaling.nonzero:
        filled = (array != 0).any(axis=0)
        mask = filled if real is None else filled & real
    if mask is not None and not mask.any():
        mask = None  # nothing but background: a constant image like any other
    low, high = scaling.percentiles if scaling.scale == "percentile" else (0.0, 100.0)
    return intensity.percentile_limits(array, low, high, mask=mask)


def require_window(scaling: Scaling) -> None:
    """Refuse a window without its scale, or the other way round.

    >>> require_window(Preprocessor(scale="window", window=(40.0, 400.0)))
    """
    if (scaling.scale == "window") != (scaling.window is not None):
        raise MedtlError(
            f"scale {scaling.scale!r} with window {scaling.window}",
            fix="Give a window, and scale 'window' with it",
        )


def require_keys(found: Collection[str], known: Collection[str]) -> None:
    """Refuse a stored contract with other keys than this version's.

    >>> require_keys(["size"], ["size", "scale"])
    Traceback (most recent call last):
    medtl.errors.WeightsError: preprocessing keys missing or unknown: scale. The checkpoint ...
    """
    if odd := sorted(set(found) ^ set(known)):
        raise WeightsError(
            f"preprocessing keys missing or unknown: {', '.join(odd)}",
            fix="The checkpoint was written by another version of medtl; train again or install "
            "that",
        )


def real_pixels(image: Image) -> BoolArray | None:
    """`(*S)` False on the pixels that only pad the image (0028,0120), None when there are none.

    >>> padded = Image(np.array([[[-3.0, 0.0, 5.0]]], np.float32), header={"padding_value": "-3.0"})
    >>> real_pixels(padded)
    array([[False,  True,  True]])
    """
    padding = image.header.get("padding_value")
    return None if padding is None else (image.array != np.float32(padding)).any(axis=0)


def _check_unit_shape(found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Refuse an image that the mean image was not, or could not be, fitted on."""
    if found != expected:
        raise MedtlError(
            f"a unit image of shape {found}",
            expected=f"{expected}, that of the mean image",
            fix="Fit again after changing image.size",
        )


def _per_channel(values: tuple[float, ...], axes: int) -> NDArray[np.float32]:
    """Numbers per channel, shaped to broadcast over `(C, *S)`."""
    return np.array(values, dtype=np.float32).reshape(-1, *(1,) * (axes - 1))


def plain(value: Any) -> Any:
    """Return tuples as lists, as JSON has them.

    >>> plain((1, (2.0, None)))
    [1, [2.0, None]]
    """
    return [plain(part) for part in value] if isinstance(value, tuple | list) else value


def tuples(value: Any) -> Any:
    """Return a list as a tuple, as the fields have them.

    >>> tuples([0.5, 99.5]), tuples("weights")
    ((0.5, 99.5), 'weights')
    """
    return tuple(value) if isinstance(value, list) else value


def _same(ours: Any, theirs: Any) -> bool:
    """Equal, up to rounding, with one value standing for all channels."""
    if not (isinstance(ours, list) and isinstance(theirs, list)):
        return bool(ours == theirs)
    if len(ours) != len(theirs) and 1 not in (len(ours), len(theirs)):
        return False
    return bool(np.allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE))


def _sha256(array: NDArray[np.float32] | None) -> str:
    """Hash of an array's values and shape; "" for none."""
    if array is None:
        return ""
    values = np.ascontiguousarray(array, dtype="<f4")
    return hashlib.sha256(str(values.shape).encode() + values.tobytes()).hexdigest()
