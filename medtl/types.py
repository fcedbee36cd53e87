"""The words of medtl: frozen types that every layer shares. numpy only, no torch.

Conventions, stated once:

* An image array is `(C, *S)`: channels first, then the spatial axes. In 2D `S` is `(rows,
  columns)`, so `spacing` is `(row, column)` in mm, the order of DICOM PixelSpacing (0028,0030).
  In 3D `S` is the NIfTI axis order `(i, j, k)` and `affine` maps voxel indices to RAS+ mm.
* Scores are probabilities in [0, 1] or values in the target's unit (months), never logits.
* A measure that cannot be computed is a value with its reason: never 0, 0.5 or NaN.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from html import escape
from io import BytesIO
from pathlib import Path
from textwrap import shorten
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired

import numpy as np
from annotated_types import Ge, Gt, Interval
from numpy.typing import NDArray
from typing_extensions import TypedDict

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.integer]
BoolArray = NDArray[np.bool_]

SPLITS = ("train", "val", "test")
"""The parts of a study, in the order in which they are used."""

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, done, total)."""


def silent(_what: str, _done: int, _total: int) -> None:
    """A progress that nobody watches."""


THUMBNAIL = 256
"""Longest side of the picture of an image in a notebook, in pixels."""

_NOTHING: Mapping[str, str] = MappingProxyType({})


def is_plainly_finite(array: FloatArray) -> bool:
    """Return whether the sum of squares is finite: then no value is NaN or infinite.

    BLAS takes half the time of a sum for it. False may also be said of values near the type's end.
    """
    return bool(np.isfinite(np.vdot(array, array)))


@dataclass(frozen=True, repr=False)
class Image:
    """One image in real-world units with its geometry and the record of what was done to it.

    >>> film = np.zeros((1, 250, 204), np.float32)
    >>> Image(film, spacing=(1.4, 1.4), modality="cr", notes=("inverted MONOCHROME1",))
    Image(CR, 1 x 250 x 204, 1.4 mm, notes: inverted MONOCHROME1)

    Attributes:
        array: `(C, *S)` float32; Hounsfield units for CT, stored units where DICOM gives no unit.
        spacing: Millimetres per spatial axis, or None when the file does not say.
        affine: `(4, 4)` voxel-to-RAS+ matrix in mm, or None for images without a patient position.
        modality: DICOM Modality (0008,0060) in lower case, or "" when unknown.
        notes: Every correction made, in order ("inverted MONOCHROME1").
        flags: Oddities that belong in the data-quality report ("burned_in_annotation").
        header: Allow-listed, non-identifying facts (view, photometric interpretation, bits stored).
    """

    array: NDArray[np.float32]
    spacing: tuple[float, ...] | None = None
    affine: FloatArray | None = None
    modality: str = ""
    notes: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    header: Mapping[str, str] = field(default_factory=lambda: _NOTHING)

    def __repr__(self) -> str:
        steps = self.spacing or ()
        steps = steps[:1] if len(set(steps)) == 1 else steps
        facts = (
            self.modality.upper(),
            " x ".join(map(str, self.array.shape)),
            " x ".join(f"{step:.3g}" for step in steps) + " mm" * bool(steps),
            "notes: " * bool(self.notes) + "; ".join(self.notes),
            "flags: " * bool(self.flags) + "; ".join(self.flags),
        )
        return f"Image({shorten(', '.join(filter(None, facts)), 300, placeholder=' ...')})"

    def _repr_html_(self) -> str:
        """A small picture above the facts, for a notebook."""
        from PIL import Image as Picture

        shown = BytesIO()
        picture = Picture.fromarray((255 * _to_unit(self._plane())).astype(np.uint8))
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        picture.save(shown, "png")
        data = b64encode(shown.getvalue()).decode()
        return f'<img src="data:image/png;base64,{data}"><br>{escape(repr(self))}'

    def plot(self, ax: Axes | None = None, *, at: int | None = None, **options: Any) -> Axes:
        """Draw the image into `ax` or into axes of its own, which are returned.

        Args:
            ax: matplotlib axes.
            at: Slice of a volume along its last axis; the middle one by default.
            options: Of `imshow`; `vmin` and `vmax` are in the image's units.
        """
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots()[1]
        plane = self._plane(at)
        height, width = plane.shape[:2]
        unit = "pixels"
        if self.spacing is not None:
            # The first axis of a volume runs to the right, that of a film downwards.
            down, right = self.spacing[:2][:: 1 if self.array.ndim == 3 else -1]
            height, width, unit = height * down, width * right, "mm"
        plane = _to_unit(plane) if plane.ndim == 3 else plane
        ax.imshow(plane, **{"cmap": "gray", "extent": (0, width, height, 0), **options})
        ax.set(xlabel=unit, ylabel=unit, title=self.modality.upper())
        return ax

    def _plane(self, at: int | None = None) -> FloatArray:
        """What one sees: `(rows, columns)`, or `(rows, columns, 3)` of a colour picture."""
        array = self.array
        if array.ndim == 4:  # up in the picture is the direction in which the second axis grows
            array = array[..., array.shape[-1] // 2 if at is None else at]
            array = array.swapaxes(1, 2)[:, ::-1]
        return np.moveaxis(array, 0, -1) if len(array) == 3 else array[0]


def _to_unit(array: FloatArray) -> FloatArray:
    """The array from its least value to its greatest in [0, 1]."""
    low, high = float(array.min()), float(array.max())
    return np.asarray((array - low) / ((high - low) or 1.0))


@dataclass(frozen=True, repr=False, slots=True)
class Case:
    """One row of a manifest.

    >>> Case("case-1", "patient-1", Path("films/a.dcm"), {"pneumonia": "1"}, split="test")
    Case(case-1 of patient-1, test, pneumonia 1)

    Attributes:
        case_id: Unique in the manifest; pseudonymous unless the recipe says the ids already are.
        patient_id: The unit of splitting and of resampling; pseudonymous likewise.
        image: Absolute path of the image file, or of the folder of one DICOM series.
        targets: Target column -> raw cell text, "" when missing. Only a task gives it a meaning.
        strata: Column -> cell text of the columns that the recipe reports by (view, site, ...).
        split: One of `SPLITS`, or "" before the manifest has been split.
        mask: Absolute path of the mask, or None.
        frame: Frame of a multi-frame DICOM, or slice of a volume, counted from 0; None for all.
        row: Line number in the manifest file (the header is line 1), for error messages.
        readings: Rater -> target column -> what that rater said, where there are several.
        exam: The examination that the image is of, pseudonymous; "" when no column says.
    """

    case_id: str
    patient_id: str
    image: Path
    targets: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    strata: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    split: str = ""
    mask: Path | None = None
    frame: int | None = None
    row: int = 0
    readings: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: MappingProxyType({}))
    exam: str = ""

    def __repr__(self) -> str:
        targets = [f"{name} {value}" for name, value in self.targets.items() if value]
        facts = [f"{self.case_id} of {self.patient_id}", self.split, *targets]
        return f"Case({shorten(', '.join(filter(None, facts)), 300, placeholder=' ...')})"


