"""The safety table: complete, reasoned, and right where a mistake would hurt."""

from __future__ import annotations

from importlib import resources

import pytest
from ruamel.yaml import YAML

from medtl.errors import MedtlError
from medtl.preprocess.safety import (
    border_of,
    kind_of,
    modality_names,
    parameter_of,
    possible_of,
    safety,
    transform_names,
)
from medtl.recipe.schema import ImageSpec

CELLS = [(transform, modality) for transform in transform_names() for modality in modality_names()]


def test_the_table_knows_the_modalities_of_the_recipe() -> None:
    assert set(modality_names()) == set(ImageSpec.model_fields["modality"].annotation.__args__)


@pytest.mark.parametrize(("transform", "modality"), CELLS)
def test_every_cell_has_a_verdict_a_reason_and_sound_limits(transform: str, modality: str) -> None:
    verdict = safety(transform, modality)
    assert verdict.level in {"SAFE", "CAUTION", "UNSAFE"}
    assert len(verdict.reason) > 10
    assert all(low < high for low, high in verdict.limits.values())
    if verdict.level == "UNSAFE":
        assert not verdict.limits
    elif kind_of(transform) in {"geometric", "photometric"}:
        assert list(verdict.limits) == [parameter_of(transform)]
        low, high = verdict.limits[parameter_of(transform)]
        assert possible_of(transform)[0] <= low <= high <= possible_of(transform)[1]


def test_the_file_names_nothing_that_is_not_read() -> None:
    text = resources.files("medtl.preprocess").joinpath("safety.yaml").read_text(encoding="utf-8")
    data = YAML(typ="safe").load(text)
    for row in data["transforms"].values():
        assert set(row) <= {"kind", "parameter", "possible", "others", *modality_names()}
        for cell in set(row) - {"kind", "parameter", "possible"}:
            assert set(row[cell]) <= {"level", "reason", "limits"}


@pytest.mark.parametrize(
    ("transform", "modality", "level"),
    [
        ("horizontal_flip", "cxr", "UNSAFE"),
        ("horizontal_flip", "ct", "UNSAFE"),
        ("horizontal_flip", "derm", "SAFE"),
        ("vertical_flip", "us", "UNSAFE"),
        ("quarter_turn", "hand", "UNSAFE"),
        ("stretch", "cxr", "UNSAFE"),
        ("scale", "hand", "CAUTION"),
        ("elastic", "hand", "UNSAFE"),
        ("gamma", "ct", "UNSAFE"),
        ("hue", "cxr", "UNSAFE"),
        ("coarse_dropout", "cxr", "UNSAFE"),
        ("coarse_dropout", "derm", "CAUTION"),
        ("mixup", "hand", "UNSAFE"),
        ("invert", "cxr", "UNSAFE"),
        ("clahe", "fundus", "CAUTION"),
    ],
)
def test_verdicts_of_the_specification(transform: str, modality: str, level: str) -> None:
    assert safety(transform, modality).level == level


def test_limits_of_the_specification() -> None:
    assert safety("rotate", "cxr").limits == {"degrees": (-10, 10)}
    assert safety("scale", "hand").limits == {"factor": (0.95, 1.05)}
    assert safety("gamma", "cxr").limits == {"exponent": (0.8, 1.25)}
    assert safety("crop", "cxr").limits == {"area": (0.85, 1)}
    assert safety("hue", "derm").limits == {"shift": (-0.02, 0.02)}


def test_mirrored_borders_only_where_a_mirror_image_is_safe() -> None:
    for modality in modality_names():
        if border_of(modality) == "mirror":
            assert safety("horizontal_flip", modality).level == "SAFE"
            assert safety("vertical_flip", modality).level == "SAFE"


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(MedtlError, match=r"unknown transform 'rotat'.*Perhaps 'rotate' is meant"):
        safety("rotat", "cxr")
    with pytest.raises(MedtlError, match="unknown modality 'pet'; expected one of cxr, hand"):
        safety("rotate", "pet")
    with pytest.raises(MedtlError, match="unknown transform"):
        kind_of("zzz")
    with pytest.raises(MedtlError, match="unknown transform"):
        parameter_of("zzz")
    with pytest.raises(MedtlError, match="unknown modality"):
        border_of("zzz")
