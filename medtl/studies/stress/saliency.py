"""Do heat maps mean something: do they follow the weights, and do they lie inside an organ?

A map that stays what it was when the network's weights are drawn anew shows the picture, not what
the network has learned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medtl.data.reader import decode_cases
from medtl.errors import RunError
from medtl.metrics.intervals import skewed_mean
from medtl.networks.groups import layer_groups
from medtl.prediction.committee import Committee
from medtl.prediction.sink import TrainedModel
from medtl.prediction.table import heat_map
from medtl.preprocess.geometry import resize
from medtl.run.files import refuse_existing
from medtl.run.folder import Run
from medtl.storage.atomic import write_json, write_text
from medtl.studies.judgement import markdown_table
from medtl.studies.subject import Subject, read_subject
from medtl.types import Progress, silent

LEAST_PLACES = 9
"""Of a map on the grid of the last features, three by three."""

MOST = 100
"""Images that are looked at, drawn by seed 0."""


@dataclass(frozen=True)
class Mean:
    """The mean of a number over images.

    Attributes:
        of: What is averaged.
        value: The mean.
        low, high: 95 % t interval over patients; None where nothing varies.
        images: How many.
    """

    of: str
    value: float
    low: float | None
    high: float | None
    images: int


@dataclass(frozen=True)
class Saliency:
    """What the heat maps of one label are worth.

    Attributes:
        label: Whose maps.
        images: Looked at.
        empty: Of them, maps that show nothing anywhere.
        likeness: Rank correlation with the map after all layers down to a group were drawn anew,
            from the head on.
        inside: Share of a map inside the organ, and share of the picture that the organ covers; ()
            where no organ was named.
    """

    label: str
    images: int
    empty: int
    likeness: tuple[Mean, ...]
    inside: tuple[Mean, ...]


def check_saliency(
    run: Run,
    data: str | PathLike[str],
    out: str | PathLike[str],
    *,
    organ: Run | None = None,
    progress: Progress = silent,
) -> list[Saliency]:
    """Check the heat maps of a run; leave `saliency.json` and `saliency.md`.

    Args:
        run: Finished; a classifier, or one of a quantity, of pictures.
        data: The run's own manifest, of which the test cases are taken, or new cases with truth.
        out: A new folder.
        organ: A run of masks: what share of a map lies inside what it draws.
        progress: Told of reading and of each group of layers.

    Raises:
        RunError: When the run has no heat maps, the other draws no masks, or `out` exists.

    Reference:
        Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018, section 3.1 (cascading
        randomisation).
    """
    refuse_existing(out := Path(out), resume=False)
    if organ is not None and organ.trained.task.encode is None:
        raise RunError(
            f"{organ.path.name} draws no masks", where="--inside", expected="a run of masks"
        )
    subject = read_subject(run, data, most=MOST, progress=progress)
    _require_maps(subject, run.path.name)
    checked = list(_checked(subject, organ, progress))
    out.mkdir(parents=True)
    write_json(out / "saliency.json", {"labels": [asdict(one) for one in checked]})
    write_text(out / "saliency.md", saliency_markdown(checked))
    return checked


def _require_maps(subject: Subject, name: str) -> None:
    """Refuse a run whose maps cannot be compared.

    Raises:
        RunError: When there are none, or they have too few places to put in order.
    """
    trained = subject.trained
    first = None if subject.is_of_masks else _maps(subject, trained, trained.task.labels[0])
    if first is None:
        raise RunError(
            f"{name} has no heat maps",
            expected="a classifier, or a run of a quantity, whose features have a place",
        )
    if first[0].size < LEAST_PLACES:
        raise RunError(
            f"the heat maps of {name} have {first[0].size} places",
            expected=f"at least {LEAST_PLACES}, to be put in order",
            fix="A larger image.size gives finer maps",
        )


def _checked(subject: Subject, organ: Run | None, progress: Progress) -> Iterator[Saliency]:
    """Yield the verdict of each label."""
    who = np.unique([case.patient_id for case in subject.cases], return_inverse=True)[1]
    organs = None if organ is None else _organs(subject, organ)
    labels = subject.trained.task.labels
    own = {label: _maps(subject, subject.trained, label) for label in labels}
    likeness: dict[str, list[Mean]] = {label: [] for label in labels}
    drawn = list(randomised(subject.trained.model))
    for number, (group, model) in enumerate(drawn):
        progress("Layers drawn anew", number, len(drawn))
        changed = replace(subject.trained, model=model)
        for label in labels:
            kept = own[label]
            assert kept is not None
            other = _maps(subject, changed, label)
            assert other is not None
            full = [place for place, one in enumerate(kept) if one.any()]
            alike = [rank_correlation(kept[place], other[place]) for place in full]
            likeness[label].append(_mean(group, alike, who[full]))
    progress("Layers drawn anew", len(drawn), len(drawn))
    for label in labels:
        maps = own[label]
        assert maps is not None
        inside = () if organs is None else tuple(_inside(maps, organs, who))
        empty = sum(not one.any() for one in maps)
        yield Saliency(label, len(maps), empty, tuple(likeness[label]), inside)


def randomised(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield (group, network): the layers from the head down to the group were drawn anew.

    Args:
        model: Stays as it is; of a committee every network is drawn anew. The seed is 0.
    """
    changed = deepcopy(model)
    members: Any = changed.members if isinstance(changed, Committee) else (changed,)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for groups in zip(*(reversed(layer_groups(member)) for member in members), strict=True):
            for member, group in zip(members, groups, strict=True):
                for name in group.modules:
                    reset = getattr(member.get_submodule(name), "reset_parameters", None)
                    if reset is not None:
                        reset()
            yield groups[0].name, deepcopy(changed)


