"""The command line. Only this file prints; everything heavy is imported inside the commands."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from medtl import __version__
from medtl.errors import MedtlError

app = typer.Typer(
    help="Transfer learning on medical images: DICOM, NIfTI and PNG in, a model and a clinical "
    "report out. Research use only; not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
study_app = typer.Typer(help="Several runs of one recipe, compared.", no_args_is_help=True)
manifest_app = typer.Typer(help="Make, check and split manifests.", no_args_is_help=True)
app.add_typer(study_app, name="study")
app.add_typer(manifest_app, name="manifest")

INTERRUPTED = 130
"""What typer returns after Ctrl-C (128 + SIGINT)."""

STOPPED = (
    "Stopped. Finished epochs and the best model are kept; "
    "repeat the command with --resume to go on."
)

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="a YAML recipe")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[key=value ...]", help="changes to the recipe")
]
Out = Annotated[Path, typer.Option("--out", help="folder to write to; it must not exist yet")]
Resume = Annotated[bool, typer.Option("--resume", help="go on with what is in the folder")]


def main() -> NoReturn:
    """Run the command line; every fault of the user's ends in one message, not a traceback."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        status = app(standalone_mode=False)
    except MedtlError as error:
        _stop(f"medtl: {error}", 1)
    except BrokenPipeError:
        os._exit(0)
    except Exception as error:
        # typer re-raises click's own usage errors here; they know how to show themselves.
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        sys.exit(getattr(error, "exit_code", 2))
    if status == INTERRUPTED:
        _stop(STOPPED, INTERRUPTED)
    sys.exit(status or 0)


def _stop(message: str, status: int) -> NoReturn:
    """Say why and exit; the status is what a shell script sees."""
    print(message, file=sys.stderr)
    sys.exit(status)


def _terminate(_signal: int, _frame: object) -> NoReturn:
    """End on SIGTERM as a shell expects (128 + 15); finished epochs are in the checkpoint."""
    sys.exit(143)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="show the version and stop")] = False,
) -> None:
    if version:
        print(f"medtl {__version__}")
        raise typer.Exit


@app.command()
def demo(
    out: Out = Path("runs/demo"),
    resume: Resume = False,
    patients: Annotated[int, typer.Option(help="synthetic patients to draw")] = 340,
) -> None:
    """Draw synthetic chest radiographs and run the whole chain on them, offline, to a report."""
    from rich.console import Console

    from medtl.console import bars
    from medtl.demo.study import run_demo

    with bars(Console(stderr=True)) as shown:
        report = run_demo(
            out,
            patients=patients,
            resume=resume,
            progress=shown.progress,
            watcher=shown.watcher(),
        )
    print(f"Report: {report}")


@app.command()
def init(
    data: Annotated[Path, typer.Argument(help="folder of images by class, CSV, or DICOM folder")],
    out: Out,
    target: Annotated[str | None, typer.Option(help="column to learn, for a CSV")] = None,
    modality: Annotated[str, typer.Option(help="cxr, hand, ct, mr, fundus, derm, ...")] = "cxr",
) -> None:
    """Make a checked manifest and a short recipe from your own data."""
    from medtl.starter import write_starter

    for line in write_starter(data, out, target=target, modality=modality):
        print(line)


@app.command()
def check(
    recipe: RecipeFile,
    overrides: Overrides = None,
    contact_sheet: Annotated[
        Path | None, typer.Option(help="draw what the network will see to this PNG")
    ] = None,
) -> None:
    """Find every fault before any work, then show the plan, the time and the memory."""
    from medtl.check import read_recipe

    checked = read_recipe(recipe, overrides or ())
    print("First pass: recipe, files, columns, labels and patients are in order.")
    from rich.console import Console

    from medtl.console import bars
    from medtl.plan import describe_plan

    with bars(Console(stderr=True)) as shown:
        lines = list(describe_plan(checked, sheet=contact_sheet, progress=shown.progress))
    print("\n".join(lines))


@app.command()
def run(recipe: RecipeFile, out: Out, overrides: Overrides = None, resume: Resume = False) -> None:
    """Check, train, predict, evaluate and report."""
    from rich.console import Console

    from medtl.check import read_recipe
    from medtl.console import bars

    checked = read_recipe(recipe, overrides or ())
    from medtl.run import run_study

    with bars(Console(stderr=True)) as shown:
        report = run_study(
            checked, out, resume=resume, progress=shown.progress, watcher=shown.watcher()
        )
    print(f"Report: {report}")


@app.command()
def train(
    recipe: RecipeFile, out: Out, overrides: Overrides = None, resume: Resume = False
) -> None:
    """Check and train; leaves the best checkpoint and the history in a run folder."""
    from rich.console import Console

    from medtl.check import read_recipe
    from medtl.console import bars

    checked = read_recipe(recipe, overrides or ())
    from medtl.run import train_study

    with bars(Console(stderr=True)) as shown:
        best = train_study(
            checked, out, resume=resume, progress=shown.progress, watcher=shown.watcher()
        )
    print(f"Best model: {best}")


@app.command()
def predict(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="a finished run folder")],
    data: Annotated[Path, typer.Argument(help="manifest, folder of images, or one image")],
    out: Annotated[Path, typer.Option("--out", help="predictions table, CSV or Parquet")],
) -> None:
    """Predict images with a run's own preprocessing and frozen threshold."""
    from rich.console import Console

    from medtl.console import bars
    from medtl.predict import predict_images

    with bars(Console(stderr=True)) as shown:
        done = predict_images(run_folder, data, out, progress=shown.progress)
    print(f"{done.images} images predicted: {out}")
    if done.flagged or done.quarantined:
        print(f"{done.flagged} flagged, {done.quarantined} could not be read: {done.quality}")


