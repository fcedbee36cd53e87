"""The page of published weights: the cards as their YAML files state them."""

from __future__ import annotations

from manual.markdown import code, table
from medtl.networks.pretrained.cards import TRIED, Card, all_cards

HEAD = """# Cards of published weights

What each network expects and where its weights are from, as the YAML files in
`medtl/networks/pretrained/known` state it. [Published weights](../weights.md) says how to choose
one, how to bring a file, and how to add a card. `medtl weights show NAME` prints one.

"""


def cards_page() -> str:
    """Return the page, a section for each card."""
    return HEAD + "\n".join(_section(card) for card in all_cards().values())


def _section(card: Card) -> str:
    """One card."""
    rows = (
        ("network", code(card.backbone)),
        ("expects", card.input_said),
        ("from", card.source),
        ("licence", card.licence),
        ("paper", card.citation),
        ("tried here", TRIED[card.tried]),
        ("in a recipe", code(card.recipe_lines)),
    )
    note = f"\n{card.note}\n" if card.note else ""
    return f"## {card.name}\n\n{card.title}\n\n{table(('', ''), rows)}{note}"
