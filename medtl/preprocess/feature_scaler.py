"""From vectors of features to what the head is given: each feature to mean 0 and sd 1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtl.errors import ImageError, MedtlError, WeightsError
from medtl.preprocess.pipeline import require_keys
from medtl.types import FloatArray, Image

Vectors = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FeatureScaler:
    """Mean and standard deviation of each feature over the training vectors.

    It stands where a `Preprocessor` does for images.

    Attributes:
        moments: `(2, features)`, means and standard deviations, set by `fit`; a feature that never
            changes has 1.

    Example:
        >>> scaler = FeatureScaler().fit([np.array([[1.0, 5.0]]), np.array([[3.0, 5.0]])])
        >>> scaler.standardise(np.array([[3.0, 6.0]]))
        array([[1., 1.]], dtype=float32)
    """

    moments: Vectors | None = None

    @property
    def features(self) -> int:
        """Numbers of a vector; 0 before `fit`."""
        return 0 if self.moments is None else self.moments.shape[1]

    def to_unit(self, image: Image) -> Vectors:
        """Return the vector as it is, `(1, features)`.

        Raises:
            ImageError: When it has another length than those of training.
        """
        if self.features and image.array.shape[-1] != self.features:
            raise ImageError(
                f"{image.array.shape[-1]} features",
                expected=f"{self.features}, as in training",
                fix="Take the vectors of the network that made those of training",
            )
        return np.asarray(image.array, dtype=np.float32)

    def standardise(self, unit: FloatArray) -> Vectors:
        """Return the vector with each feature as it differs from the training vectors.

        Raises:
            MedtlError: When there were none yet.
        """
        if self.moments is None:
            raise MedtlError("the features have not been fitted", fix="Fit them on the train split")
        return np.asarray((unit - self.moments[0]) / self.moments[1], dtype=np.float32)

    def fit(self, units: Iterable[FloatArray]) -> FeatureScaler:
        """Return the scaler of the training vectors, and only of those.

        Raises:
            MedtlError: When there is none, or they differ in length.
        """
        vectors = [unit[0] for unit in units]
        lengths = {len(vector) for vector in vectors}
        if len(lengths) != 1:
            found = f"vectors of {', '.join(map(str, sorted(lengths)))} features" if lengths else ""
            raise MedtlError(
                found or "no training vector", expected="vectors of one length, of one network"
            )
        table = np.asarray(vectors, dtype=np.float64)
        sd = table.std(axis=0)
        return FeatureScaler(np.stack([table.mean(axis=0), np.where(sd > 0, sd, 1.0)]).astype("f4"))

    def to_dict(self) -> dict[str, Any]:
        """What a checkpoint says of it, beside the moments themselves."""
        return {"features": self.features}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], moments: Vectors | None) -> FeatureScaler:
        """Return the scaler that `to_dict` wrote.

        Raises:
            WeightsError: When keys are missing or unknown, or the moments are of other features.
        """
        require_keys(values, {"features"})
        scaler = cls(moments)
        if scaler.features != values["features"]:
            raise WeightsError(f"moments of {scaler.features} features", expected=str(values))
        return scaler
