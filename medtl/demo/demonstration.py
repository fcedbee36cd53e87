"""The demo: draw a synthetic study, then run the whole chain on it as on any other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medtl.run.chain import run_study
from medtl.run.check import read_recipe
from medtl.run.files import refuse_existing
from medtl.run.folder import Run
from medtl.storage.atomic import write_text
from medtl.types import Progress, silent

if TYPE_CHECKING:
    from medtl.training.callbacks import Callback

Kind = Literal["classification", "bone-age", "segmentation"]

RECIPES: dict[Kind, str] = {
    "classification": "chest.yaml",
    "bone-age": "hand.yaml",
    "segmentation": "organ.yaml",
}
"""Kind of study -> its recipe, beside this file."""

PATIENTS: dict[Kind, int] = {"classification": 340, "bone-age": 400, "segmentation": 60}
"""Kind of study -> synthetic patients it needs to show that something is learned."""


def run_demo(
    out: Path,
    *,
    task: Kind = "classification",
    patients: int | None = None,
    resume: bool = False,
    overrides: Sequence[str] = (),
    progress: Progress = silent,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Write `OUT/data`, `OUT/recipe.yaml` and the run folder `OUT/run`; return the run.

    Args:
        out: Must not exist unless `resume`.
        task: Chests with findings, hands of a bone age, or abdominal volumes.
        patients: Synthetic patients to draw, `PATIENTS` by default; the images are the same for
            the same number.
        resume: Go on from wherever an earlier demo stopped, also before its first checkpoint.
        overrides: `key.path=value`, over the demo's recipe.
        progress: Told of drawing, reading and predicting.
        callbacks: Told of training.

    Raises:
        RunError: When `out` exists without `resume`.
    """
    refuse_existing(out, resume=resume)
    recipe = out / "recipe.yaml"
    if not recipe.is_file():
        # The recipe is written last: its presence says that the drawing is complete.
        _writer(task)(
            out / "data",
            patients=PATIENTS[task] if patients is None else patients,
            progress=lambda done, total: progress("Drawing phantoms", done, total),
        )
        text = resources.files("medtl.demo").joinpath(RECIPES[task]).read_text("utf-8")
        write_text(recipe, text)
    return run_study(
        read_recipe(recipe, overrides),
        out / "run",
        resume=(out / "run").exists(),
        progress=progress,
        callbacks=callbacks,
    )


def manifest_of(out: Path) -> Path:
    """The manifest of the images that a demo drew."""
    return out / "data" / "manifest.csv"


def _writer(task: Kind) -> Callable[..., Path]:
    """The function that draws the study of a kind."""
    from medtl.demo.chest import write_chest_study
    from medtl.demo.hand import write_hand_study
    from medtl.demo.organ import write_organ_study

    writers = {
        "classification": write_chest_study,
        "bone-age": write_hand_study,
        "segmentation": write_organ_study,
    }
    return writers[task]