@dataclass(frozen=True, repr=False)
class Manifest:
    """The cases of a study and what its columns mean.

    >>> films = [Case(f"{n}", f"p{n // 2}", Path(f"{n}.dcm"), split="test") for n in range(4)]
    >>> Manifest(tuple(films), Path("films"), sha256="")
    Manifest(4 images of 2 patients, test 4)

    Attributes:
        cases: One per image, in file order.
        root: Folder that relative paths, in the table and in messages, start from.
        sha256: Hash of the table's bytes.
        meanings: Column or label -> meaning in words, from the YAML sidecar.
        units: Column -> unit, from the sidecar.
        source: Where the data come from.
        licence: Under what terms they may be used.
        notes: What was decided while reading ("val became the test set").
    """

    cases: tuple[Case, ...]
    root: Path
    sha256: str
    meanings: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    units: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    source: str = ""
    licence: str = ""
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        patients = len({case.patient_id for case in self.cases})
        count = Counter(case.split for case in self.cases)
        splits = [f", {name} {count[name]}" for name in SPLITS if count[name]]
        return f"Manifest({len(self.cases)} images of {patients} patients{''.join(splits)})"

    def frame(self) -> pd.DataFrame:
        """Return the cases as a table, one row each: ids, split, targets and strata."""
        import pandas as pd

        rows = [
            {"case_id": case.case_id, "patient_id": case.patient_id, "split": case.split,
             **case.targets, **case.strata} for case in self.cases
        ]  # fmt: skip
        return pd.DataFrame(rows)


Status = Literal["ok", "undefined", "degenerate"]


