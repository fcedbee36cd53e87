"""Features are standardised by the training vectors alone, and the checkpoint carries how."""

from __future__ import annotations

import numpy as np
import pytest

from medtl.errors import ImageError, MedtlError, WeightsError
from medtl.preprocess.feature_scaler import FeatureScaler
from medtl.types import Image

UNITS = [np.array([[1.0, 7.0]]), np.array([[3.0, 7.0]]), np.array([[8.0, 7.0]])]


def test_mean_and_sd_are_those_of_training():
    scaler = FeatureScaler().fit(UNITS)
    # By hand: mean 4, squares of 3, 1 and 4 over 3, root of 26 / 3; a constant keeps its distance.
    expected = [[(10 - 4) / (26 / 3) ** 0.5, -2.0]]
    np.testing.assert_allclose(scaler.standardise(np.array([[10.0, 5.0]])), expected, rtol=1e-6)


def test_a_checkpoint_carries_it():
    scaler = FeatureScaler().fit(UNITS)
    again = FeatureScaler.from_dict(scaler.to_dict(), scaler.moments)
    assert np.array_equal(again.standardise(UNITS[0]), scaler.standardise(UNITS[0]))


def test_moments_of_other_features_are_refused():
    with pytest.raises(WeightsError, match="moments of 2 features"):
        FeatureScaler.from_dict({"features": 3}, FeatureScaler().fit(UNITS).moments)


def test_vectors_of_another_network_are_refused():
    with pytest.raises(ImageError, match=r"3 features.*2, as in training"):
        FeatureScaler().fit(UNITS).to_unit(Image(np.zeros((1, 3), np.float32)))


def test_nothing_is_standardised_before_it_was_fitted():
    with pytest.raises(MedtlError, match="have not been fitted"):
        FeatureScaler().standardise(UNITS[0])


@pytest.mark.parametrize(
    ("units", "found"),
    [([], "no training vector"), ([UNITS[0], np.zeros((1, 3))], "vectors of 2, 3 features")],
)
def test_training_needs_vectors_of_one_length(units, found):
    with pytest.raises(MedtlError, match=found):
        FeatureScaler().fit(units)
