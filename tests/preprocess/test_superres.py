"""Enlargement by a kernel, and what is said where it does nothing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as Picture
from tiny_study import write_tiny_study

from medtl.errors import RecipeError
from medtl.preprocess.geometry import resize_clipped
from medtl.preprocess.pipeline import Preprocessor
from medtl.preprocess.superres import Superres, enlarged, in_vain
from medtl.run.chain import run_study
from medtl.run.check import read_recipe
from medtl.run.prepare import read_study
from medtl.types import Image

RNG = np.random.default_rng(0)
PILLOW = {"bicubic": Picture.Resampling.BICUBIC, "lanczos": Picture.Resampling.LANCZOS}


@pytest.mark.parametrize("method", ["bicubic", "lanczos"])
@pytest.mark.parametrize("shape", [(22, 26), (11, 30), (17, 13)])
def test_it_is_what_pillow_does(method, shape):
    image = RNG.random((11, 13)).astype(np.float32)
    ours = enlarged(enlarged(image, 0, shape[0], method), 1, shape[1], method)
    theirs = Picture.fromarray(image).resize(shape[::-1], PILLOW[method])
    np.testing.assert_allclose(ours, np.asarray(theirs), atol=1e-5)
    other = enlarged(enlarged(image, 0, shape[0], "bicubic"), 1, shape[1], "bicubic")
    assert np.array_equal(ours, other) == (method == "bicubic")


def test_a_quadratic_is_met_exactly_away_from_the_edges():
    """Keys 1981: the cubic kernel of -1/2 is exact for second-degree polynomials."""
    place = np.arange(12.0)
    image = (place**2 - 3 * place)[None]
    found = enlarged(image, 1, 24, "bicubic")[0, 6:18]
    where = (np.arange(24) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(found, (where**2 - 3 * where)[6:18], rtol=1e-5, atol=1e-4)


def test_values_stay_between_the_ends():
    step = np.array([[[0.0, 0.0, 1.0, 1.0]]])
    beyond = enlarged(step, 2, 16, "lanczos")
    assert beyond.max() > 1
    found = Superres("lanczos")(step, (1, 16), 0.0, 1.0)
    assert (found.min(), found.max()) == (0.0, 1.0)


def test_what_has_pixels_enough_is_averaged_as_ever():
    image = RNG.random((1, 40, 50)).astype(np.float32)
    expected = resize_clipped(image, (20, 25), 0.0, 1.0)
    assert np.array_equal(Superres()(image, (20, 25), 0.0, 1.0), expected)
    limited = Superres(at_most=10)(image, (20, 25), 0.0, 1.0)
    assert not np.allclose(limited, expected)
    small = resize_clipped(image, (8, 10), 0.0, 1.0)
    np.testing.assert_array_equal(limited, Superres()(small, (20, 25), 0.0, 1.0))


def test_an_image_lies_where_it_lay_without():
    """Padding, and so masks and heat maps, do not move."""
    image = Image(1 + RNG.random((1, 30, 41)).astype(np.float32), spacing=(1.0, 1.0))
    plain, finer = Preprocessor(size=64), Preprocessor(size=64, superres=Superres(at_most=16))
    assert plain.grid(image) == finer.grid(image)
    filled = [p.to_unit(image)[plain.grid(image).inside].shape for p in (plain, finer)]
    assert filled[0] == filled[1]
    outside = np.ones((1, 64, 64), bool)
    outside[plain.grid(image).inside] = False
    assert (finer.to_unit(image)[outside] == 0).all()


def test_a_contract_comes_back_and_those_of_before_have_none():
    asked = Preprocessor(size=64, superres=Superres("lanczos", 16))
    assert Preprocessor.from_dict(asked.to_dict()).superres == Superres("lanczos", 16)
    assert "superres" not in Preprocessor(size=64).to_dict()
    assert Preprocessor.from_dict(Preprocessor(size=64).to_dict()).superres is None


def test_what_is_said_of_images_of_many_pixels():
    assert in_vain([20, 30], Superres(), 64) is None
    assert in_vain([64, 30], Superres(), 64).startswith("image.superres: 1 of 2 images have 64")
    assert "reduced before they are enlarged to 64" in in_vain([64, 30], Superres(at_most=32), 64)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Images of 40 pixels."""
    return write_tiny_study(tmp_path_factory.mktemp("study") / "data", patients=12)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (["image.size=32", "image.superres={at_most: 32}"], "what is enlarged would be reduced"),
        (["image.superres={at_most: 0}"], "at_most"),
        (["image.superres={method: nearest}"], "bicubic"),
        (
            ["image.superres={}", "image.spacing=[1,1,1]", "image.patch=[32,32,32]"],
            "superres is of planes",
        ),
    ],
)
def test_what_would_do_nothing_is_refused(study, changes, reason):
    with pytest.raises(RecipeError, match=reason):
        read_recipe(study, changes)


def test_a_run_says_when_its_images_have_pixels_enough(study, tmp_path):
    reduced = read_recipe(study, ["image.size=32", "image.superres={}"])
    said = "\n".join(read_study(reduced).manifest.notes)
    assert "images have 32 pixels or more already: nothing of them is enlarged" in said
    recipe = read_recipe(
        study, ["image.size=64", "image.superres={at_most: 48}", "finetune.stages.1.epochs=1"]
    )
    run = run_study(recipe, tmp_path / "run")
    assert not any("superres" in note for note in run.cohort["notes"])
    units = [p.to_unit(Image(RNG.random((1, 40, 40)).astype(np.float32)))
             for p in (run.trained.reader.preprocessor,)]  # fmt: skip
    assert units[0].shape == (1, 64, 64)
    assert run.trained.reader.preprocessor.superres == Superres(at_most=48)
