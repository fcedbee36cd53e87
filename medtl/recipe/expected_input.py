"""The input that a weights card states, in the recipe's words. Imports no torch."""

from __future__ import annotations

from medtl.preprocess.intensity import WINDOWS
from medtl.recipe.imaging import ImageSpec
from medtl.recipe.schema import Recipe

COLOR_MODALITIES = {"fundus", "derm", "histology"}
"""Modalities read in colour; all others are grey."""


def expected_image(recipe: Recipe) -> ImageSpec:
    """Return the recipe's image section, with the card's words where the recipe has none.

    The card's window is taken where the recipe states neither window nor scale, its
    standardisation of volumes where the recipe leaves that to the weights.
    """
    image, card = recipe.image, recipe.model.weights.known
    if card is None:
        return image
    taken: dict[str, object] = {}
    if card.window is not None and image.window is None and image.scale is None:
        taken |= {"window": card.window, "scale": "window"}
    if card.is_of_volumes and image.standardise == "weights":
        taken |= {"standardise": card.standardise}
    return image.model_copy(update=taken)


def input_notes(recipe: Recipe) -> tuple[str, ...]:
    """Return, in words, where the recipe's input is not what its weights card states."""
    image, card = recipe.image, recipe.model.weights.known
    if card is None:
        return ()
    notes = []
    standardise = card.standardise if card.is_of_volumes else "weights"
    if image.standardise not in ("weights", standardise):
        notes.append(f"the recipe states image.standardise: {image.standardise}")
    window = WINDOWS[image.window] if isinstance(image.window, str) else image.window
    if card.window is not None and window is not None and tuple(window) != card.window:
        notes.append(f"the recipe states image.window: {image.window}")
    if card.window is not None and image.scale not in (None, "window"):
        notes.append(f"the recipe states image.scale: {image.scale}")
    if card.spacing is not None and image.spacing != card.spacing:
        notes.append(f"the recipe states image.spacing: {list(image.spacing or ())}")
    if card.size is not None and image.shape != (card.size, card.size):
        notes.append(f"the recipe takes images of {' x '.join(map(str, image.shape))} px")
    if card.channels == 1 and image.modality in COLOR_MODALITIES:
        notes.append(f"images of {image.modality} have colours")
    if not notes:
        return ()
    return (f"the weights expect {card.input_said}; {'; '.join(notes)}, and that is done",)