def rank_correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return Spearman's correlation of two maps; 0 where one of them is the same everywhere.

    Example:
        >>> rising = np.arange(4.0).reshape(2, 2)
        >>> rank_correlation(rising, rising**2), rank_correlation(rising, np.ones((2, 2)))
        (1.0, 0.0)
    """
    from scipy.stats import rankdata

    first, second = (rankdata(part) - (part.size + 1) / 2 for part in (one, other))
    size = float(np.sqrt((first @ first) * (second @ second)))
    return float(np.clip(first @ second / size, -1, 1)) if size else 0.0


def _maps(
    subject: Subject, trained: TrainedModel[Any, Any], label: str
) -> list[NDArray[np.float32]] | None:
    """The heat map of every case; None where the network has none."""
    found = []
    for row, case in zip(subject.store.rows(subject.cases), subject.cases, strict=True):
        one = heat_map(trained, subject.store.unit(int(row)), case, label)
        if one is None:
            return None
        found.append(one)
    return found


def _organs(subject: Subject, organ: Run) -> list[NDArray[np.bool_]]:
    """What the other run draws on each image, on the grid of the run that is checked."""
    trained = organ.trained
    reader: Any = trained.reader
    geometry: Any = reader.require_images()
    store, _ = decode_cases(subject.cases, reader)
    readable = set(store.case_ids)
    if missing := [case for case in subject.cases if case.case_id not in readable]:
        raise RunError(f"{organ.path.name} cannot read {len(missing)} images", where="--inside")
    each = (score for batch in trained.scores(store, subject.cases) for score in batch)
    masks = []
    for case, scores in zip(subject.cases, each, strict=True):
        image = reader.read(case)
        drawn = trained.task.label_map(geometry.from_unit(scores, geometry.grid(image)))
        filled = (drawn if trained.task.exclusive else drawn.any(axis=0)) > 0
        own = subject.trained.reader.require_images()
        masks.append(np.asarray(own.mask_to_unit(filled.astype(np.uint8), image) == 1))
    return masks


def _inside(
    maps: Sequence[NDArray[np.float32]], organs: Sequence[NDArray[np.bool_]], who: NDArray[np.int64]
) -> Iterator[Mean]:
    """Yield the share of the maps inside the organs, and that of the pictures."""
    shares, areas, kept = [], [], []
    for place, (heat, organ) in enumerate(zip(maps, organs, strict=True)):
        if heat.any():
            large = resize(heat[None], organ.shape)[0]
            shares.append(float(large[organ].sum() / large.sum()))
            areas.append(float(organ.mean()))
            kept.append(place)
    yield _mean("of the map", shares, who[kept])
    yield _mean("of the picture", areas, who[kept])


def _mean(of: str, values: Sequence[float], who: NDArray[np.int64]) -> Mean:
    """A mean over images with its interval over patients."""
    codes = np.unique(who, return_inverse=True)[1]
    ends = skewed_mean(values, codes) if len(values) > 1 else None
    low, high = (None, None) if ends is None else map(float, ends)
    return Mean(of, float(np.mean(values)) if values else float("nan"), low, high, len(values))


def saliency_markdown(found: Sequence[Saliency]) -> str:
    """Return what the maps are worth, as Markdown.

    Args:
        found: Of each label.
    """
    lines: list[str] = []
    for one in found:
        rows = [[mean.of, _shown(mean)] for mean in one.likeness]
        lines += [
            *(f"## {one.label}", ""),
            f"{one.images} images; {one.empty} maps show nothing and are left out. Rank "
            "correlation with the map after all layers down to a group were drawn anew:",
            *("", *markdown_table("ll", ("down to", "correlation"), rows), ""),
        ]
        if one.inside:
            share, area = map(_shown, one.inside)
            lines += [f"Inside the organ: {share} of the map, {area} of the picture.", ""]
    lines.append(
        "Near 0 says that the maps follow what was learned; a map that survives shows the picture. "
        "95 % intervals over patients, not adjusted for the number of groups."
    )
    return "\n".join(lines) + "\n"


def _shown(mean: Mean) -> str:
    """A mean as text."""
    ends = "" if mean.low is None else f" [{mean.low:.2f}, {mean.high:.2f}]"
    return f"{mean.value:.2f}{ends}"
