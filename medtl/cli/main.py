"""The command line: everything heavy is imported inside the commands."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from medtl import __version__
from medtl.cli.bars import bars
from medtl.cli.clinical_commands import From, WithoutKnown, evaluate_from, readers, validate
from medtl.cli.export_command import export
from medtl.cli.manifest_commands import manifest_app
from medtl.cli.plan_size import Expected, describe_size
from medtl.cli.predict_command import predict
from medtl.cli.service_commands import serve, show_clinic, watch
from medtl.cli.shared_options import (
    Language,
    Out,
    Overrides,
    RecipeFile,
    Resume,
    RunFolder,
    Stated,
    Work,
    refuse_missing,
    spread,
    there,
)
from medtl.cli.spread_commands import decode, features, merge, slurm
from medtl.cli.study_commands import sanity, study_app
from medtl.cli.weights_commands import weights_app
from medtl.errors import MedtlError, extras_named
from medtl.storage.interrupt import Listener

if TYPE_CHECKING:
    from medtl.run.folder import Run
    from medtl.types import Progress

app = typer.Typer(
    help="Transfer learning on medical images: DICOM, NIfTI and PNG in, a model and a clinical "
    "report out. Research use only; not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(study_app, name="study")
app.add_typer(manifest_app, name="manifest")
app.add_typer(weights_app, name="weights")
app.command()(validate)
app.command()(readers)
app.command()(sanity)
app.command()(predict)
app.command()(export)
app.command()(serve)
app.command()(watch)
app.command()(decode)
app.command()(features)
app.command()(merge)
app.command()(slurm)

INTERRUPTED = 130
"""Status that typer returns after Ctrl-C (128 + SIGINT)."""

CLOSED_PIPE = 141
"""Status of a program whose reader has gone (128 + SIGPIPE): it may be unfinished."""

STOPPED = "Stopped. What was trained is kept; repeat the command with --resume to go on."

RESUMED = {"run", "train", "demo", "study"}
"""Commands that take --resume."""


Deterministic = Annotated[
    bool, typer.Option("--deterministic", help="the same bits again, also on a GPU; slower there")
]


def main() -> NoReturn:
    """Run the command line; every fault of the user's ends in one message, not a traceback."""
    listener = Listener()
    listener.listen()
    status, fault, stdout = 0, None, sys.stdout
    try:
        with extras_named():
            status = app(standalone_mode=False)
        sys.stdout.flush()  # here, because at the end Python would complain of a closed pipe
    except BaseException as error:
        fault = error
    listener.close()
    if sys.stdout is not stdout or isinstance(fault, BrokenPipeError):
        os._exit(CLOSED_PIPE)  # typer replaces stdout when its reader has gone
    stopped = STOPPED if RESUMED & {*sys.argv[1:2]} else "Stopped."
    if listener.heard is not None:  # first: foreign code can turn a signal into any exception
        _stop(stopped, 128 + listener.heard)
    if fault is not None:
        _explain(fault)
    if status == INTERRUPTED:
        _stop(stopped, INTERRUPTED)
    sys.exit(status or 0)


def _explain(error: BaseException) -> NoReturn:
    """Say what went wrong and exit; only a fault of the program itself shows a traceback."""
    if isinstance(error, MedtlError):
        _stop(f"medtl: {error}", 1)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        _stop("medtl: the disk is full. Make room; what takes --resume goes on with it.", 1)
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


def _work(work: Work, *, deterministic: bool, whole: bool) -> Run | None:
    """Check a recipe and run the whole chain, or its first half; None beside the first process."""
    checked = work.check()
    from medtl.run.chain import helps_another, run_study, train_study

    if deterministic:
        from medtl.training.runtime import make_deterministic

        print(make_deterministic())
    with bars() as shown:
        done = (run_study if whole else train_study)(
            checked,
            work.out,
            resume=work.resume,
            progress=shown.progress,
            callbacks=[shown.watcher()],
        )
    return None if helps_another() else done


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="show the version and stop")] = False,
) -> None:
    if version:
        print(f"medtl {__version__}")
        raise typer.Exit


@app.command()
def version() -> None:
    """Say which version this is."""
    print(f"medtl {__version__}")


