"""`make bench`: run every pair, print the table, write it to reports/benchmarks.md."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np

ROUNDS = 5
OUT = Path(__file__).parents[1] / "reports" / "benchmarks.md"


@dataclass(frozen=True)
class Row:
    """One comparison: processor seconds of each side, the ratio, and whether results agree."""

    what: str
    other: str
    ours: float
    theirs: float
    ratio: float
    agreement: str


def compare(
    what: str,
    other: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    agreement: Callable[[object, object], str],
) -> Row:
    """Time both sides in turn and return the median of the ratios (theirs / ours)."""
    note = agreement(ours(), theirs())
    pairs = [(_seconds(ours), _seconds(theirs)) for _ in range(ROUNDS)]
    return Row(
        what,
        other,
        median(a for a, _ in pairs),
        median(b for _, b in pairs),
        median(b / a for a, b in pairs),
        note,
    )


def _seconds(work: Callable[[], object]) -> float:
    started = process_time()
    work()
    return process_time() - started


def film(folder: Path) -> Path:
    """A 2500 x 2048 radiograph, 12 bits in 16, uncompressed."""
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    rng = np.random.default_rng(0)
    rows, columns = 2500, 2048
    y, x = np.mgrid[0:rows, 0:columns]
    smooth = 2000 + 1500 * np.sin(y / 400) * np.cos(x / 300)
    pixels = np.clip(smooth + rng.normal(0, 20, (rows, columns)), 0, 4095).astype(np.uint16)
    ds = pydicom.Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", generate_uid()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.Modality, ds.Rows, ds.Columns = "DX", rows, columns
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.RescaleSlope, ds.RescaleIntercept = 1, 0
    ds.PixelSpacing = [0.14, 0.14]
    ds.PixelData = pixels.tobytes()
    path = folder / "film.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path


def dicom_to_unit(path: Path) -> Row:
    """File to a 224 x 224 picture in [0, 1]."""
    import cv2
    import pydicom
    from pydicom.pixels import apply_modality_lut

    from medtl.io.read import read_image
    from medtl.preprocess.pipeline import Preprocessor

    preprocessor = Preprocessor(size=224)

    def ours() -> object:
        return preprocessor.to_unit(read_image(path))

    def theirs() -> object:
        ds = pydicom.dcmread(path)
        array = apply_modality_lut(ds.pixel_array, ds)
        low, high = np.percentile(array, (0.5, 99.5))
        unit = np.clip((array - low) / (high - low), 0, 1).astype(np.float32)
        side = max(unit.shape)
        height, width = (round(224 * n / side) for n in unit.shape)
        small = cv2.resize(unit, (width, height), interpolation=cv2.INTER_AREA)
        padded = np.zeros((1, 224, 224), np.float32)
        top, left = (224 - height) // 2, (224 - width) // 2
        padded[0, top : top + height, left : left + width] = small
        return padded

    return compare(
        "2500 x 2048 DICOM to 224 px in [0, 1]",
        "pydicom + numpy + OpenCV",
        ours,
        theirs,
        _largest_difference,
    )


def delong(n: int) -> Row:
    """AUROC with a 95 % interval, against 1000 bootstraps of scikit-learn (timed for 3)."""
    from sklearn.metrics import roc_auc_score

    from medtl.metrics.ranking import auroc

    rng = np.random.default_rng(0)
    truth = rng.random(n) < 0.3
    score = truth + rng.normal(size=n)

    def theirs() -> object:
        drawn = [rng.integers(0, n, n) for _ in range(3)]
        return [roc_auc_score(truth[rows], score[rows]) for rows in drawn]

    row = compare(
        f"AUROC with interval, n = {n:,}",
        "scikit-learn, 1000 bootstraps (3 timed)",
        lambda: auroc(truth, score).value,
        theirs,
        lambda a, b: f"{a:.4f} and {np.mean(b):.4f}",  # type: ignore[str-format, arg-type]
    )
    scale = 1000 / 3
    return Row(row.what, row.other, row.ours, row.theirs * scale, row.ratio * scale, row.agreement)


def augmentation() -> Row:
    """One 224 px grey picture through the default chest policy, all parts on."""
    import os

    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations

    from medtl.preprocess.augment import augmenter

    unit = np.random.default_rng(0).random((1, 224, 224)).astype(np.float32)
    policy = augmenter("cxr", probability=1.0)
    other = albumentations.Compose(
        [
            albumentations.Affine(scale=(0.9, 1.1), rotate=(-7, 7), translate_percent=0.05, p=1),
            albumentations.RandomBrightnessContrast(0.1, 0.1, p=1),
        ],
        seed=0,
    )
    picture = unit[0][..., None]

    def ours() -> object:
        return [policy(unit, np.random.default_rng(i)).array for i in range(50)]

    def theirs() -> object:
        return [other(image=picture)["image"] for _ in range(50)]

    return compare(
        "50 augmented pictures, 224 px",
        "albumentations 2.0.8: affine + brightness",
        ours,
        theirs,
        lambda _a, _b: "not the same transforms",
    )


def _largest_difference(a: object, b: object) -> str:
    return f"largest difference {np.abs(np.asarray(a) - np.asarray(b)).max():.4f}"


def main() -> None:
    """Run all comparisons."""
    with TemporaryDirectory() as folder:
        rows = [dicom_to_unit(film(Path(folder))), delong(1_000_000), augmentation()]
    names = ("numpy", "pydicom", "opencv-python-headless", "scikit-learn", "albumentations")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    lines = [
        "# Benchmarks",
        "",
        f"Made by `make bench`: processor seconds, {ROUNDS} rounds in turn, median of the ratios.",
        f"Python {platform.python_version()}, {platform.machine()}; {versions}.",
        "",
        "| what | against | ours, s | theirs, s | ratio | results |",
        "|---|---|--:|--:|--:|---|",
        *(
            f"| {r.what} | {r.other} | {r.ours:.4f} | {r.theirs:.4f} | {r.ratio:.1f}x "
            f"| {r.agreement} |"
            for r in rows
        ),
    ]
    text = "\n".join(lines) + "\n"
    OUT.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
