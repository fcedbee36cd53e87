"""Decode every image of a study once: unit images, content hashes, and what was odd about them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from medtl.cases.leaks import content_hash
from medtl.data.store import ImageStore, RowWriter, levels
from medtl.errors import ImageError, RunError
from medtl.io.cost import DEFAULT_LIMITS, Limits
from medtl.io.dicom.sop_classes import NO_IMAGES
from medtl.io.masks import read_mask
from medtl.io.pairs import Mask
from medtl.io.read import read_image
from medtl.io.vectors import read_features
from medtl.preprocess.feature_scaler import FeatureScaler
from medtl.preprocess.pipeline import Preprocessor
from medtl.preprocess.volume import VolumePreprocessor
from medtl.storage.parts import WHOLE, Share
from medtl.types import Case, Image

Progress = Callable[[int, int], None]

Item = TypeVar("Item")
Done = TypeVar("Done")

Encode = Callable[[NDArray[np.integer]], NDArray[np.uint8]]
"""From the values of a mask file to what the loss takes."""


@dataclass(frozen=True)
class ReadRecord:
    """What reading one case found.

    Attributes:
        case_id: The case.
        sha256: Hash of the decoded pixels, "" when they could not be read.
        cause: Why they could not be read, "" when they could.
        flags: Oddities for the data-quality report.
        facts: Header facts, spacing and intensity that `prediction.likeness` compares.
    """

    case_id: str
    sha256: str = ""
    cause: str = ""
    flags: tuple[str, ...] = ()
    facts: dict[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageReader:
    """How files of a study become unit images.

    Attributes:
        preprocessor: The recipe's preprocessing.
        voi: Whether the file's own VOI LUT or window is applied.
        color: "grey" or "rgb".
        root: Folder that messages name files relative to.
        dimensions: Of the images the network takes, 2 or 3; 1 for features made elsewhere.
        labels: Value in the masks -> name of the structure.
        overlapping: Whether structures may overlap: masks then have a plane for each.
        at_least: Pixels of the longer side that JPEG and JPEG 2000 may be decoded at; None: whole.
        limits: What one file may cost.
    """

    preprocessor: Preprocessor | VolumePreprocessor | FeatureScaler
    voi: bool = False
    color: Literal["grey", "rgb"] = "grey"
    root: Path | None = None
    dimensions: int = 2
    labels: Mapping[int, str] = field(default_factory=dict)
    overlapping: bool = False
    at_least: int | None = None
    limits: Limits = DEFAULT_LIMITS

    @property
    def features(self) -> int:
        """Numbers of a vector that stands for an image; 0 for images."""
        return self.preprocessor.features if isinstance(self.preprocessor, FeatureScaler) else 0

    def require_images(self) -> Preprocessor | VolumePreprocessor:
        """Return the preprocessing, where it is of images and not of features made elsewhere.

        Raises:
            RunError: When it is of features.
        """
        if isinstance(self.preprocessor, FeatureScaler):
            raise RunError(
                f"the run was trained on {self.features} features made elsewhere",
                expected="a run of images",
                fix="Do it with the network that made the features",
            )
        return self.preprocessor

    def read(self, case: Case) -> Image:
        """The image of one case in real-world units.

        Raises:
            ImageError: When the file cannot or must not be read, shows no patient (a segmentation,
                a dose), or has other dimensions.
        """
        if self.dimensions == 1:
            return read_features(case.image, case.frame, root=self.root)
        image = read_image(
            case.image,
            root=self.root,
            voi=self.voi,
            color=self.color,
            frame=case.frame,
            at_least=self.at_least,
            limits=self.limits,
        )
        if self.dimensions == 2 and image.array.ndim == 4 and image.array.shape[-1] == 1:
            return self.read(replace(case, frame=0))  # NIfTI gives a picture a third axis
        if no_image := set(image.flags) & set(NO_IMAGES.values()):
            raise ImageError(
                no_image.pop().replace("_", " "),
                expected="an image of a patient",
                where=case.image.name,
                fix="Name the image that it was made from; a segmentation may be its mask",
            )
        if image.array.ndim != 1 + self.dimensions:
            raise ImageError(
                f"an image of {image.array.ndim - 1} dimensions",
                expected=f"{self.dimensions}",
                where=case.image.name,
                fix="Name the slice or frame in a 'frame' column of the manifest"
                if self.dimensions == 2
                else "Name the folder of a DICOM series or a NIfTI volume",
            )
        return image

    def read_mask(self, case: Case, image: Image) -> Mask:
        """The mask of one case on the grid of its image.

        Raises:
            ImageError: When there is none, or it does not belong to the image.
        """
        if case.mask is None:
            raise ImageError("the case has no mask", where=f"row {case.row}")
        return read_mask(
            case.mask,
            like=image,
            labels=self.labels,
            multi_label=self.overlapping,
            frame=case.frame,
            source=case.image,
            root=self.root,
        )


def decode_cases(
    cases: Sequence[Case],
    reader: ImageReader,
    *,
    encode: Encode | None = None,
    file: Path | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[ImageStore, list[ReadRecord]]:
    """Read all cases in parallel; a file that cannot be read costs its own case only.

    Args:
        cases: What to read.
        reader: How.
        encode: What makes training masks of the masks' values; None reads no masks.
        file: Where to memory-map the unit images (their masks beside them); None keeps them in
            memory.
        threads: None takes one for each core that this process may use. Decoders release the
            interpreter lock, so threads are enough.
        progress: Called with (done, total).

    Returns:
        The store of the readable cases in the order of `cases`, and one record per case.
    """
    units = _row_writer(reader, file)
    has_masks = encode is not None
    beside = None if file is None else file.with_name(f"{file.name}_masks")
    masks = RowWriter(np.uint8, beside if has_masks else None)
    records: list[ReadRecord] = []
    readable: list[str] = []
    threads = threads or _cores()
    with ThreadPoolExecutor(threads) as pool:
        for unit, mask, record in in_order(
            pool, lambda case: _decode(case, reader, encode), cases, ahead=4 * threads
        ):
            if unit is not None:
                units.append(_as_kept(unit, reader))
                readable.append(record.case_id)
            if mask is not None:
                masks.append(mask)
            records.append(record)
            if progress is not None:
                progress(len(records), len(cases))
    return ImageStore(tuple(readable), units.rows(), masks.rows() if has_masks else None), records


def read_in_parts(
    cases: Sequence[Case], reader: ImageReader, size: int, share: Share = WHOLE
) -> Iterator[tuple[ImageStore, list[ReadRecord]]]:
    """Yield what `decode_cases` returns for a few cases after the other, and keep none of them.

    Args:
        cases: Any number.
        reader: How they are read; a volume is a part of its own.
        size: Most cases of a part; parts differ by one at most, as `EpochBatches` does.
        share: Which parts are read; they are cut alike whatever the share, so that a network meets
            the same batches.
    """
    threads = _cores()
    number = len(cases) if reader.dimensions == 3 else -(-len(cases) // size)
    parts = share.take(np.array_split(np.arange(len(cases)), max(1, number)))
    ours = (cases[row] for part in parts for row in part)
    with ThreadPoolExecutor(threads) as pool:
        ahead = 2 if reader.dimensions == 3 else 2 * size + threads
        read = in_order(pool, lambda case: _decode(case, reader, None), ours, ahead=ahead)
        for part in parts:
            units, records = _row_writer(reader), list[ReadRecord]()
            for unit, _, record in islice(read, len(part)):
                records.append(record)
                if unit is not None:
                    units.append(_as_kept(unit, reader))
            readable = tuple(record.case_id for record in records if not record.cause)
            yield ImageStore(readable, units.rows()), records


def in_order(
    pool: ThreadPoolExecutor, call: Callable[[Item], Done], items: Iterable[Item], *, ahead: int
) -> Iterator[Done]:
    """Yield what a call makes of each item, in their order, with few of them in memory.

    Args:
        pool: Calls.
        call: For one item.
        items: Any number.
        ahead: Items that may be begun before the first result is taken.
    """
    begun: deque[Future[Done]] = deque()
    try:
        for item in items:
            begun.append(pool.submit(call, item))
            if len(begun) >= ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for waiting in begun:
            waiting.cancel()


def _row_writer(reader: ImageReader, file: Path | None = None) -> RowWriter:
    """What collects the unit images: in levels, but of features the numbers themselves."""
    return RowWriter(np.float32 if reader.dimensions == 1 else np.uint16, file)


def _as_kept(unit: NDArray[np.float32], reader: ImageReader) -> NDArray[Any]:
    """A unit image as `_row_writer` takes it."""
    return unit if reader.dimensions == 1 else levels(unit)


def _cores() -> int:
    """Cores for this process: those it may use, shared with those that train beside it."""
    able = getattr(os, "sched_getaffinity", None)
    cores = len(able(0)) if able else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def check_readable(records: Sequence[ReadRecord], limit: float) -> None:
    """Stop when too many files could not be read.

    Args:
        records: One per case.
        limit: Largest share of unreadable files, in [0, 1].

    Raises:
        RunError: Naming the share and the commonest causes.
    """
    causes = [record.cause for record in records if record.cause]
    if len(causes) > limit * len(records):
        examples = "; ".join(sorted(set(causes))[:3])
        raise RunError(
            f"{len(causes)} of {len(records)} images could not be used ({examples})",
            expected=f"at most {limit:.0%}",
            fix="See data_quality.json; repair or drop these rows, or raise data.max_unreadable",
        )


def _decode(
    case: Case, reader: ImageReader, encode: Encode | None
) -> tuple[NDArray[np.float32] | None, NDArray[np.uint8] | None, ReadRecord]:
    """One case as a unit image, its training mask if it has one, and its record."""
    flags: tuple[str, ...] = ()
    mask = None
    try:
        image = reader.read(case)
        unit = reader.preprocessor.to_unit(image)
        if encode is not None:
            drawn = reader.read_mask(case, image)
            mask = reader.require_images().mask_to_unit(encode(drawn.array), image)
            flags = drawn.flags
    except ImageError as error:
        # Without the file's name, which may name a person; `manifest whois` knows the path.
        cause = str(ImageError(error.found, expected=error.expected, fix=error.fix))
        return None, None, ReadRecord(case.case_id, cause=cause)
    record = ReadRecord(
        case.case_id,
        sha256=content_hash(image.array),
        flags=(*image.flags, *flags),
        facts=_facts(image, unit),
    )
    return unit, mask, record


def _facts(image: Image, unit: NDArray[np.float32]) -> dict[str, str | float]:
    """What later tells whether an image is unlike those of training."""
    facts: dict[str, str | float] = {"modality": image.modality, **image.header}
    facts["pixels"] = max(image.array.shape[1:])
    if image.spacing is not None:
        facts["spacing_mm"] = float(np.mean(image.spacing))
        longest = max(mm * n for mm, n in zip(image.spacing, image.array.shape[1:], strict=True))
        facts["unit_mm"] = longest / max(unit.shape[1:])
    low, median, high = np.percentile(unit, (5, 50, 95))
    facts.update(unit_p5=float(low), unit_p50=float(median), unit_p95=float(high))
    return facts