@app.command()
def demo(
    out: Out = Path("runs/demo"),
    task: Annotated[
        Literal["classification", "bone-age", "segmentation"] | None,
        typer.Option(help="chests with findings (default), hands of a bone age, abdominal volumes"),
    ] = None,
    resume: Resume = False,
    patients: Annotated[int | None, typer.Option(help="synthetic patients to draw")] = None,
    stress: Annotated[
        bool, typer.Option("--stress", help="ask what breaks the model too, in the report")
    ] = False,
    pacs: Annotated[
        bool, typer.Option("--pacs", help="in place of it: models that watch a local Orthanc")
    ] = False,
) -> None:
    """Draw synthetic images and run the whole chain on them, offline, to a report."""
    if pacs:
        if resume or stress or patients is not None or task is not None:
            raise MedtlError("--pacs trains its own models", expected="--out and nothing else")
        show_clinic(out)
        return
    from medtl.demo.demonstration import run_demo
    from medtl.run.words.ending import headline

    with bars() as shown:
        done = run_demo(
            out,
            task=task or "classification",
            patients=patients,
            resume=resume,
            progress=shown.progress,
            callbacks=[shown.watcher()],
        )
        if stress:
            _stress_demo(done, out, shown.progress)
    print("\n".join(headline(done)))
    print(f"Report: {done.report_path}")


def _stress_demo(run: Run, out: Path, progress: Progress) -> None:
    """Ask what breaks the demo's model, and write its report again with the answer."""
    from medtl.demo.demonstration import manifest_of
    from medtl.run.record import adopt_study
    from medtl.studies.stress.robustness import Asked, stress_run

    if not (asked := out / "stress").exists():
        images = manifest_of(out)
        stress_run(run, images, asked, Asked(quick=True), announce=print, progress=progress)
    adopt_study(run.files, asked)
    run.report()


@app.command()
def init(
    data: Annotated[Path, typer.Argument(help="folder of images by class, table, or DICOM folder")],
    out: Out,
    target: Annotated[str | None, typer.Option(help="column to learn")] = None,
    positive: Annotated[str | None, typer.Option(help="its value that is the finding")] = None,
    labels: Annotated[Path | None, typer.Option(callback=there, help="sheet of labels")] = None,
    key: Annotated[
        str | None, typer.Option(help="the sheet's column of accession numbers, ids or file names")
    ] = None,
    match: Annotated[
        str | None, typer.Option(help="what --key holds, if several fit: 'accession number', ...")
    ] = None,
    where: Annotated[str | None, typer.Option(help="rows to take: 'view in [AP, PA]'")] = None,
    modality: Annotated[str, typer.Option(help="cxr, hand, ct, mr, fundus, derm, ...")] = "cxr",
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="list the images without a row, to learn from too")
    ] = False,
) -> None:
    """Make a checked manifest and a short recipe from your own data; nothing is written into it."""
    from medtl.run.init import Answers, write_starter

    answers = Answers(target, positive, labels, key, match, where, modality, unlabelled)
    for line in write_starter(data, out, answers):
        print(line)


@app.command()
def check(
    recipe: RecipeFile,
    overrides: Overrides = None,
    contact_sheet: Annotated[
        Path | None, typer.Option(help="draw what the network will see to this PNG")
    ] = None,
    every_image: Annotated[
        bool, typer.Option("--all", help="read all images, not a sample of 400")
    ] = False,
) -> None:
    """Find every fault before any work, then show the plan, the time and the memory."""
    from medtl.run.check import read_recipe

    checked = read_recipe(recipe, overrides or ())
    print("First pass: recipe, files, columns, labels and patients are in order.")
    from medtl.run.plan import describe_plan

    with bars() as shown:
        plan = describe_plan(
            checked, sheet=contact_sheet, every_image=every_image, progress=shown.progress
        )
        lines = list(plan)
    print("\n".join(lines))


@app.command()
def recipe(
    explain: Annotated[
        str, typer.Option(metavar="KEY", help="one key or section: image.size, finetune, ...")
    ] = "",
) -> None:
    """Say what the keys of a recipe mean, what they take and their defaults."""
    from medtl.recipe.explain import explain as explained

    print(explained(explain))


@app.command("plan-size")
@spread
def plan_size(expected: Expected) -> None:
    """Say how many patients a study needs for what its authors expect and want to show."""
    print("\n".join(describe_size(expected)))


@app.command()
@spread
def run(work: Work, deterministic: Deterministic = False) -> None:
    """Check, train, predict, evaluate and report."""
    from medtl.run.words.ending import headline

    done = _work(work, deterministic=deterministic, whole=True)
    if done is None:
        return
    print("\n".join(headline(done)))
    print(f"Report: {done.files.report}")


