"""Shape or texture: which of two cues decides, where an image has both and they disagree."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from medtl.errors import PredictionsError
from medtl.metrics.intervals import proportion_of_rows
from medtl.types import Measure


def shape_share(
    answers: ArrayLike, shapes: ArrayLike, textures: ArrayLike, patients: ArrayLike | None = None
) -> Measure:
    """Return the share of shape among the answers that follow one of two cues.

    An image shows the shape of one class with the texture of another; what is neither counts
    nowhere. People answer by shape, networks trained on ImageNet by texture.

    Args:
        answers: `(n,)` classes that the model says.
        shapes: `(n,)` classes of the shape.
        textures: `(n,)` classes of the texture, unlike those of the shape.
        patients: `(n,)` identifiers, or None for one image each.

    Raises:
        PredictionsError: When lengths differ, or an image has both cues of one class.

    Reference:
        Geirhos et al., "ImageNet-trained CNNs are biased towards texture", ICLR 2019, section 2.3.

    Example:
        >>> shape_share(["cat", "cat", "dog"], ["cat", "cat", "car"], ["dog", "owl", "cat"])
        shape_share: 1.000 [0.342, 1.000], n = 2 (Wilson)
    """
    said, shape, texture = (np.asarray(part).astype(str) for part in (answers, shapes, textures))
    who = np.arange(said.size) if patients is None else np.unique(patients, return_inverse=True)[1]
    lengths = [part.size for part in (said, shape, texture, who)]
    if len(set(lengths)) > 1:
        found = f"{lengths} answers, shapes, textures and patients"
        raise PredictionsError(found, expected="as many of each")
    if both := int((shape == texture).sum()):
        raise PredictionsError(
            f"{both} images have shape and texture of one class",
            expected="images whose cues disagree",
            fix="Leave them out: they say nothing of which cue decides",
        )
    follows = (said == shape) | (said == texture)
    return proportion_of_rows(
        "shape_share", (said == shape)[follows], patients=who[follows], of="answers by a cue"
    )
