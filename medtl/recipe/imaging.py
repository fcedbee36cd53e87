"""The section `image` of a recipe: from a file to what the network sees."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from medtl.preprocess.superres import Superres
from medtl.recipe.section import FromMapping, Section
from medtl.types import Positive

Side = Annotated[int, Field(ge=8, le=512)]
Pixels = Annotated[int, Field(ge=32, le=2048)]


class Clahe(Section):
    """Contrast-limited adaptive histogram equalisation, on full precision."""

    clip_limit: Positive = Field(2.0, description="above it, contrast is cut off; 1 changes little")
    tiles: Annotated[int, Field(ge=1, le=64)] = Field(8, description="per side")


class ImageSpec(Section):
    """From a file to what the network sees."""

    modality: Literal["cxr", "hand", "ct", "mr", "fundus", "derm", "histology", "us"] = Field(
        description="of the images, for intensity and safe augmentation"
    )
    size: Pixels | tuple[Pixels, Pixels] = Field(
        224, description="planes: pixels a side of what the network sees, or [height, width]"
    )
    spacing: tuple[Positive, Positive, Positive] | None = Field(
        None, description="volumes: mm per voxel to resample to; makes the study one of volumes"
    )
    patch: tuple[Side, Side, Side] | None = Field(
        None, description="volumes: shape of training patches and of windows, in voxels"
    )
    scale: Literal["percentile", "min_max", "window", "voi"] | None = Field(
        None, description="real-world values to [0, 1]; ct: window, else percentile"
    )
    window: str | tuple[float, Positive] | None = Field(
        None, description="a preset ('lung') or [centre, width] in real-world units"
    )
    percentiles: tuple[float, float] = Field(
        (0.5, 99.5), description="scale percentile: what becomes 0 and 1, in %"
    )
    decode: Literal["whole", "reduced"] = Field(
        "whole", description="reduced: JPEG 2000 and JPEG at about twice the size; docs/speed.md"
    )
    clahe: Clahe | None = Field(None, description="equalise the contrast of planes locally")
    superres: Annotated[Superres, FromMapping()] | None = Field(
        None, description="how planes of fewer pixels than size are enlarged; null is linear"
    )
    standardise: Literal["weights", "z_score", "pixel_mean", "local_contrast", "none"] = Field(
        "weights",
        description="weights: with the mean and standard deviation that these were trained on",
    )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what the network sees while it trains: of a plane, or of a patch."""
        if self.patch is not None:
            return self.patch
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @field_validator("percentiles")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] < value[1] <= 100:
            msg = "state [low, high] with 0 <= low < high <= 100"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _enlarged_is_not_reduced(self) -> ImageSpec:
        if self.superres is None:
            return self
        if self.spacing is not None:
            msg = "superres is of planes; voxels are resampled to spacing: leave it out"
            raise ValueError(msg)
        limit, longest = self.superres.at_most, max(self.shape)
        if limit is not None and limit >= longest:
            msg = f"superres.at_most {limit} and size {longest}: what is enlarged would be reduced "
            msg += "again; state a larger size, or leave superres out"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _window_is_stated(self) -> ImageSpec:
        if self.scale == "window" and self.window is None:
            msg = "scale 'window' needs image.window, a preset or [centre, width]"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _volumes_have_patches(self) -> ImageSpec:
        if (self.spacing is None) != (self.patch is None):
            msg = "volumes need both spacing (mm) and patch (voxels)"
            raise ValueError(msg)
        if self.spacing is not None and self.decode == "reduced":
            msg = "slices of a volume are decoded whole; leave decode out"
            raise ValueError(msg)
        if self.spacing is not None and self.standardise in ("pixel_mean", "local_contrast"):
            msg = f"volumes cannot be standardised by {self.standardise}; state z_score or none"
            raise ValueError(msg)
        return self
