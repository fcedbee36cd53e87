"""Whether a file of weights is what its card says: its tensors, its input and one known output."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from medtl.errors import WeightsError
from medtl.networks.batch_norm import evaluating
from medtl.networks.pretrained.cards import TRIED, Card, cards_of, find_card
from medtl.networks.pretrained.keras_file import HDF_MAGIC, is_keras_archive
from medtl.networks.pretrained.key_rules import apply_rules
from medtl.networks.pretrained.pickled_module import read_pickled_module
from medtl.networks.pretrained.weight_files import read_weights
from medtl.networks.segmenter import build_segmenter
from medtl.networks.weights import (
    WeightsReport,
    WeightsSource,
    bundled_card,
    create_backbone,
    input_contract,
)
from medtl.storage.atomic import sha256_file

TOLERANCE = 1e-3
"""Largest difference of what is known of the features, relative to the largest of them."""


@dataclass(frozen=True)
class CheckedWeights:
    """What the check of a file found.

    Attributes:
        card: Of the file.
        report: The fate of every tensor.
        is_published: Whether the SHA-256 is one that the card states; None when it states none.
        difference: Of the reference features, relative; None where no output is known of the file.
    """

    card: Card
    report: WeightsReport
    is_published: bool | None
    difference: float | None

    def __str__(self) -> str:
        said = {
            None: "no SHA-256 is published with the card",
            True: "the file is the published one (SHA-256)",
            False: "the file is another one than the card knows (SHA-256)",
        }
        known = (
            f"no known output of this file; of the card: {TRIED[self.card.tried]}"
            if self.difference is None
            else f"the reference image gives the known output (difference {self.difference:.1e})"
        )
        return f"{self.report}\n  {said[self.is_published]}\n  {known}"


def reference_image(card: Card) -> Tensor:
    """Return an image that anyone can make, as the network sees it: `(1, 3, size, size)`.

    Waves of the card's size, in [0, 1], brought to its range, mean and sd.
    """
    size = card.size or 224
    step = torch.arange(size, dtype=torch.float64) / size
    waves = [torch.sin(2 * math.pi * (3 * (c + 1) * step[:, None] + 2 * step)) for c in range(3)]
    low, high = card.range
    contract = input_contract(card.backbone, card=card)
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in (contract.mean, contract.std))
    unit = 0.5 + 0.5 * torch.stack(waves)
    return ((low + unit * (high - low) - mean[:, None, None]) / std[:, None, None])[None].float()


def check_weights(path: Path | None, name: str) -> CheckedWeights:
    """Load a file by its card, or what comes with the installation, and compare its output.

    Args:
        path: The file; None for bundled weights.
        name: Of the card, or the backbone of bundled weights.

    Raises:
        WeightsError: When the file does not fit its card, or gives another output than it gave.
    """
    if path is None:
        card = bundled_card(name)
        source = WeightsSource("bundled")
    else:
        card = find_card(name)
        source = WeightsSource("file", path, card=card)
    if card.is_of_volumes:
        patch = (32, 32, 32)
        _, report = build_segmenter(card.backbone, outputs=1, patch=patch, weights=source)
        return CheckedWeights(card, report, _published(card, report), None)
    side = card.size or 224
    model, report = create_backbone(card.backbone, source, image_size=(side, side))
    published = _published(card, report)
    if not card.expected or not published:
        return CheckedWeights(card, report, published, None)
    with evaluating(model), torch.no_grad():
        features = model(reference_image(card))
        found = torch.stack([features.mean(), features.std(), features.max()])
    wanted = torch.tensor(card.expected)
    difference = float((found - wanted).abs().max() / wanted.abs().max())
    if difference > TOLERANCE:
        raise WeightsError(
            f"the reference image gives {found.tolist()}",
            expected=str(list(card.expected)),
            where=card.name,
            fix="Install the pinned versions (constraints.txt); medtl doctor lists those here",
        )
    return CheckedWeights(card, report, published, difference)


def convert_weights(path: Path, out: Path, name: str | None) -> str:
    """Write the tensors of a file as safetensors, without running what is in it; return what was.

    Args:
        path: Tensors by name, a file of Keras, or a pickled network.
        out: To write; with a card, under the names of the network.
        name: Of the card; needed for a file of Keras, whose layers are known by their order.

    Raises:
        WeightsError: When the file cannot be read, or `out` is there already.
    """
    if out.exists():
        raise WeightsError("the file is there already", where=out.name, fix="Name another one")
    try:
        tensors, said = read_weights(path)
    except WeightsError as error:
        if "could run code" not in error.found:
            raise
        tensors, said = read_pickled_module(path), ("a pickled network, taken apart and not run",)
    if name is not None:
        card = find_card(name)
        if card.is_of_volumes:
            network: dict[str, Tensor] = {}
        else:
            network = create_backbone(card.backbone, WeightsSource("none", card=card))[
                0
            ].state_dict()
        tensors = apply_rules(tensors, card.keys, network)
    elif _is_of_keras(path):
        raise WeightsError(
            "a file of Keras",
            expected="its card, by which its layers get the network's names",
            where=path.name,
            fix="State --card: medtl weights list",
        )
    copies = {n: t.detach().clone().contiguous() for n, t in tensors.items()}
    save_file(copies, out, metadata={"source": path.name, "sha256": sha256_file(path)})
    return "\n".join([f"{len(copies)} tensors: {out.name}", *said, *_cards_said(copies)])


def _cards_said(tensors: dict[str, Tensor]) -> list[str]:
    """Which cards a file may be of, and what a recipe states for it."""
    cards = cards_of({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    return [f"perhaps {card.name}: {card.title}" for card in cards]


def _published(card: Card, report: WeightsReport) -> bool | None:
    """Whether a file is one that the card knows."""
    return report.sha256 in card.sha256 if card.sha256 else None


def _is_of_keras(path: Path) -> bool:
    """Whether Keras wrote a file."""
    with path.open("rb") as file:
        return file.read(len(HDF_MAGIC)) == HDF_MAGIC or is_keras_archive(path)
