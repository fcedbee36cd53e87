"""The steps by which the names in a file of weights become those of a network."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from medtl.errors import WeightsError
from medtl.networks.pretrained.cards import Rule

Tensors = dict[str, Tensor]


def apply_rules(
    tensors: Mapping[str, Tensor], rules: Sequence[Rule], network: Mapping[str, Tensor]
) -> Tensors:
    r"""Return the tensors of a file under the names of a network.

    * `strip: P`: if any name begins with P, only those are taken, without it. Several are tried.
    * `drop: R`: what the regular expression finds is left out.
    * `rename: {R: TO, ...}`: each expression in turn, groups as in `re.sub`.
    * `join: {TO: [A, B, C]}`: names that differ in one part alone (A, B or C) become one tensor,
      one after the other along the first axis, with the part TO.
    * `split: {FROM: {A: 1, B: 2}}`: the other way; the numbers are shares of the first axis.
    * `order: {R: N}`: what R finds, in the file's order, takes the names that N finds in the
      network, in the network's order (a positional alias); last parts of the names must be equal.
    * `unsqueeze: R`: an axis of length 1 is put in front.
    * `grey: R`: the input channels of what R finds become one, for images that were repeated.
    * `axes: [i, j, k]`: the order of the spatial axes of 3D convolutions.

    Args:
        tensors: As read.
        rules: Of a card.
        network: What the names are to become, with shapes.

    Raises:
        WeightsError: When a rule is not known, or a positional alias has another number of names.

    >>> tensors = {"m.q.weight": torch.zeros(2, 3), "m.k.weight": torch.ones(2, 3)}
    >>> {name: list(tensor.shape) for name, tensor in
    ...  apply_rules(tensors, [("strip", "m."), ("join", {"qk": ["q", "k"]})], {}).items()}
    {'qk.weight': [4, 3]}
    """
    named = dict(tensors)
    for rule, what in rules:
        step = _STEPS.get(rule)
        if step is None:
            raise WeightsError(f"no rule {rule!r}", expected=f"one of {', '.join(_STEPS)}")
        named = step(named, what, network)
    return named


def _strip(tensors: Tensors, what: Any, _: Any) -> Tensors:
    for prefix in [what] if isinstance(what, str) else what:
        if any(name.startswith(prefix) for name in tensors):
            return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    return tensors


def _drop(tensors: Tensors, what: Any, _: Any) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if not re.search(what, name)}


def _rename(tensors: Tensors, what: Any, _: Any) -> Tensors:
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, to in what.items():
            name = re.sub(pattern, to, name)  # noqa: PLW2901
        renamed[name] = tensor
    return renamed


def _join(tensors: Tensors, what: Any, _: Any) -> Tensors:
    joined = dict(tensors)
    for into, parts in what.items():
        for name in list(joined):
            pieces = name.split(".")
            if parts[0] not in pieces:
                continue
            place = pieces.index(parts[0])
            names = [".".join((*pieces[:place], part, *pieces[place + 1 :])) for part in parts]
            if all(one in joined for one in names):
                whole = ".".join((*pieces[:place], into, *pieces[place + 1 :]))
                joined[whole] = torch.cat([joined.pop(one) for one in names])
    return joined


def _split(tensors: Tensors, what: Any, _: Any) -> Tensors:
    parted = {}
    for name, tensor in tensors.items():
        source = next((part for part in what if f".{part}" in f".{name}"), None)
        if source is None:
            parted[name] = tensor
            continue
        shares = what[source]
        unit = tensor.shape[0] // sum(shares.values())
        pieces = torch.split(tensor, [share * unit for share in shares.values()])
        for part, piece in zip(shares, pieces, strict=True):
            parted[name.replace(source, part)] = piece
    return parted


def _order(tensors: Tensors, what: Any, network: Mapping[str, Tensor]) -> Tensors:
    named = dict(tensors)
    for pattern, places in what.items():
        given = [name for name in named if re.search(pattern, name)]
        wanted = [name for name in network if re.search(places, name)]
        if [_last(name) for name in given] != [_last(name) for name in wanted]:
            raise WeightsError(
                "the file's tensors do not stand in the order of timm's network",
                expected=f"{len(wanted)} like {places}, in its order; {len(given)} like {pattern}",
                where="model.weights",
                fix="Name the card that these weights belong to; of those that come with the "
                "installation, install the pinned versions (constraints.txt)",
            )
        found = [named.pop(name) for name in given]
        named.update(zip(wanted, found, strict=True))
    return named


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _unsqueeze(tensors: Tensors, what: Any, _: Any) -> Tensors:
    return {n: t[None] if re.search(what, n) else t for n, t in tensors.items()}


def _grey(tensors: Tensors, what: Any, _: Any) -> Tensors:
    # Half precision is left first: its sums round.
    return {
        n: t.float().sum(1, keepdim=True) if re.search(what, n) else t for n, t in tensors.items()
    }


def _axes(tensors: Tensors, what: Any, _: Any) -> Tensors:
    order = (0, 1, *(2 + axis for axis in what))
    return {n: t.permute(order) if t.ndim == 5 else t for n, t in tensors.items()}


_STEPS: dict[str, Callable[[Tensors, Any, Mapping[str, Tensor]], Tensors]] = {
    "strip": _strip,
    "drop": _drop,
    "rename": _rename,
    "join": _join,
    "split": _split,
    "order": _order,
    "unsqueeze": _unsqueeze,
    "grey": _grey,
    "axes": _axes,
}
