"""Which weights cards a file fits, by the names and shapes of its tensors alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from medtl.errors import WeightsError
from medtl.networks.pretrained.cards import Card, all_cards, cards_of
from medtl.networks.pretrained.key_rules import apply_rules
from medtl.networks.pretrained.weight_files import read_weights
from medtl.networks.segmenter import build_segmenter, pretrained_part
from medtl.networks.weights import (
    WeightsSource,
    create_backbone,
    fitting,
    in_names_of,
    lost_and_misfit,
    some,
)

_PATCH = (32, 32, 32)


@dataclass(frozen=True)
class CardFit:
    """How a file's tensors fill the network of a card.

    Attributes:
        card: Whose key rules were followed.
        size: Number of tensors of the network that a file has to fill.
        lost: Those that the file does not fill, with both shapes where it has the name.
        unused: Names in the file that the network has no place for.
    """

    card: Card
    size: int
    lost: tuple[str, ...]
    unused: tuple[str, ...]

    @property
    def share(self) -> float:
        """Of the network's tensors, those that the file fills."""
        return 1 - len(self.lost) / self.size


def fitting_cards(path: Path) -> str:
    """Return which cards a file fits, and how each is proved, as lines of text.

    What a file was trained on cannot be seen in it: cards of the same names and shapes are all
    named, and none is chosen.

    Raises:
        WeightsError: When the file cannot be read, or fits no card: with the closest.
    """
    tensors, said = read_weights(path)
    given = {name: tensor.to("meta") for name, tensor in tensors.items()}
    is_of_volumes = any(tensor.ndim == 5 for tensor in given.values())
    cards = [card for card in all_cards().values() if card.is_of_volumes is is_of_volumes]
    known = cards_of({name: tuple(tensor.shape) for name, tensor in given.items()})
    likely = [card for card in cards if card in known or not card.holds]
    fits = [fit for card in likely if not (fit := card_fit(card, given)).lost]
    if not fits:
        all_fits = (card_fit(card, given) for card in cards)
        closest = max(all_fits, key=lambda fit: (fit.share, fit.card in known))
        _refuse(closest, path.name, len(given))
    lines = [f"{path.name}: {len(given)} tensors", *(f"  {note}" for note in said)]
    for fit in fits:
        left = f"; of no use to it: {some(fit.unused)}" if fit.unused else ""
        lines.append(f"  fits {fit.card.name}: {fit.card.title}, all {fit.size} tensors{left}")
    if len(fits) > 1:
        lines.append("  Their names and shapes are the same: where the file is from says which")
    lines += [f"medtl weights check {path} --card {fit.card.name}" for fit in fits]
    return "\n".join(lines)


def card_fit(card: Card, given: Mapping[str, Tensor]) -> CardFit:
    """Return how tensors, of which names and shapes count alone, fill the network of a card.

    Args:
        card: Its channels are the file's: none is adapted.
        given: As read, on torch's meta device.
    """
    with torch.device("meta"):
        part, free = _part_of(card)
        network = part.state_dict()
    needed = [n for n in network if n not in free and not n.endswith("_tracked")]
    try:
        whole = len(fitting(in_names_of(part, given)[0], network)) == len(network)
        named = given if whole else apply_rules(given, card.keys, network)
        found, _ = in_names_of(part, named)
    except WeightsError as error:  # a positional alias finds another number of names
        return CardFit(card, len(needed), (error.found,) * len(needed), ())
    missing, misfit = lost_and_misfit(found, network)
    lost = [misfit.get(n, n) for n in needed if n in misfit or n in missing]
    unused = [name for name in found if name not in network]
    return CardFit(card, len(needed), tuple(lost), tuple(unused))


def _part_of(card: Card) -> tuple[torch.nn.Module, Iterable[str]]:
    """What a file of a card fills, and the tensors of it that the file need not have."""
    none = WeightsSource("none", card=card)
    if not card.is_of_volumes:
        return create_backbone(card.backbone, none, in_channels=card.channels)[0], ()
    model, _ = build_segmenter(card.backbone, outputs=1, patch=_PATCH, weights=none)
    return pretrained_part(model.network, none)


def _refuse(closest: CardFit, where: str, count: int) -> None:
    """Refuse a file that fits no card, with the closest and why it is not it."""
    filled = closest.size - len(closest.lost)
    raise WeightsError(
        f"no weights card fits the {count} tensors in the file; the closest is "
        f"{closest.card.name}, of whose network it fills {filled} of {closest.size} tensors, and "
        f"not {some(closest.lost)}",
        expected="a published key layout: medtl weights list",
        where=where,
        fix="State the network, if it is none of a card: model: {backbone: NAME, weights: "
        "{source: file, path: FILE}}",
    )
