"""Decode every image of a study once: unit images, content hashes, and what was odd about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medtl.errors import ImageError, RunError
from medtl.io.leaks import content_hash
from medtl.io.read import read_image
from medtl.preprocess.pipeline import Preprocessor
from medtl.training.store import ImageStore, RowWriter, levels
from medtl.types import Case, Image

Progress = Callable[[int, int], None]


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
        dimensions: Of the images the network takes, 2 or 3.
    """

    preprocessor: Preprocessor
    voi: bool = False
    color: Literal["grey", "rgb"] = "grey"
    root: Path | None = None
    dimensions: int = 2

    def read(self, case: Case) -> Image:
        """The image of one case in real-world units.

        Raises:
            ImageError: When the file cannot or must not be read, or has other dimensions.
        """
        image = read_image(
            case.image,
            root=self.root,
            voi=self.voi,
            color=self.color,
            frame=case.frame,
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


def decode_cases(
    cases: Sequence[Case],
    reader: ImageReader,
    *,
    file: Path | None = None,
    threads: int = 2,
    progress: Progress | None = None,
) -> tuple[ImageStore, list[ReadRecord]]:
    """Read all cases in parallel; a file that cannot be read costs its own case only.

    Args:
        cases: What to read.
        reader: How.
        file: Where to memory-map the unit images; None keeps them in memory.
        threads: Decoders release the interpreter lock, so threads are enough.
        progress: Called with (done, total).

    Returns:
        The store of the readable cases in the order of `cases`, and one record per case.
    """
    units = RowWriter(np.uint16, file)
    records: list[ReadRecord] = []
    readable: list[str] = []
    with ThreadPoolExecutor(threads) as pool:
        for unit, record in pool.map(lambda case: _decode(case, reader), cases):
            if unit is not None:
                units.append(levels(unit))
                readable.append(record.case_id)
            records.append(record)
            if progress is not None:
                progress(len(records), len(cases))
    return ImageStore(tuple(readable), units.rows()), records


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
            f"{len(causes)} of {len(records)} images could not be read ({examples})",
            expected=f"at most {limit:.0%}",
            fix="See data_quality.json; repair or drop these rows, or raise data.max_unreadable",
        )


def _decode(case: Case, reader: ImageReader) -> tuple[NDArray[np.float32] | None, ReadRecord]:
    """One case as a unit image and its record."""
    try:
        image = reader.read(case)
        unit = reader.preprocessor.to_unit(image)
    except ImageError as error:
        return None, ReadRecord(case.case_id, cause=str(error))
    record = ReadRecord(
        case.case_id,
        sha256=content_hash(image.array),
        flags=image.flags,
        facts=_facts(image, unit),
    )
    return unit, record


def _facts(image: Image, unit: NDArray[np.float32]) -> dict[str, str | float]:
    """What later tells whether an image is unlike those of training."""
    facts: dict[str, str | float] = {"modality": image.modality, **image.header}
    if image.spacing is not None:
        facts["spacing_mm"] = float(np.mean(image.spacing))
    low, median, high = np.percentile(unit, (5, 50, 95))
    facts.update(unit_p5=float(low), unit_p50=float(median), unit_p95=float(high))
    return facts