@dataclass(frozen=True, repr=False)
class Measure:
    """One statistic with its interval. No bare float leaves `metrics/`.

    >>> print(Measure("auroc", 0.8141, low=0.76, high=0.8592, n=300, method="DeLong, logit scale"))
    0.814 [0.760, 0.859], n = 300 (DeLong)
    >>> Measure("auroc", None, n=300, status="undefined", reason="the set holds one class only")
    auroc: not estimable, the set holds one class only

    Attributes:
        name: Lower snake case ("auroc", "sensitivity", "mae_months").
        value: The estimate, or None when `status` is "undefined".
        label: The finding, class or structure it is about.
        split: One of `SPLITS`.
        subset: "all" or "column=value".
        low, high: Bounds of the interval, or None when there is none.
        confidence: Level of the interval, in (0, 1).
        n: Rows used. n_positive: rows whose truth is positive. n_patients: patients among them.
        method: Name of the interval's method ("DeLong, logit scale"; "Wilson").
        status: "ok", "undefined" (no value) or "degenerate" (a value whose interval says nothing).
        reason: Why the status is not "ok", in words for a reader.
    """

    name: str
    value: float | None
    label: str = ""
    split: str = "test"
    subset: str = "all"
    low: float | None = None
    high: float | None = None
    confidence: float = 0.95
    n: int = 0
    n_positive: int | None = None
    n_patients: int | None = None
    method: str = ""
    status: Status = "ok"
    reason: str = ""

    def ok(self, value: float, interval: tuple[float, float], method: str) -> Measure:
        """Return the measure with its value, interval and method."""
        low, high = interval
        return replace(self, value=value, low=low, high=high, method=method, status="ok")

    def weak(self, value: float, reason: str) -> Measure:
        """Return the measure with a value whose interval says nothing, and why."""
        return replace(self, value=value, status="degenerate", reason=reason)

    def undefined(self, reason: str) -> Measure:
        """Return the measure without a value, and why."""
        return replace(self, value=None, status="undefined", reason=reason)

    def __str__(self) -> str:
        if self.value is None:
            return f"not estimable, {self.reason}"
        interval = ""
        if self.low is not None and self.high is not None:
            interval = f" [{self.low:.3f}, {self.high:.3f}]"
        # The method's first words name it; the rest ("B=2000") stands in the field.
        method = self.method.partition(",")[0]
        remark = "; ".join(filter(None, (method, self.reason)))
        return f"{self.value:.3f}{interval}, n = {self.n}" + (f" ({remark})" if remark else "")

    def __repr__(self) -> str:
        return f"{f'{self.label} {self.name}'.strip()}: {self}"

    def _repr_html_(self) -> str:
        return f"<b>{escape(self.label)} {escape(self.name)}</b> {escape(str(self))}"


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold chosen before the test set was opened: positive if and only if score >= it.

    >>> OperatingPoint("effusion", 0.42, "sensitivity >= 0.9", "val", 80, 20).threshold
    0.42

    Attributes:
        label: The finding it belongs to.
        threshold: A score; `inf` means "flag nobody".
        rule: The rule in words ("sensitivity >= 0.90").
        chosen_on: Split it was chosen on ("val"), or "given" when the user stated it.
        n: Rows it was chosen from. n_positive: how many of them were positive.
        target: The share that a rule of sensitivity or specificity aims at, None for other rules.
        n_patients: Patients of the class that this share is of, among the rows it was chosen from.
        assurance: Certainty with which new patients reach the target; None where nothing is
            promised.
        reason: Why nothing is promised though it was asked for.
        source: Who says so: "run" (frozen by a run's own recipe, before the test set was read),
            "table" (chosen on rows that a table calls val), "user" (stated with the table), or "".
    """

    label: str
    threshold: float
    rule: str
    chosen_on: str
    n: int
    n_positive: int
    target: float | None = None
    n_patients: int = 0
    assurance: float | None = None
    reason: str = ""
    source: str = ""


NotNegative = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
Count = Annotated[int, Ge(1)]

if TYPE_CHECKING:  # what a recipe must state is narrower than what code may pass on
    Rates = Mapping[str, float]
    BatchNormPolicy = str
    Adapters = Literal["bitfit", "norm"] | Mapping[str, Mapping[str, Any]]
else:
    BatchNormPolicy = Literal["frozen", "frozen_stats", "bn_only", "adapt", "recalibrate"]

    class Rates(TypedDict):
        """Learning rates of the head and of the layers below it."""

        head: Positive
        base: NotRequired[Positive]

    class Lora(TypedDict):
        """Low-rank matrices: their rank (0 adds none), and the layers (* for any letters)."""

        rank: Annotated[int, Ge(0)]
        on: str | tuple[str, ...]

    class LowRankAdapters(TypedDict):
        """Low-rank matrices beside the weights of some layers."""

        lora: Lora

    Adapters = Literal["bitfit", "norm"] | LowRankAdapters


@dataclass(frozen=True)
class Stage:
    """One stage of fine-tuning, as data; a recipe's stages are this.

    Attributes:
        name: Shown in the log, the history and the report.
        train: Selector of the layer groups that train (`networks.selectors`), or several.
        epochs: Upper bound; early stopping may end the stage before.
        lr: Learning rates of the "head" and of the "base" (all other layers).
        batch_norm: Policy (`networks.batch_norm.POLICIES`) of the groups that train, or selector ->
            policy of the groups it names; groups not named, and those not trained, are "frozen".
        warmup_epochs: Linear warm-up from 0 to `lr`, per step.
        schedule: Course of the rate after the warm-up.
        layer_decay: Factor of the learning rate per group below the highest trained one, in (0, 1].
        patience: Epochs without an improvement before the stage ends.
        adapt: What of the trained layers below the head trains, in place of all: their biases
            (bitfit), scales and shifts of their norm layers (norm), or low-rank matrices that are
            added to weights and merged where they are saved (lora).

    Raises:
        ValueError: When both `adapt` and a batch-norm policy say what trains.

    Example:
        >>> Stage("top", "head,last:1", 10, {"head": 3e-4, "base": 1e-4}).schedule
        'cosine'
    """

    name: str
    train: str | tuple[str, ...]
    epochs: Count
    lr: Rates
    batch_norm: BatchNormPolicy | dict[str, BatchNormPolicy] = "frozen"
    warmup_epochs: NotNegative = 0.0
    schedule: Literal["cosine", "step", "plateau", "constant"] = "cosine"
    layer_decay: Annotated[float, Interval(gt=0, le=1)] = 1.0
    patience: Count = 5
    adapt: Adapters | None = None

    def __post_init__(self) -> None:
        """Refuse two answers to one question."""
        if self.adapt is not None and self.batch_norm != "frozen":
            msg = "adapt says which parameters train: leave batch_norm out"
            raise ValueError(msg)

    @property
    def selector(self) -> str:
        """What trains, as one selector."""
        return self.train if isinstance(self.train, str) else ",".join(self.train)

    @property
    def policies(self) -> dict[str, BatchNormPolicy]:
        """Selector -> batch-norm policy."""
        if self.adapt == "norm":
            return {"all": "bn_only"}
        if isinstance(self.batch_norm, str):
            return {} if self.batch_norm == "frozen" else {"all": self.batch_norm}
        return self.batch_norm


START = "start"
"""`ZeroGamma.when`: before the first stage."""


@dataclass(frozen=True)
class ZeroGamma:
    """What is done to which residual blocks of a trained network; a recipe's `zero_gamma` is this.

    Attributes:
        select: Selector over the eligible blocks, or several.
        value: What gamma becomes: 0 or 1, "scale:0.1" of itself (any factor), or "remove", which
            puts the shortcut in the block's place.
        beta: Whether beta stays or becomes 0.
        lr_mult: Factor on the learning rate of the treated gammas.
        when: "start", or the name of the stage before which it happens; blocks are removed at the
            start or not at all.
        recalibrate: Whether the statistics downstream are estimated anew, if validation gains.

    Raises:
        ValueError: When the value is none of these, or blocks are to be removed later.

    Example:
        >>> str(ZeroGamma("last:3", "scale:0.1", "zero"))
        'gamma x 0.1, beta = 0'
    """

    select: str | tuple[str, ...] = "none"
    value: float | str = 0.0
    beta: Literal["keep", "zero"] = "keep"
    lr_mult: NotNegative = 1.0
    when: str = START
    recalibrate: bool = False

    def __post_init__(self) -> None:
        """Check what the types do not say."""
        scale = re.fullmatch(r"scale:(\d+\.?\d*|\.\d+)", str(self.value))
        if self.value not in (0, 1, "remove") and not scale:
            msg = f"got value {self.value!r}; state 0, 1, scale:0.1 (any factor) or remove"
            raise ValueError(msg)
        if self.value == "remove" and self.when != START:
            msg = "blocks can only be removed at the start; leave 'when' out"
            raise ValueError(msg)

    @property
    def factor(self) -> float | None:
        """What gamma is multiplied by, None when it is set or the block removed."""
        text = str(self.value)
        return float(text.removeprefix("scale:")) if text.startswith("scale:") else None

    def __str__(self) -> str:
        """The action in a few words, for tables and logs."""
        if self.value == "remove":
            return "removed"
        what = f"gamma = {self.value:g}" if self.factor is None else f"gamma x {self.factor:g}"
        return what + (", beta = 0" if self.beta == "zero" else "")