@app.command()
def evaluate(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|TABLE", help="a run folder or a predictions table")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="where to; default TABLE with the ending .metrics.json"),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="a threshold fixed before the test set was seen")
    ] = None,
    prevalence: Annotated[float | None, typer.Option(help="where it will be used, 0 to 1")] = None,
    strata: Annotated[str, typer.Option(help="columns to break results by, a,b,c")] = "",
    one_image_per_patient: Annotated[
        bool, typer.Option(help="the table has no patient_id column")
    ] = False,
) -> None:
    """Compute statistics with intervals from a run, or from a table that any tool made."""
    from medtl.evaluate import evaluate_run, evaluate_table, summarise

    if source.is_dir():
        path = evaluate_run(source)
    else:
        path = evaluate_table(
            source,
            out or source.with_suffix(".metrics.json"),
            threshold=threshold,
            prevalence=prevalence,
            strata=[name for name in strata.split(",") if name],
            one_image_per_patient=one_image_per_patient,
        )
    for line in summarise(path):
        print(line)
    print(f"Statistics: {path}")


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="a run folder")],
) -> None:
    """Render the report of a run folder again from its files."""
    from medtl.report.build import report_from_run

    print(f"Report: {report_from_run(run_folder)}")


@study_app.command()
def kfold(
    recipe: RecipeFile,
    out: Out,
    overrides: Overrides = None,
    folds: Annotated[int, typer.Option(min=2, max=20)] = 5,
    baseline: Annotated[
        Literal["frozen", "none"],
        typer.Option(help="logistic regression on frozen features in the same folds"),
    ] = "frozen",
    resume: Resume = False,
) -> None:
    """Cross-validate a recipe by patient, beside a baseline in the same folds."""
    from rich.console import Console

    from medtl.check import read_recipe
    from medtl.console import bars

    checked = read_recipe(recipe, overrides or ())
    from medtl.studies.kfold import run_kfold, to_markdown

    with bars(Console(stderr=True)) as shown:
        results = run_kfold(
            checked,
            out,
            folds=folds,
            baseline=baseline,
            resume=resume,
            progress=shown.progress,
            watcher=shown.watcher(),
        )
    print(to_markdown(results, folds))


@manifest_app.command("scan")
def manifest_scan(
    folder: Annotated[Path, typer.Argument(help="walked for DICOM files")],
    out: Annotated[
        Path | None, typer.Option("--out", help="manifest to write; default FOLDER/manifest.csv")
    ] = None,
    per: Annotated[Literal["image", "series"], typer.Option(help="one row per")] = "image",
) -> None:
    """Write a manifest from DICOM headers, without names, with pseudonymous ids."""
    from rich.console import Console

    from medtl.console import bars
    from medtl.io.manifest import write_manifest
    from medtl.io.pseudonym import load_salt, remember
    from medtl.io.scan import scan_dicom

    path = out or folder / "manifest.csv"
    if path.exists():
        raise MedtlError("the manifest exists", where=str(path), fix="Choose another --out")
    if not folder.resolve().is_relative_to(path.resolve().parent):
        raise MedtlError(
            "a manifest lies at or above its images",
            where=str(path),
            fix=f"Write it to {folder / 'manifest.csv'}",
        )
    with bars(Console(stderr=True)) as shown:
        found = scan_dicom(
            folder,
            per=per,
            salt=load_salt(),
            progress=lambda done, total: shown.progress("Reading headers", done, total),
        )
    remember(found.identities.items())
    below = folder.resolve().relative_to(path.resolve().parent)
    rows = [{**row, "image": (below / row["image"]).as_posix()} for row in found.rows]
    write_manifest(rows, path)
    print(f"{len(rows)} rows: {path}")
    for name, cause in found.skipped[:20]:
        print(f"left out {name}: {cause}")
    if len(found.skipped) > 20:
        print(f"and {len(found.skipped) - 20} more files were left out")


@manifest_app.command("check")
def manifest_check(
    manifest: Annotated[Path, typer.Argument(help="CSV or Parquet")],
    one_image_per_patient: Annotated[bool, typer.Option(help="no patient_id column")] = False,
) -> None:
    """Find every fault of a manifest: columns, paths, ids, patients in two splits."""
    from medtl.io.manifest import read_manifest

    found = read_manifest(manifest, one_image_per_patient=one_image_per_patient)
    patients = len({case.patient_id for case in found.cases})
    print(f"{manifest.name}: {len(found.cases)} images of {patients} patients, no faults")
    for note in found.notes:
        print(note)


@manifest_app.command("whois")
def manifest_whois(
    name: Annotated[str, typer.Argument(help="a pseudonym from a run folder")],
) -> None:
    """Say which id a pseudonym stands for; only on the machine that made it."""
    from medtl.io.pseudonym import whois

    original = whois(name)
    if original is None:
        raise MedtlError("this machine has not made that pseudonym", where=name)
    print(original)


@app.command()
def doctor() -> None:
    """Show versions, hardware and whether the parts that must fit together do."""
    from medtl.record import check_installation

    for line in check_installation():
        print(line)
