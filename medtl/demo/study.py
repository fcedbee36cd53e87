"""The demo: draw a synthetic study, then run the whole chain on it as on any other."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from medtl.check import read_recipe
from medtl.io.atomic import write_text
from medtl.run import Progress, refuse_existing, run_study, silent

if TYPE_CHECKING:
    from medtl.training.loop import Watcher


def run_demo(
    out: Path,
    *,
    patients: int = 340,
    resume: bool = False,
    progress: Progress = silent,
    watcher: Watcher | None = None,
) -> Path:
    """Write `OUT/data`, `OUT/recipe.yaml` and the run folder `OUT/run`; return the report.

    Args:
        out: Must not exist unless `resume`.
        patients: Synthetic patients to draw; the images are the same for the same number.
        resume: Go on from wherever an earlier demo stopped, also before its first checkpoint.
        progress: Told of drawing, reading and predicting.
        watcher: Told of training.

    Raises:
        RunError: When `out` exists without `resume`.
    """
    from medtl.demo.chest import write_chest_study

    refuse_existing(out, resume=resume)
    recipe = out / "recipe.yaml"
    if not recipe.is_file():
        # The recipe is written last: its presence says that the drawing is complete.
        write_chest_study(
            out / "data",
            patients=patients,
            progress=lambda done, total: progress("Drawing phantoms", done, total),
        )
        text = resources.files("medtl.demo").joinpath("chest.yaml").read_text("utf-8")
        write_text(recipe, text)
    return run_study(
        read_recipe(recipe),
        out / "run",
        resume=(out / "run").exists(),
        progress=progress,
        watcher=watcher,
    )
