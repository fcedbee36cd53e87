"""The command line. Only this file prints; everything heavy is imported inside the commands."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from medtl import __version__
from medtl.errors import MedtlError
from medtl.io.interrupt import Listener

if TYPE_CHECKING:
    from medtl.studies.plan import Plan

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

STOPPED = "Stopped. What was trained is kept; repeat the command with --resume to go on."

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="a YAML recipe")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[key=value ...]", help="changes to the recipe")
]
Out = Annotated[Path, typer.Option("--out", help="folder to write to; it must not exist yet")]
Resume = Annotated[bool, typer.Option("--resume", help="go on with what is in the folder")]


def main() -> NoReturn:
    """Run the command line; every fault of the user's ends in one message, not a traceback."""
    listener = Listener()
    listener.listen()
    status, fault = 0, None
    try:
        status = app(standalone_mode=False)
    except BaseException as error:
        fault = error
    listener.close()
    if listener.heard is not None:  # first: foreign code can turn a signal into any exception
        _stop(STOPPED, 128 + listener.heard)
    if fault is not None:
        _explain(fault)
    if status == INTERRUPTED:
        _stop(STOPPED, INTERRUPTED)
    sys.exit(status or 0)


def _explain(error: BaseException) -> NoReturn:
    """Say what went wrong and exit; only a fault of the program itself shows a traceback."""
    if isinstance(error, MedtlError):
        _stop(f"medtl: {error}", 1)
    if isinstance(error, BrokenPipeError):
        os._exit(0)
    # typer re-raises click's own usage errors here; they know how to show themselves.
    show = getattr(error, "show", None)
    if show is None:
        raise error
    show()
    sys.exit(getattr(error, "exit_code", 2))


def _stop(message: str, status: int) -> NoReturn:
    """Say why and exit; the status is what a shell script sees."""
    print(message, file=sys.stderr)
    sys.exit(status)


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
    out: Annotated[Path, typer.Option("--out", help="predictions table, CSV or Parquet")],
    data: Annotated[
        Path | None, typer.Argument(help="manifest, folder of images, or one image")
    ] = None,
    dicomweb: Annotated[
        str | None, typer.Option(help="address of a server to read a study from, instead of DATA")
    ] = None,
    study: Annotated[str | None, typer.Option(help="its Study Instance UID")] = None,
    keep: Annotated[Path | None, typer.Option(help="new folder to keep its files in")] = None,
) -> None:
    """Predict images with a run's own preprocessing and frozen threshold."""
    from rich.console import Console

    from medtl.console import bars

    if (data is None) == (dicomweb is None) or (dicomweb is None) != (study is None):
        raise MedtlError("nothing to predict", expected="DATA, or --dicomweb URL with --study UID")
    from medtl.predict import predict_images, predict_study

    with bars(Console(stderr=True)) as shown:
        if dicomweb is not None and study is not None:
            done = predict_study(
                run_folder, dicomweb, study, out=out, keep=keep, progress=shown.progress
            )
        elif data is not None:
            done = predict_images(run_folder, data, out, progress=shown.progress)
    if done.left_out:
        print(f"{done.left_out} objects of the study are no images and were left out")
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


@app.command()
def export(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="a finished run folder")],
    out: Annotated[Path, typer.Option("--out", help="new folder for the DICOM files")],
    images: Annotated[
        Path, typer.Option(help="the DICOM images the run read: their manifest or folder")
    ],
    dicom: Annotated[bool, typer.Option("--dicom", help="as DICOM: SR, SEG, SC, PDF")] = False,
    predictions: Annotated[
        Path | None, typer.Option(help="what `medtl predict` wrote; default the test cases")
    ] = None,
    case: Annotated[list[str] | None, typer.Option(help="only this case; repeatable")] = None,
    pdf: Annotated[Path | None, typer.Option(help="a document for the study of the case")] = None,
) -> None:
    """Write results as DICOM objects of the patients and studies the images are from."""
    from rich.console import Console

    from medtl.console import bars

    if not dicom:
        raise MedtlError("no format is asked for", fix="Add --dicom")
    from medtl.export.run import export_run

    with bars(Console(stderr=True)) as shown:
        done = export_run(
            run_folder,
            out,
            images=images,
            predictions=predictions,
            case_ids=case or (),
            pdf=pdf,
            progress=shown.progress,
        )
    print(f"{done.objects} DICOM objects of {done.cases} cases: {out}")
    print("They name patients. Research use only.")
    if done.left_out:
        print(f"{len(done.left_out)} cases left out, with the reasons in {out / 'export.json'}")


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


