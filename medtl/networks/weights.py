"""Initial weights: where they come from, what of them fits, and what input they were trained on.

Nothing is downloaded unless the source is "timm".
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal
from urllib.request import getproxies

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from medtl.errors import WeightsError
from medtl.networks.batch_norm import evaluating
from medtl.networks.pretrained.cards import NO_CARD, Card, bundled_cards, cards_of
from medtl.networks.pretrained.key_rules import apply_rules
from medtl.networks.pretrained.weight_files import read_weights
from medtl.storage.atomic import sha256_file

SMALLEST_SHARE = 0.5
"""Share of the network's tensors that a file must fill; below it is another network's file."""

WeightsKind = Literal["bundled", "file", "timm", "none"]


@dataclass(frozen=True)
class WeightsSource:
    """The source of weights.

    Attributes:
        kind: "bundled" with the installation, a local "file", "timm" (may download), or "none".
        path: The file, for "file".
        sha256: Its expected hash, or None when it is not to be checked.
        allow_missing: Names of the network's tensors (`*` for any letters) that a file need not
            hold in their shape; they stay random.
        card: What is known of the weights, `NO_CARD` for a file in the names of a card that is
            not of its kind, or None.
    """

    kind: WeightsKind = "bundled"
    path: Path | None = None
    sha256: str | None = None
    allow_missing: tuple[str, ...] = ()
    card: Card | Literal["none"] | None = None

    @property
    def known(self) -> Card | None:
        """The card, where there is one."""
        return self.card if isinstance(self.card, Card) else None


@dataclass(frozen=True)
class InputContract:
    """The input that weights expect: `(x - mean) / std` of a unit image.

    Attributes:
        mean, std: One number per channel, in units of `value_range`.
        channels: Number of input channels.
        value_range: Range of the image before standardisation.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: int = 3
    value_range: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class WeightsReport:
    """The fate of every tensor of the network. `str()` of it is a table.

    Attributes:
        source: In words.
        licence: Of the weights; "" when nobody states it.
        contract: The input they were trained on.
        sha256: Of the file; "" when there is none.
        loaded: Names of the network's tensors that were filled.
        missing: Those the file does not have; they keep their random values.
        skipped: Those whose shape differs, as "name: (file's shape), network (shape)".
        unused: Names in the file that the network has no place for (its classifier).
        notes: What was changed on the way.
    """

    source: str
    licence: str
    contract: InputContract
    sha256: str = ""
    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def rows(self) -> tuple[tuple[str, int, str], ...]:
        """(what, how many, the first names) for a table."""
        listed = {"missing": self.missing, "skipped": self.skipped, "unused": self.unused}
        counted = tuple((what, len(names), some(names)) for what, names in listed.items())
        return (("loaded", len(self.loaded), ""), *counted)

    def __str__(self) -> str:
        licence = self.licence or "licence not stated"
        lines = [f"{self.source} ({licence})", *(f"  {note}" for note in self.notes)]
        lines += [f"  {what:<8}{count:>5}  {names}".rstrip() for what, count, names in self.rows()]
        return "\n".join(lines)


def input_contract(backbone: str, *, channels: int = 3, card: Card | None = None) -> InputContract:
    """Return the input that pretrained weights expect, as their card or else timm records it.

    For the bundled EfficientNet-Lites that is mean = std = 0.5, as for the TensorFlow original
    (127/255 and 128/255); it was checked on photographs (tests/networks/test_weights.py).

    Args:
        backbone: A timm name.
        channels: Of the network; other than the weights' own gets the channel average for each.
        card: Of the weights.
    """
    if card is not None:
        return _for_channels(card.mean, card.std, channels, card.range)
    import timm
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    known = timm.get_pretrained_cfg(backbone)
    mean = IMAGENET_DEFAULT_MEAN if known is None else known.mean
    std = IMAGENET_DEFAULT_STD if known is None else known.std
    return _for_channels(mean, std, channels, (0.0, 1.0))


