"""The manual's page of weights is the cards'."""

from __future__ import annotations

import os
from pathlib import Path

from medtl.networks.pretrained.cards import TRIED, all_cards, cards_table

PAGE = Path(__file__).parents[2] / "docs" / "weights.md"
MARK = "test_weights_page.py -->\n\n"


def test_the_page_has_every_card_as_the_yaml_states_it():
    before, mark, after = PAGE.read_text(encoding="utf-8").partition(MARK)
    if os.environ.get("MEDTL_WRITE_GOLDEN"):
        PAGE.write_text(before + mark + cards_table(), encoding="utf-8")
        return
    assert mark
    assert after == cards_table(), "MEDTL_WRITE_GOLDEN=1 writes it again"


def test_each_section_says_where_from_licence_input_and_what_was_tried():
    table = cards_table()
    for card in all_cards().values():
        section = table.partition(f"### {card.name}\n")[2].partition("\n### ")[0]
        for said in (card.source, card.licence, card.citation, card.input_said, TRIED[card.tried]):
            assert said in section