@app.command()
@spread
def train(work: Work, deterministic: Deterministic = False) -> None:
    """Check and train; leaves the best checkpoint and the history in a run folder."""
    from medtl.run.words.ending import training_line

    done = _work(work, deterministic=deterministic, whole=False)
    if done is None:
        return
    print(training_line(done))
    print(f"Best model: {done.files.best}")


def _source(path: Path) -> Path | None:
    return refuse_missing(path, "folder or table, and so no metrics.json or predictions")


Source = Annotated[
    Path,
    typer.Argument(metavar="RUN|TABLE", callback=_source, help="a run folder or predictions table"),
]


@app.command()
@spread
def evaluate(
    source: Source,
    *,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="where to; default TABLE.metrics.json; --from: a folder"),
    ] = None,
    stated: Stated,
    origin: From = None,
    without_known_patients: WithoutKnown = False,
    language: Language = "en",
) -> None:
    """Compute statistics with intervals from a run, or from a table that any tool made."""
    from medtl.run.evaluate import TableOptions, evaluate_table, summarise
    from medtl.run.folder import Run

    if origin is not None:
        known = without_known_patients
        evaluate_from(source, origin, out, stated, without_known=known, language=language)
        return
    if source.is_dir():
        stated.refuse_for_run()
        if out is not None:
            raise MedtlError("a run keeps its own metrics.json", fix="Leave --out away")
        run = Run(source)
        found, path = run.evaluate(), run.files.metrics
    else:
        options = TableOptions(**stated.for_evaluation)
        path = out or source.with_suffix(".metrics.json")
        found = evaluate_table(source, path, options)
    for line in summarise(found):
        print(line)
    print(f"Statistics: {path}")


@app.command()
@spread
def report(
    source: Source,
    *,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="folder to write to; default RUN, or TABLE with -report"),
    ] = None,
    stated: Stated,
    language: Language = "en",
    study: Annotated[
        Path | None,
        typer.Option(callback=there, help="shortcuts, learning-curve, forgetting, stress"),
    ] = None,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="print it to PDF too (needs Chromium)")
    ] = False,
) -> None:
    """Write the report: of a run again from its files, or of a table that any tool made."""
    from medtl.report.pdf import write_pdf
    from medtl.run.evaluate import TableOptions, report_table
    from medtl.run.files import RunFiles
    from medtl.run.folder import Run
    from medtl.run.record import adopt_study

    if source.is_file():
        options = TableOptions(**stated.for_evaluation)
        folder = out or source.with_name(f"{source.stem}-report")
        page = report_table(source, folder, options, language=language)
    else:
        stated.refuse_for_run()
        run = Run(source)
        if study is not None:
            adopt_study(run.files, study)
        if out is not None and run.metrics:  # a fault is said before a folder is made
            out.mkdir(parents=True, exist_ok=True)
        page = run.report(out and RunFiles(out).report, language=language)
    print(f"Report: {page}")
    if pdf:
        print(f"PDF: {write_pdf(page, page.with_suffix('.pdf'))}")


@app.command()
def monitor(
    run_folder: RunFolder,
    predictions: Annotated[
        list[Path], typer.Argument(help="what `medtl predict` wrote, in order of time")
    ],
    out: Annotated[Path | None, typer.Option("--out", help="folder; default RUN-monitor")] = None,
    time: Annotated[str, typer.Option(help="column that orders the cases, a date or number")] = "",
    language: Annotated[Literal["en", "ko"], typer.Option(help="of the page")] = "en",
) -> None:
    """Say what changed in images and scores since the test set, with truths or without."""
    for table in predictions:
        there(table)
    from medtl.run.folder import Run
    from medtl.run.use.monitor import monitor as compare

    folder = out or run_folder.with_name(f"{run_folder.name}-monitor")
    found = compare(Run(run_folder), predictions, folder, time=time, language=language)
    for check in found.checks:
        what = ": ".join(filter(None, (check.label, check.what.replace("_", " "))))
        if check.changed:
            print(f"changed: {what} (p {check.p_holm:.3f}, adjusted)")
        elif check.reason:
            print(f"not compared: {what}: {check.reason}")
    compared = sum(check.p is not None for check in found.checks)
    changed = sum(check.changed for check in found.checks)
    print(f"{changed or 'None'} of {compared} comparisons shows a change beyond chance")
    print("\n".join([*found.notes, f"Page: {found.page}"]))