Seeds = Annotated[int, typer.Option("--seeds", min=1, help="runs of every condition: 0, 1, ...")]
Vary = Annotated[
    str, typer.Option(help="what a seed decides; without split, all seeds share one split")
]
KeepCheckpoints = Annotated[bool, typer.Option(help="keep the best model of every run")]
Reports = Annotated[bool, typer.Option(help="draw the gallery and report of every run")]


@study_app.command()
def seeds(
    recipe: RecipeFile,
    out: Out,
    *,
    overrides: Overrides = None,
    number: Seeds = 5,
    vary: Vary = "split,init,order,augment",
    resume: Resume = False,
    keep_checkpoints: KeepCheckpoints = False,
    reports: Reports = False,
) -> None:
    """Repeat a recipe with several seeds: mean and spread of its test figures."""
    from medtl.check import read_recipe

    read_recipe(recipe, overrides or ())
    from medtl.studies.plan import seeds_plan

    plan = seeds_plan(number, vary=vary.split(","))
    _run_study(
        recipe,
        plan,
        out,
        overrides=overrides,
        resume=resume,
        keep_checkpoints=keep_checkpoints,
        reports=reports,
    )


@study_app.command()
def conditions(
    recipe: RecipeFile,
    out: Out,
    *,
    plan: Annotated[Path, typer.Option(help="YAML file of conditions or factors")],
    overrides: Overrides = None,
    number: Seeds = 5,
    resume: Resume = False,
    keep_checkpoints: KeepCheckpoints = False,
    reports: Reports = False,
) -> None:
    """Compare the conditions of a plan file, or the cells of a factorial one, paired by seed."""
    from medtl.studies.plan import read_plan

    stated = read_plan(plan, seeds=number)
    _run_study(
        recipe,
        stated,
        out,
        overrides=overrides,
        resume=resume,
        keep_checkpoints=keep_checkpoints,
        reports=reports,
    )


@study_app.command("zero-gamma")
def zero_gamma(
    recipe: RecipeFile,
    out: Out,
    *,
    overrides: Overrides = None,
    plan: Annotated[
        Path | None, typer.Option(help="other conditions than the sixteen derived from the recipe")
    ] = None,
    number: Seeds = 5,
    resume: Resume = False,
    keep_checkpoints: KeepCheckpoints = False,
    reports: Reports = False,
) -> None:
    """Ask whether selective zero-gamma and warm-up help: sixteen conditions, paired by seed."""
    from medtl.check import read_recipe
    from medtl.studies.plan import read_plan
    from medtl.studies.zero_gamma import zero_gamma_plan

    checked = read_recipe(recipe, overrides or ())
    stated = read_plan(plan, seeds=number) if plan else zero_gamma_plan(checked, range(number))
    _run_study(
        recipe,
        stated,
        out,
        overrides=overrides,
        resume=resume,
        keep_checkpoints=keep_checkpoints,
        reports=reports,
    )


def _run_study(
    recipe: Path,
    plan: Plan,
    out: Path,
    *,
    overrides: list[str] | None,
    resume: bool,
    keep_checkpoints: bool,
    reports: bool,
) -> None:
    """Run a plan, one line for every run that ends, then the table."""
    from rich.console import Console

    from medtl.console import bars
    from medtl.studies.conditions import run_conditions
    from medtl.studies.single import SingleRun
    from medtl.studies.summary import to_markdown

    with bars(Console(stderr=True)) as shown:
        summary = run_conditions(
            recipe,
            plan,
            out,
            overrides=overrides or (),
            resume=resume,
            single=SingleRun(
                keep_checkpoints=keep_checkpoints,
                reports=reports,
                progress=shown.progress,
                watcher=shown.watcher(epochs=False),
            ),
            on_row=lambda row: shown.run_ended(row, len(plan.pairs)),
        )
    print(to_markdown(summary))
    print(f"Study: {out / 'summary.md'}")


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
