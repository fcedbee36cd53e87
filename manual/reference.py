"""The pages of the manual's reference, made when it is built; none is kept in the repository."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from manual.command_line import command_line_page
from manual.data_sets import data_sets_page
from manual.error_messages import messages_page
from manual.measures import measures_page
from manual.python_face import python_page
from manual.recipe_keys import recipe_page
from manual.reporting_items import reporting_page
from manual.safety_table import augmentation_page
from manual.weight_cards import cards_page

PAGES: Mapping[str, Callable[[], str]] = {
    "reference/command-line.md": command_line_page,
    "reference/recipe.md": recipe_page,
    "reference/python.md": python_page,
    "reference/measures.md": measures_page,
    "reference/augmentation.md": augmentation_page,
    "reference/weight-cards.md": cards_page,
    "reference/data-sets.md": data_sets_page,
    "reference/reporting-items.md": reporting_page,
    "reference/error-messages.md": messages_page,
}
"""Page below `docs/` -> what makes it."""