def _for_channels(
    mean: Sequence[float], std: Sequence[float], channels: int, value_range: tuple[float, float]
) -> InputContract:
    """A contract for a network's channels; the average where the weights have others."""
    if channels != len(mean):
        mean, std = (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels
    return InputContract(tuple(mean), tuple(std), channels, value_range)


def create_backbone(
    name: str,
    source: WeightsSource,
    *,
    in_channels: int = 3,
    image_size: tuple[int, ...] = (),
) -> tuple[Any, WeightsReport]:
    """Return a timm network without its classifier, and what of the weights was loaded.

    Args:
        name: A timm architecture, with or without a weights tag ("resnet50.a1_in1k").
        source: Where the weights come from.
        in_channels: Input channels; pretrained first convolutions are adapted (summed for 1).
        image_size: (rows, columns) of the images. A network that is made for one size (most
            transformers) is made for this one, and what its weights say of positions is resampled.
            () makes it for its own.

    Raises:
        WeightsError: When the source is missing, unsafe, altered, or of another network, or the
            network cannot take images of this size.
    """
    card = bundled_card(name) if source.kind == "bundled" else source.known
    model, notes = _create(
        name,
        pretrained=source.kind == "timm",
        in_channels=in_channels,
        image_size=image_size,
        options={} if card is None else card.options,
    )
    notes += adapt(model, card)
    contract = input_contract(name, channels=in_channels, card=card)
    about = partial(WeightsReport, contract=contract, notes=notes)
    tensors = tuple(model.state_dict())
    if source.kind == "none":
        return model, about("random weights", "none needed", missing=tensors)
    if source.kind == "timm":
        cfg = model.pretrained_cfg
        title = f"timm, from {cfg.get('hf_hub_id') or cfg.get('url') or 'its default'}"
        return model, about(title, cfg.get("license") or "", loaded=tensors)
    if source.kind == "bundled":
        assert card is not None
        path = Path(str(files(card.package).joinpath(card.file)))
        source = WeightsSource("file", path, card.sha256[0], card=card)
    return model, fill(model, source, about)


def fill(
    part: nn.Module,
    source: WeightsSource,
    about: Callable[..., WeightsReport],
    allow_missing: Sequence[str] = (),
) -> WeightsReport:
    """Fill a network from a file, by its card where it has one; say what of either is left.

    Args:
        part: The network, or the part of it that the file is of.
        source: Of kind "file".
        about: From title and licence to the report that is filled in.
        allow_missing: As in `WeightsSource`, besides what that states.

    Raises:
        WeightsError: As `load_tensors`; or the file is in the names of a card that was not named.
    """
    path, sha256 = verified_file(source)
    given, said = read_weights(path)
    card = source.known
    title = f"file {path.name}" if card is None else f"{card.title} (card {card.name})"
    origin = about(title, "" if card is None else card.licence, sha256=sha256)
    origin = replace(origin, notes=(*origin.notes, *said))
    network = part.state_dict()
    fits = len(fitting(_unprefixed(given, network)[0], network)) == len(network)
    if card is None and source.card != NO_CARD:
        _refuse_without_card(given, origin.contract, fits=fits, where=path.name)
    if card is not None and not fits:
        given = apply_rules(given, card.keys, network)
    return load_tensors(part, given, origin, (*source.allow_missing, *allow_missing))


def bundled_card(backbone: str) -> Card:
    """Return the card of what comes with the installation for a backbone.

    Raises:
        WeightsError: When nothing does.
    """
    if (known := bundled_cards().get(backbone.partition(".")[0])) is None:
        raise WeightsError(
            f"no weights for {backbone} come with the installation",
            expected=f"backbone {' or '.join(bundled_cards())} for weights: bundled",
            where="model.weights",
            fix="Write weights: timm (downloads), a file, or none",
        )
    return known


def adapt(network: nn.Module, card: Card | None) -> tuple[str, ...]:
    """Give a network what its weights need besides their values, in place; return it in words."""
    wanted = {} if card is None else card.adapt or {}
    notes = []
    if "eps" in wanted:
        for norm in (m for m in network.modules() if isinstance(m, _BatchNorm)):
            norm.eps = wanted["eps"]
        notes.append(f"eps of the batch norms is {wanted['eps']:g}")
    if wanted.get("pooling") == "same":
        from timm.layers.pool2d_same import MaxPool2dSame

        for name, pool in [*network.named_modules()]:
            if type(pool) is nn.MaxPool2d:
                parent, _, last = name.rpartition(".")
                same = MaxPool2dSame(pool.kernel_size, pool.stride)
                setattr(network.get_submodule(parent), last, same)
        notes.append("pooling pads as TensorFlow does")
    return tuple(notes)


def _refuse_without_card(
    given: Mapping[str, Tensor], contract: InputContract, *, fits: bool, where: str
) -> None:
    """Refuse a file in the names of a card whose input, or whose names, are not this network's own.

    Such a file loaded with the normalisation of other weights, or with a random first layer.
    """
    cards = cards_of({name: tuple(tensor.shape) for name, tensor in given.items()})
    alike = [
        card
        for card in cards
        if input_contract(card.backbone, channels=contract.channels, card=card) == contract
    ]
    if not cards or (fits and alike):
        return
    names = [card.name for card in cards]
    inputs = "; ".join(f"{card.name}: {card.input_said}" for card in cards)
    raise WeightsError(
        f"the names in it are those of {cards[0].title}, and nothing here says what input it "
        f"expects ({inputs})",
        expected=f"the weights card {' or '.join(names)}",
        where=where,
        fix=f"Write model.weights: {{card: {names[0]}, path: {where}}}, whose backbone is "
        f"{cards[0].backbone}; or card: none for other weights in these names",
    )


def load_tensors(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    origin: WeightsReport,
    allow_missing: Sequence[str] = (),
) -> WeightsReport:
    """Fill a network with the tensors of a file, and say what of either is left.

    A prefix that most names of the file share ("module.", "model.backbone.") is taken off.

    Args:
        model: The network, without a classifier.
        tensors: Name -> tensor, as read.
        origin: A report that says where they are from; it is filled in.
        allow_missing: As in `WeightsSource`.

    Raises:
        WeightsError: When a tensor of the network is not there in its shape, and not allowed to be
            missing, less than `SMALLEST_SHARE` of them fit, or one is not finite.
    """
    network = model.state_dict()
    found, notes = in_names_of(model, tensors)
    notes += _adapt_channels(model, found)
    filled = fitting(found, network)
    if len(filled) < SMALLEST_SHARE * len(network):
        raise WeightsError(
            f"only {len(filled)} of the network's {len(network)} tensors fit; the other keys are "
            f"missing in the file or differ in shape; it has {some(found, 3)}",
            expected=f"names and shapes as in {some(network, 3)}",
            where=origin.source,
            fix="Name the backbone that these weights belong to",
        )
    broken = [n for n, t in filled.items() if not torch.isfinite(t).all()]
    if broken:  # training would fail only much later
        raise WeightsError(
            f"{len(broken)} tensors hold values that are not finite ({some(broken, 3)})",
            where=origin.source,
            fix="Use a checkpoint from before the training diverged",
        )
    missing, skipped = lost_and_misfit(found, network)
    lost = [n for n in (*missing, *skipped) if not any(fnmatch(n, p) for p in allow_missing)]
    if lost:
        raise WeightsError(
            f"{len(lost)} of the network's {len(network)} tensors are not in the file, or not in "
            f"their shape: {some([skipped.get(name, name) for name in lost])}",
            expected="every tensor of the backbone; what is not there would stay random",
            where=origin.source,
            fix="Name the backbone that these weights belong to, or state "
            f"model.weights.allow_missing: [{some(lost)}]",
        )
    model.load_state_dict(filled, strict=False)
    return replace(
        origin,
        loaded=tuple(n for n in network if n in filled),
        missing=tuple(missing),
        skipped=tuple(skipped.values()),
        unused=tuple(n for n in found if n not in network),
        notes=(*origin.notes, *notes),
    )


def in_names_of(
    model: nn.Module, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Return tensors without a shared prefix and as timm reads them, and what was done, in words.

    Args:
        model: The network.
        tensors: Name -> tensor; what they hold plays no part.
    """
    network = model.state_dict()
    found, prefix = _unprefixed(tensors, network)
    notes = [f"prefix '{prefix}' taken off"] if prefix else []
    if (fits := len(fitting(found, network))) < len(network):
        given = _as_timm_reads(model, found)
        if len(fitting(given, network)) > fits:
            found = given
            notes.append("renamed and resampled as timm does for this network")
    return found, notes


def fitting(found: Mapping[str, Tensor], network: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that have a place of their name and shape in a network."""
    return {n: t for n, t in found.items() if n in network and t.shape == network[n].shape}


def lost_and_misfit(
    found: Mapping[str, Tensor], network: Mapping[str, Tensor]
) -> tuple[list[str], dict[str, str]]:
    """Return the network's names that were not found, and those of another shape with both."""
    # A batch-norm counter steers nothing here, and older files do not have it.
    missing = [n for n in network if n not in found and not n.endswith("_tracked")]
    misfit = {
        n: f"{n}: {tuple(t.shape)}, network {tuple(network[n].shape)}"
        for n, t in found.items()
        if n in network and t.shape != network[n].shape
    }
    return missing, misfit


def _create(
    name: str,
    *,
    pretrained: bool,
    in_channels: int,
    image_size: tuple[int, ...],
    options: Mapping[str, Any],
) -> tuple[Any, tuple[str, ...]]:
    """A timm network without its classifier, for images of a size, and what is to be said of it."""
    made = partial(_made, name, pretrained=pretrained, in_chans=in_channels, **options)
    model = made()
    if not image_size or not (fault := _fault_of(model, in_channels, image_size)):
        return model, ()
    wanted = " x ".join(map(str, image_size))
    own = " x ".join(map(str, model.pretrained_cfg["input_size"][1:]))
    try:
        model = made(img_size=image_size)
        fault = _fault_of(model, in_channels, image_size)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:  # no such option or size
        fault = f"{fault}; {error}"
    if fault:
        raise WeightsError(
            f"{name} cannot take images of {wanted}: {fault}",
            expected=f"{own}, the size it is made for, or another that fits it",
            where="image.size",
            fix=f"Write image.size: {own.partition(' ')[0]}, or take another backbone",
        )
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", (1, 1))
    unseen = [side % length for side, length in zip(image_size, patch, strict=True)]
    notes = [f"made for images of {wanted} in place of {own}"]
    if any(unseen):
        notes.append("its patches leave out the last {} rows and {} columns".format(*unseen))
    return model, tuple(notes)


def _made(name: str, *, pretrained: bool, **options: Any) -> Any:
    """A network as timm makes it."""
    import timm

    said = ""
    try:
        if not pretrained:
            return timm.create_model(name, num_classes=0, **options)
        with _patience() as said:
            return timm.create_model(name, pretrained=True, num_classes=0, **options)
    except Exception as error:  # timm passes on whatever its downloaders raise
        if not pretrained:
            raise
        raise WeightsError(
            f"timm could not provide weights for {name} ({type(error).__name__}){said}",
            where="model.weights",
            fix="Without internet access, give a local file: weights: {source: file, path: ...}",
        ) from error


@contextmanager
def _patience() -> Iterator[str]:
    """Where no server can be found, let timm look into its cache alone, at once; say so.

    Its downloader tries five times, ever more slowly. Behind a proxy names are the proxy's to find.
    """
    from huggingface_hub import constants

    before, said = constants.HF_HUB_OFFLINE, ""
    if not before and not getproxies():
        try:
            socket.getaddrinfo("huggingface.co", 443)
        except OSError:
            constants.HF_HUB_OFFLINE, said = True, "; there is no network"
    try:
        yield said
    finally:
        constants.HF_HUB_OFFLINE = before


def _fault_of(model: nn.Module, channels: int, image_size: tuple[int, ...]) -> str:
    """Why a network cannot take images of a size, "" when it can."""
    try:
        with evaluating(model), torch.no_grad():
            model(torch.zeros(1, channels, *image_size))
    except Exception as error:  # networks of others refuse a size in any way
        return f"{type(error).__name__} {error}".partition("\n")[0].strip()
    return ""


def _as_timm_reads(model: nn.Module, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Old names and sizes of position embeddings put right by timm's own filter, where it has one.

    Without it a Swin of an older timm loses its down-sampling layers.
    """
    read = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    try:
        return found if read is None else dict(read(dict(found), model))
    except Exception:  # the filter of one network meets the file of another
        return found


def verified_file(source: WeightsSource) -> tuple[Path, str]:
    """Return the weights file and its SHA-256.

    Args:
        source: Of kind "file".

    Raises:
        WeightsError: When there is no such file, or its hash is not the stated one.
    """
    if source.path is None or not source.path.is_file():
        name = source.path.name if source.path else "(no path given)"
        fix = "Give a path relative to the recipe: weights: {source: file, path: ...}"
        raise WeightsError("there is no such weights file", where=name, fix=fix)
    sha256 = sha256_file(source.path)
    if source.sha256 is not None and source.sha256.lower() != sha256:
        raise WeightsError(
            f"the file's SHA-256 is {sha256}",
            expected=source.sha256,
            where=source.path.name,
            fix="The file is another one or was altered: get it again from its source",
        )
    return source.path, sha256


def _unprefixed(
    tensors: Mapping[str, Tensor], network: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], str]:
    """The tensors without the prefix that most names share, and the prefix."""
    prefix = _best_prefix(tensors, network)
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}, prefix


def _best_prefix(tensors: Mapping[str, Tensor], network: Mapping[str, Tensor]) -> str:
    """The leading part of names, without which most tensors fit; the shortest of equals."""
    counts = {"": 0}
    for name, tensor in tensors.items():
        parts = name.split(".")
        for depth in range(len(parts)):
            prefix = "".join(f"{part}." for part in parts[:depth])
            place = network.get(name.removeprefix(prefix))
            fits = place is not None and place.shape == tensor.shape
            counts[prefix] = counts.get(prefix, 0) + fits
    return max(counts, key=lambda prefix: (counts[prefix], -len(prefix)))


def _adapt_channels(model: Any, found: dict[str, Tensor]) -> list[str]:
    """Fit a pretrained first convolution to the network's input channels, in place; say so.

    A grey picture gives what it gave, whichever of the two has one channel; else the channels come
    again in turn, at a strength that keeps the sum of as many of them.
    """
    from timm.models import adapt_input_conv

    name = f"{getattr(model, 'default_cfg', {}).get('first_conv')}.weight"
    place, given = model.state_dict().get(name), found.get(name)
    if place is None or given is None or given.ndim != 4:
        return []
    had, has = given.shape[1], place.shape[1]
    if had == has or given.shape[0] != place.shape[0]:
        return []
    found[name] = adapt_input_conv(has, given, base_chans=had)
    return [f"first convolution adapted from {had} to {has} channels"]


def some(names: Iterable[str], most: int = 4) -> str:
    """Return the first names of many, for a sentence."""
    listed = list(names)
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")
