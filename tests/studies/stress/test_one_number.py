"""The mean corruption error, and the share of shape among answers: by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medtl.errors import PredictionsError, RunError
from medtl.studies.stress.changed import Row
from medtl.studies.stress.corruption_error import mean_corruption_error
from medtl.studies.stress.cues import shape_share
from medtl.types import Measure


def row(name, level, value, *, measure="auroc", family="corruptions", n=10):
    found = Measure(measure, value, n=n)
    return Row(family, name, level, float(level), "pneumonia", found, None)


def stored(folder, rows):
    """A folder of a stress test that found these rows."""
    folder.mkdir()
    content = [
        {
            "family": one.family,
            "name": one.name,
            "label": one.label,
            "reaches": {"name": one.reaches.name, "value": one.reaches.value, "n": one.reaches.n},
        }
        for one in rows
    ]
    (folder / "robustness.json").write_text(json.dumps({"rows": content}))
    return folder


def test_the_mean_corruption_error_by_hand(tmp_path):
    own = [row("clean", 0, 0.9, family="clean"), row("noise", 1, 0.8), row("noise", 2, 0.6)]
    own += [row("blur", 1, 0.9), row("edges", 1, 0.5, family="probes")]
    other = [row("noise", 1, 0.7), row("noise", 2, 0.5), row("blur", 1, 0.8)]
    found = mean_corruption_error(own, stored(tmp_path / "plain", other))
    expected = {"noise": 100 * 0.6 / 0.8, "blur": 50.0}
    assert found["pneumonia"] == pytest.approx({"mean": 62.5, **expected})
    same = mean_corruption_error(other, tmp_path / "plain")
    assert same["pneumonia"]["mean"] == pytest.approx(100)


def test_an_error_in_months_is_taken_as_it_is(tmp_path):
    own, other = ([row("noise", 1, value, measure="mae_months")] for value in (6.0, 12.0))
    assert mean_corruption_error(own, stored(tmp_path / "a", other))["pneumonia"]["mean"] == 50


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ([row("blur", 1, 0.5)], "has other labels, corruptions or numbers of images"),
        ([row("noise", 1, 0.5, n=9)], "has other labels, corruptions or numbers of images"),
        ([row("noise", 1, 1.0)], "makes no error under noise"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, other, reason):
    with pytest.raises(RunError, match=reason):
        mean_corruption_error([row("noise", 1, 0.8)], stored(tmp_path / "other", other))


# ------------------------------------------------------------------ which of two cues


def conflict(shape, texture):
    """A picture of a square or a cross, filled with lines along or across."""
    inside = np.zeros((32, 32), bool)
    if shape == "square":
        inside[8:24, 8:24] = True
    else:
        inside[13:19, 4:28] = inside[4:28, 13:19] = True
    lines = np.indices((32, 32))[0 if texture == "square" else 1] % 4 < 2
    return np.where(inside, 0.3 + 0.7 * lines, 0.0)


def by_shape(image):
    """The rule of a model that sees the outline: does the middle of a side belong to the object."""
    return "cross" if image[5, 14:18].any() else "square"


def by_texture(image):
    """The rule of a model that sees the lines: do rows or columns differ."""
    inside = image[14:18, 14:18]
    return "square" if np.ptp(inside.mean(1)) > np.ptp(inside.mean(0)) else "cross"


@pytest.mark.parametrize(("rule", "expected"), [(by_shape, 1.0), (by_texture, 0.0)])
def test_a_made_set_of_images_tells_two_rules_apart(rule, expected):
    shapes = ["square", "cross"] * 10
    textures = ["cross", "square"] * 10
    images = [conflict(*pair) for pair in zip(shapes, textures, strict=True)]
    assert by_shape(conflict("square", "square")) == by_texture(conflict("square", "square"))
    assert shape_share([rule(image) for image in images], shapes, textures).value == expected


def test_answers_by_neither_cue_count_nowhere_and_patients_widen():
    answers = ["a", "b", "x", "a"]
    one = shape_share(answers, ["a", "a", "a", "a"], ["b", "b", "b", "c"])
    assert (one.value, one.n) == (2 / 3, 3)
    grouped = shape_share(answers, ["a"] * 4, ["b", "b", "b", "c"], patients=["p", "p", "q", "q"])
    assert grouped.n_patients == 2


def test_cues_that_agree_or_are_missing_are_refused():
    with pytest.raises(PredictionsError, match="1 images have shape and texture of one class"):
        shape_share(["a"], ["a"], ["a"])
    with pytest.raises(PredictionsError, match="answers, shapes, textures and patients"):
        shape_share(["a", "b"], ["a"], ["b"])
