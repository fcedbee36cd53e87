"""The command that predicts images with a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medtl.cli.bars import bars
from medtl.cli.shared_options import RunFolder, Splits, listed, spread, there
from medtl.cli.spread_commands import Shares, do_in_shares, refuse_table
from medtl.errors import MedtlError


@spread
def predict(
    run_folder: RunFolder,
    *,
    out: Annotated[Path, typer.Option("--out", help="new table of predictions, CSV or Parquet")],
    data: Annotated[
        Path | None,
        typer.Argument(callback=there, help="manifest, folder of images, or one image"),
    ] = None,
    splits: Splits = "",
    dicomweb: Annotated[
        str | None, typer.Option(help="address of a server to read a study from, instead of DATA")
    ] = None,
    study: Annotated[str | None, typer.Option(help="its Study Instance UID")] = None,
    keep: Annotated[Path | None, typer.Option(help="new folder to keep its files in")] = None,
    shares: Shares,
) -> None:
    """Predict images with a run's own preprocessing and frozen threshold."""
    if (data is None) == (dicomweb is None) or (dicomweb is None) != (study is None):
        raise MedtlError("nothing to predict", expected="DATA, or --dicomweb URL with --study UID")
    if dicomweb is not None and splits:
        raise MedtlError("a study of a server is in no part of the run", fix="Leave --splits out")
    refuse_table(out, shares)
    from medtl.run.folder import Run
    from medtl.run.use.mending import probability_lines

    if shares.are_asked:
        from medtl.run.spread.jobs import PredictJob

        if data is None:
            raise MedtlError("a study of a server is not predicted in shares", fix="Give DATA")
        run_path, images, table = (str(path.absolute()) for path in (run_folder, data, out))
        do_in_shares(PredictJob(run_path, images, table, listed(splits)), shares)
        return
    run = Run(run_folder)
    with bars() as shown:
        if dicomweb is not None and study is not None:
            done = run.predict_study(dicomweb, study, out, keep=keep, progress=shown.progress)
        elif data is not None:
            done = run.predict(data, out, splits=listed(splits), progress=shown.progress)
    mended = run.files.metrics.is_file()
    lines = probability_lines(run.recalibrations, run.metrics) if mended else ()
    print("\n".join(done.told(out, lines)))
