"""Moving a picture: flips, turns and warps. A mask follows its image exactly.

Warps become sampling coordinates, so any number of them costs one interpolation. Pictures are
`(C, H, W)`; angles are in degrees, anticlockwise on the screen; lengths are fractions of the
picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from medtl.preprocess.safety import Border

Unit = NDArray[np.float32]
Coordinates = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Row and column of the source for every pixel of the result, each `(H, W)`."""
Parameters = Mapping[str, Mapping[str, float]]
"""Transform -> its drawn numbers."""
Label = TypeVar("Label", bound=np.generic)

ELASTIC_NODES = 7
"""Nodes of the elastic grid along each side; the outermost do not move."""


def turn(array: NDArray[Label], name: str, parameters: Mapping[str, float]) -> NDArray[Label]:
    """Return a flipped or turned array, without interpolation.

    Args:
        array: `(..., H, W)`, image or mask.
        name: "horizontal_flip", "vertical_flip" or "quarter_turn".
        parameters: For "quarter_turn" `turns`, anticlockwise.

    >>> turn(np.array([[1, 2], [3, 4]]), "horizontal_flip", {})
    array([[2, 1],
           [4, 3]])
    """
    if name == "horizontal_flip":
        return array[..., ::-1]
    if name == "vertical_flip":
        return array[..., ::-1, :]
    return np.rot90(array, int(parameters["turns"]), axes=(-2, -1))


def linear_part(parameters: Parameters) -> NDArray[np.float64]:
    """Return the 2 x 2 matrix on (row, column): scale and stretch, then shear, then rotation.

    Args:
        parameters: The drawn affine transforms; others are ignored.

    >>> linear_part({"scale": {"factor": 2.0}})
    array([[2., 0.],
           [0., 2.]])
    """
    angle = np.deg2rad(parameters.get("rotate", {}).get("degrees", 0.0))
    shear = np.tan(np.deg2rad(parameters.get("shear", {}).get("degrees", 0.0)))
    stretch = parameters.get("stretch", {}).get("factor", 1.0)
    scale = parameters.get("scale", {}).get("factor", 1.0)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    sheared = np.array([[1.0, 0.0], [shear, 1.0]]) @ np.diag([stretch * scale, scale])
    return np.asarray(rotation @ sheared)


def warp_coordinates(parameters: Parameters, shape: tuple[int, int]) -> Coordinates:
    """Return where each pixel of the warped picture comes from, about the picture's centre.

    Args:
        parameters: The drawn geometric transforms; any subset, in any order.
        shape: `(H, W)` of the picture.

    >>> rows, columns = warp_coordinates({"translate": {"rows": 0.5, "columns": 0.0}}, (2, 2))
    >>> rows
    array([[-1., -1.],
           [ 0.,  0.]], dtype=float32)
    """
    size = np.array(shape, dtype=np.float64)
    move = parameters.get("translate", {})
    crop = parameters.get("crop", {})
    side = np.sqrt(crop.get("area", 1.0))
    shift = np.array([move.get("rows", 0.0), move.get("columns", 0.0)]) * size
    place = np.array([crop.get("row", 0.0), crop.get("column", 0.0)]) * (1 - side) / 2 * size
    back = np.linalg.inv(linear_part(parameters))
    center = (size - 1) / 2
    # result -> the cropped window -> before the shift -> before rotation and scale
    row, column = (np.arange(length) - middle for length, middle in zip(shape, center, strict=True))
    row = row * side + place[0] - shift[0]
    column = column * side + place[1] - shift[1]
    rows = back[0, 0] * row[:, None] + back[0, 1] * column + center[0]
    columns = back[1, 0] * row[:, None] + back[1, 1] * column + center[1]
    if "elastic" in parameters:
        bend = _elastic_field(shape, int(parameters["elastic"]["seed"]))
        rows = rows + bend[0] * parameters["elastic"]["amplitude"] * shape[0]
        columns = columns + bend[1] * parameters["elastic"]["amplitude"] * shape[1]
    return rows.astype(np.float32), columns.astype(np.float32)


def warp(unit: Unit, coordinates: Coordinates, border: Border) -> Unit:
    """Return the image sampled linearly at the coordinates.

    Args:
        unit: `(C, H, W)` in [0, 1].
        coordinates: Where each pixel comes from.
        border: What lies outside: 0, or the mirrored picture.

    >>> coordinates = warp_coordinates({"translate": {"rows": 0.0, "columns": 0.5}}, (1, 2))
    >>> warp(np.array([[[0.25, 0.75]]], np.float32), coordinates, "black")
    array([[[0.  , 0.25]]], dtype=float32)
    """
    import cv2

    mode = cv2.BORDER_REFLECT_101 if border == "mirror" else cv2.BORDER_CONSTANT
    rows, columns = coordinates
    planes = [
        cv2.remap(plane, columns, rows, cv2.INTER_LINEAR, borderMode=mode, borderValue=0)
        for plane in np.ascontiguousarray(unit)
    ]
    return np.stack(planes)


def warp_mask(mask: NDArray[Label], coordinates: Coordinates, border: Border) -> NDArray[Label]:
    """Return the mask sampled at the nearest pixel; labels unchanged.

    Args:
        mask: `(..., H, W)`.
        coordinates: Where each pixel comes from.
        border: What lies outside: label 0, or the mirrored mask.

    >>> coordinates = warp_coordinates({"translate": {"rows": 0.0, "columns": 0.5}}, (1, 2))
    >>> warp_mask(np.array([[1, 2]]), coordinates, "black")
    array([[0, 1]])
    """
    sizes = mask.shape[-2:]
    places = [np.rint(part).astype(np.int64) for part in coordinates]
    if border == "mirror":
        rows, columns = (_mirrored(at, size) for at, size in zip(places, sizes, strict=True))
        return mask[..., rows, columns]
    inside = np.ones(places[0].shape, dtype=bool)
    for at, size in zip(places, sizes, strict=True):
        inside &= (at >= 0) & (at < size)
    rows, columns = (np.clip(at, 0, size - 1) for at, size in zip(places, sizes, strict=True))
    return np.where(inside, mask[..., rows, columns], np.zeros((), dtype=mask.dtype))


def _mirrored(at: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Indices outside an axis, mirrored about its first and last pixel."""
    period = max(2 * (size - 1), 1)
    at = np.abs(at) % period
    return np.minimum(at, period - at) if size > 1 else np.zeros_like(at)


def _elastic_field(shape: tuple[int, int], seed: int) -> NDArray[np.float32]:
    """Two smooth fields in about [-1, 1] that vanish at the edge of the picture."""
    inner = ELASTIC_NODES - 2
    nodes = np.zeros((2, ELASTIC_NODES, ELASTIC_NODES), dtype=np.float32)
    nodes[:, 1:-1, 1:-1] = np.random.default_rng(seed).uniform(-1, 1, (2, inner, inner))
    return np.stack([smooth_field(node, shape) for node in nodes])


def smooth_field(nodes: NDArray[np.float32], shape: tuple[int, int]) -> Unit:
    """Return a coarse grid of values enlarged to the picture by cubic interpolation.

    Args:
        nodes: `(n, m)` values, evenly spaced.
        shape: `(H, W)` of the picture.

    >>> smooth_field(np.array([[0, 1], [0, 1]], np.float32), (2, 4)).round(2)
    array([[-0.11,  0.23,  0.77,  1.11],
           [-0.11,  0.23,  0.77,  1.11]], dtype=float32)
    """
    import cv2

    return np.asarray(cv2.resize(nodes, shape[::-1], interpolation=cv2.INTER_CUBIC))