@app.command()
def audit(
    study: Annotated[Path, typer.Argument(help="a folder of medtl study kfold, or a run")],
    recipe: RecipeFile,
    out: Out,
    overrides: Overrides = None,
    most: Annotated[int, typer.Option(min=1, help="labels on the page")] = 100,
) -> None:
    """Rank the labels that the models doubt, on a page where you judge them one by one."""
    from medtl.run.check import read_recipe
    from medtl.studies.learned.label_audit import audit_labels

    checked = read_recipe(recipe, overrides or [])
    with bars() as shown:
        page = audit_labels(study, checked, out, most=most, progress=shown.progress)
    print(f"Open {page}; then: medtl manifest relabel MANIFEST audit_judged.csv --out NEW.csv")


@app.command()
def stress(
    run: Annotated[Path, typer.Argument(help="a finished run")],
    data: Annotated[Path, typer.Argument(help="its manifest, or new cases with truth")],
    out: Out,
    only: Annotated[str, typer.Option(help="families to try")] = "corruptions,probes,attacks",
    quick: Annotated[
        bool, typer.Option("--quick", help="fewer severities and images, attacks of one step")
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(callback=there, help="a stress test of another model, to compare errors with"),
    ] = None,
) -> None:
    """Ask what breaks a model: corrupted images, attacks, images without shape or texture."""
    from medtl.run.folder import Run
    from medtl.studies.stress.robustness import FAMILIES, Asked, stress_run

    families = [name.strip() for name in only.split(",")]
    if unknown := sorted(set(families) - set(FAMILIES)):
        raise typer.BadParameter(f"--only knows {', '.join(FAMILIES)}, not {', '.join(unknown)}")
    with bars() as shown:
        stress_run(
            Run(run),
            data,
            out,
            Asked(families, quick, against),
            announce=print,
            progress=shown.progress,
        )
    print((out / "robustness.md").read_text("utf-8"))


@app.command()
def saliency(
    run: Annotated[Path, typer.Argument(callback=there, help="a finished run")],
    data: Annotated[Path, typer.Argument(callback=there, help="its manifest, or new cases")],
    out: Out,
    inside: Annotated[
        Path | None,
        typer.Option(callback=there, metavar="RUN", help="a run of masks: of the lungs, say"),
    ] = None,
) -> None:
    """Ask whether heat maps follow what was learned, and how much of them lies inside an organ."""
    from medtl.run.folder import Run
    from medtl.studies.stress.saliency import check_saliency

    organ = None if inside is None else Run(inside)
    with bars() as shown:
        check_saliency(Run(run), data, out, organ=organ, progress=shown.progress)
    print((out / "saliency.md").read_text("utf-8"))


@app.command()
def doctor(
    run: Annotated[
        Path | None, typer.Argument(callback=there, help="say what its log shows of the training")
    ] = None,
    seals: Annotated[
        Path | None, typer.Option(metavar="RUN", help="compare a run folder with its checksums")
    ] = None,
    privacy: Annotated[
        Path | None, typer.Option(metavar="RUN", help="look for your own strings in a run folder")
    ] = None,
    strings: Annotated[
        typer.FileText,
        typer.Option(help="one name, id or date a line; - reads a pipe"),
    ] = "-",  # type: ignore[assignment]
    weights: Annotated[
        bool, typer.Option("--weights", help="the bundled weights, and their known output")
    ] = False,
) -> None:
    """Show versions and hardware, examine a run folder or its log, or prove the bundled weights."""
    from medtl.run.folder import Run

    if weights:
        from medtl.networks.pretrained.cards import bundled_cards
        from medtl.networks.pretrained.reference import check_weights

        print("\n".join(str(check_weights(None, backbone)) for backbone in bundled_cards()))

    broken: list[str] = []
    if run is not None:
        for sign in Run(run).diagnose():
            typer.echo(f"{sign.key}: {sign.evidence}" + f"\n    {sign.advice}" * bool(sign.advice))
    if seals is not None:
        broken += Run(seals).broken_seals()
        print("\n".join(broken) or "Every file is what its checksum says.")
    if privacy is not None:
        traces = Run(privacy).traces(strings)
        print("\n".join(traces) or "None of the strings was found.")
        broken += traces
    if run is None and seals is None and privacy is None and not weights:
        from medtl.run.record import check_installation

        print("\n".join(check_installation()))
    if broken:
        raise typer.Exit(1)
