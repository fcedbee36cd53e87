"""Images that are no squares: `image.size: [height, width]`, from the recipe to the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medtl.errors import RecipeError
from medtl.export.objects import _decoded_at
from medtl.recipe.schema import parse_recipe
from medtl.run.build import build_contract, build_network, build_reader
from medtl.types import Image

STUDY = {
    "study": {"question": "Is there a nodule?"},
    "data": {"manifest": "m.csv", "target": "nodule"},
}


def recipe(size: object, backbone: str = "test_resnet", **image: object):
    model = {"backbone": backbone, "weights": {"source": "none", "random_features": True}}
    seen = {"modality": "cxr", "size": size, **image}
    return parse_recipe({**STUDY, "image": seen, "model": model})


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "swin_tiny_patch4_window7_224"])
def test_network_and_images_have_the_shape_that_is_stated(backbone):
    stated = recipe([64, 96], backbone)
    reader = build_reader(stated, build_contract(stated), None)
    assert reader.preprocessor.grid_shape == (64, 96)
    film = Image(np.random.default_rng(0).random((1, 50, 90)).astype(np.float32))
    seen = reader.preprocessor.standardise(reader.preprocessor.to_unit(film))
    assert seen.shape == (3, 64, 96)
    model, _ = build_network(stated, 1)
    with torch.no_grad():
        assert model.eval()(torch.from_numpy(seen)[None]).shape == (1, 1)


def test_a_film_is_not_stretched():
    """A square in the middle of a wide film stays one; what is left over is padded."""
    stated = recipe([64, 128], scale="min_max", standardise="none")
    film = np.zeros((1, 100, 100), np.float32)
    film[:, 30:70, 30:70] = 1
    unit = build_reader(stated, build_contract(stated), None).preprocessor.to_unit(Image(film))
    rows, columns = (np.flatnonzero((unit[0] > 0.5).any(axis=axis)) for axis in (1, 0))
    assert len(rows) == len(columns) == pytest.approx(0.4 * 64, abs=1)
    assert columns.mean() == pytest.approx(63.5, abs=0.6)


def test_one_number_is_a_square_as_before():
    square, stated = recipe(64), recipe([64, 64])
    assert square.image.shape == stated.image.shape == (64, 64)
    assert square.to_dict()["image"]["size"] == 64
    assert recipe([64, 96]).to_dict()["image"]["size"] == [64, 96]
    assert parse_recipe(recipe([64, 96]).to_dict()) == recipe([64, 96])


@pytest.mark.parametrize("size", [[64], [64, 16], [64, 96, 3], "64x96", 16])
def test_a_size_that_is_none_is_one_fault_of_one_key(size):
    with pytest.raises(RecipeError) as said:
        recipe(size)
    assert {fault.where for fault in said.value.faults} <= {"image.size", "image.size.1"}


def test_reduced_decoding_follows_the_longer_side():
    stated = recipe([64, 96], decode="reduced")
    assert build_reader(stated, build_contract(stated), None).at_least == 192
    assert _decoded_at(stated.to_dict()["image"]) == 192
    assert _decoded_at({"size": 64, "decode": "reduced"}) == 128
    assert _decoded_at({"size": 64}) is None
