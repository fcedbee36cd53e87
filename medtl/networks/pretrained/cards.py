"""Weights cards: what is known of published weights, as YAML. Imports no torch.

A card holds no weights. It says which network they belong to, how the names in the file become the
network's, what input they were trained on, who may use them, and what was tried here.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from medtl.errors import WeightsError
from medtl.storage.yaml import load_yaml

NO_CARD: Literal["none"] = "none"
"""The word by which a recipe says that a file has no card, although its names are those of one."""

TRIED = {
    "weights": "the published file itself was loaded, and its output compared",
    "layout": "layout tested, not the weights",
}
"""What was tried here -> in words."""

Rule = tuple[str, Any]


@dataclass(frozen=True)
class Card:
    """What is known of published weights.

    Attributes:
        name: By which recipes call it.
        title: Whose weights, of what, from which images.
        backbone: timm architecture, or one of `medtl.networks.names.VOLUME_NETWORKS`.
        source: Where the file is to be had.
        licence: As its owner states it.
        citation: The paper.
        tried: A key of `TRIED`.
        options: What the architecture is made with besides its name.
        keys: Steps from the file's names to the network's (`medtl.networks.pretrained.key_rules`).
        holds: Names of the file, and shapes, by which it is known.
        channels: Input channels that the weights have.
        mean, std: `(x - mean) / std` of an image in `range`, one for all channels or one each.
        range: Of the image before that.
        window: [centre, width] in HU of a CT before it becomes `range`; None for what is no CT.
        size: Pixels a side of the training images; of volumes, None.
        spacing: mm per voxel of the training volumes; of planes, None.
        standardise: How volumes are standardised, a word of the recipe's `image.standardise`.
        adapt: What else the weights need: `eps` of the batch norms, `pooling: same` (TensorFlow's).
        norm: The norm layers of a 3D encoder that the weights need: "batch", else "group".
        sha256: Of the published files, where that is public.
        package: Python package that carries the file; "" for all that must be fetched.
        file: Inside the package.
        megabytes: Of that file.
        expected: Mean, sd and largest of the pooled features of the reference image
            (`medtl.networks.pretrained.reference`), where the file was seen.
        note: What else a reader should know.
    """

    name: str
    title: str
    backbone: str
    source: str
    licence: str
    citation: str
    tried: Literal["weights", "layout"]
    options: Mapping[str, Any]
    keys: tuple[Rule, ...] = ()
    holds: Mapping[str, tuple[int, ...]] | None = None
    channels: int = 3
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    range: tuple[float, float] = (0.0, 1.0)
    window: tuple[float, float] | None = None
    size: int | None = None
    spacing: tuple[float, float, float] | None = None
    standardise: str = "weights"
    adapt: Mapping[str, Any] | None = None
    norm: Literal["batch", "group"] = "group"
    sha256: tuple[str, ...] = ()
    package: str = ""
    file: str = ""
    megabytes: int = 0
    expected: tuple[float, ...] = ()
    note: str = ""

    @property
    def is_of_volumes(self) -> bool:
        """Whether the weights are those of a 3D network."""
        return self.size is None

    @property
    def input_said(self) -> str:
        """What the weights expect, in words."""
        low, high = self.range
        said = [f"{self.channels} channel{'s' * (self.channels > 1)}"]
        said += [f"{self.size} px"] if self.size else []
        said += [f"{' x '.join(f'{mm:g}' for mm in self.spacing)} mm"] if self.spacing else []
        if self.window is not None:
            centre, width = self.window
            said.append(f"window [{centre - width / 2:g}, {centre + width / 2:g}] HU")
        said.append(f"range [{low:g}, {high:g}]")
        if self.standardise == "z_score":
            said.append("each volume to mean 0, sd 1")
        elif set(self.mean) != {0.0} or set(self.std) != {1.0}:
            said.append(f"mean {_numbers(self.mean)}, sd {_numbers(self.std)}")
        return ", ".join(said)

    @property
    def described(self) -> str:
        """The whole card, for people."""
        rows = {
            "backbone": self.backbone,
            "expects": self.input_said,
            "from": self.source,
            "licence": self.licence,
            "paper": self.citation,
            "SHA-256": ", ".join(self.sha256) or "not published here",
            "tried here": TRIED[self.tried],
            "note": self.note,
            "recipe": self.recipe_lines,
        }
        lines = [f"  {word:<11} {text}" for word, text in rows.items() if text]
        return "\n".join([f"{self.name}: {self.title}", *lines])

    @property
    def recipe_lines(self) -> str:
        """What a recipe states to take the weights, ready to paste."""
        if self.package:
            return f"model: {{backbone: {self.backbone}, weights: bundled}}"
        return f"model: {{weights: {{card: {self.name}, path: FILE}}}}"


@cache
def all_cards() -> Mapping[str, Card]:
    """Return the cards that come with the program, by name, in the order of their names."""
    folder = files("medtl.networks.pretrained").joinpath("known")
    cards: dict[str, Card] = {}
    for file in folder.iterdir():
        if file.name.endswith(".yaml"):
            cards.update(_cards_of(load_yaml(Path(str(file))), file.name))
    return dict(sorted(cards.items()))


@cache
def bundled_cards() -> Mapping[str, Card]:
    """Return backbone -> card of what comes with the installation, the smallest first."""
    carried = [card for card in all_cards().values() if card.tried == "weights" and card.megabytes]
    return {card.backbone: card for card in sorted(carried, key=lambda card: card.megabytes)}


def find_card(name: str) -> Card:
    """Return a card by its name.

    Raises:
        WeightsError: With the nearest names.

    >>> find_card("xrv-densenet121").input_said
    '1 channel, 224 px, range [-1024, 1024]'
    """
    if (card := all_cards().get(name)) is None:
        near = difflib.get_close_matches(name, all_cards(), n=3, cutoff=0.4)
        raise WeightsError(
            f"no weights card {name!r}",
            where="model.weights.card",
            fix=f"Did you mean {' or '.join(near)}?" if near else "See medtl weights list",
        )
    return card


def cards_of(shapes: Mapping[str, Sequence[int]]) -> list[Card]:
    """Return the cards whose file this may be, by its names and shapes.

    Args:
        shapes: Name -> shape of what a file holds.
    """
    found = []
    for card in all_cards().values():
        held = card.holds or {}
        if held and all(_is_there(name, shape, shapes) for name, shape in held.items()):
            found.append(card)
    return found


def _is_there(name: str, shape: tuple[int, ...], shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether a name, with any prefix, stands for a tensor of a shape."""
    if name in shapes:
        return tuple(shapes[name]) == shape
    return any(n.endswith(f".{name}") and tuple(s) == shape for n, s in shapes.items())


def _cards_of(data: Any, where: str) -> dict[str, Card]:
    """The cards of one YAML file: name -> what is known."""
    if not isinstance(data, Mapping):
        raise WeightsError("no weights cards", expected="NAME: {title: ..., ...}", where=where)
    cards: dict[str, Mapping[str, Any]] = {}
    for name, entry in data.items():
        if isinstance(entry, Mapping) and "like" in entry:
            if entry["like"] not in cards:
                found = f"like: {entry['like']}"
                raise WeightsError(found, expected="a card above it", where=f"{where}, {name}")
            entry = {**cards[entry["like"]], **entry}  # noqa: PLW2901
            entry.pop("like")
        cards[name] = entry
    return {name: _card_of(name, entry, where) for name, entry in cards.items()}


def _card_of(name: str, entry: Any, where: str) -> Card:
    """One card, its keys and kinds checked."""
    known = {field.name for field in fields(Card)} - {"name"}
    place = f"{where}, {name}"
    if not isinstance(entry, Mapping):
        raise WeightsError("no weights card", expected="a mapping", where=place)
    given = {"options": {}, **entry, **entry.get("input", {})}
    given.pop("input", None)
    if strange := given.keys() - known:
        near = difflib.get_close_matches(min(strange), known, n=1)
        fix = f"Did you mean {near[0]!r}?" if near else ""
        raise WeightsError(f"no key {min(strange)!r} in a weights card", where=place, fix=fix)
    needed = ("title", "backbone", "source", "licence", "citation", "tried")
    if missing := [key for key in needed if key not in given]:
        raise WeightsError(f"the card does not state {', '.join(missing)}", where=place)
    if given["tried"] not in TRIED:
        raise WeightsError(
            f"tried: {given['tried']}", expected=f"one of {', '.join(TRIED)}", where=place
        )
    channels = given.get("channels", 3)
    for key in ("mean", "std"):
        given[key] = _each(given.get(key, 0.0 if key == "mean" else 1.0), channels)
    for key in ("range", "window", "spacing", "sha256", "expected"):
        if given.get(key) is not None:
            given[key] = tuple([given[key]] if isinstance(given[key], str) else given[key])
    held = given.get("holds") or {}
    given["holds"] = {part: tuple(shape) for part, shape in held.items()}
    steps = given.get("keys", ())
    given["keys"] = tuple((rule, what) for step in steps for rule, what in step.items())
    return Card(name=name, **given)


def _each(value: Any, channels: int) -> tuple[float, ...]:
    """One number for each channel."""
    return tuple(map(float, value)) if isinstance(value, list) else (float(value),) * channels


def _numbers(values: Sequence[float]) -> str:
    """Equal numbers once, others each."""
    return ", ".join(f"{value:g}" for value in (values[:1] if len({*values}) == 1 else values))
