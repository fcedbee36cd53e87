"""Commands about a finished model: on other patients, and beside human readers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medtl.cli.bars import bars
from medtl.cli.shared_options import Language, Stated, spread

WithoutKnown = Annotated[
    bool, typer.Option(help="leave out patients that the run was trained or tuned on")
]
From = Annotated[
    Path | None,
    typer.Option("--from", metavar="RUN", help="judge this run's model at its frozen thresholds"),
]


def evaluate_from(
    table: Path,
    run: Path,
    out: Path | None,
    stated: Stated,
    *,
    without_known: bool,
    language: Language,
) -> None:
    """Judge a run's model on a table of other patients: `medtl evaluate TABLE --from RUN`."""
    from medtl.run.clinical.external_tables import summarise_external
    from medtl.run.evaluate import TableOptions
    from medtl.run.folder import Run
    from medtl.storage.atomic import write_json

    folder = out or table.with_name(f"{table.stem}-external")
    is_file = folder.suffix == ".json"
    folder = folder.parent if is_file else folder
    found = Run(run).validate(
        table,
        folder,
        TableOptions(**stated.for_evaluation),
        without_known=without_known,
        language=language,
    )
    if out is not None and is_file:
        write_json(out, found.to_json())
    for line in summarise_external(found):
        print(line)
    print(f"Report, statistics and tables: {folder}")


@spread
def validate(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="a finished run folder")],
    data: Annotated[Path, typer.Argument(metavar="MANIFEST", help="images of another place")],
    *,
    out: Annotated[Path, typer.Option("--out", help="new folder for predictions and report")],
    stated: Stated,
    without_known_patients: WithoutKnown = False,
    language: Language = "en",
) -> None:
    """Predict images of another place with a run's network, and judge it there."""
    from medtl.run.clinical.external_tables import summarise_external
    from medtl.run.evaluate import TableOptions
    from medtl.run.folder import Run

    with bars() as shown:
        found = Run(run_folder).validate(
            data,
            out,
            TableOptions(**stated.for_evaluation),
            without_known=without_known_patients,
            language=language,
            progress=shown.progress,
        )
    for line in summarise_external(found):
        print(line)
    print(f"Predictions, report, statistics and tables: {out}")


def readers(
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help="case_id, reader, modality, score, truth")
    ],
    out: Annotated[
        Path | None, typer.Option(help="folder to write to; default TABLE with -readers")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="a reader's mark means yes from here on")
    ] = None,
    cutoff: Annotated[
        float | None, typer.Option(help="a model's score means yes from here on")
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="of non-inferiority, fixed before the results: 0.05")
    ] = None,
    fixed: Annotated[
        bool, typer.Option("--fixed-readers", help="speak of these readers alone")
    ] = False,
    complete_cases: Annotated[
        bool, typer.Option("--complete-cases", help="keep the cases that all have read")
    ] = False,
    without: Annotated[list[str] | None, typer.Option(help="leave a reader out")] = None,
    language: Language = "en",
) -> None:
    """Compare modalities, or a model and human readers, over readers and cases; and agreement."""
    from medtl.run.clinical.reader_tables import ReaderOptions, evaluate_readers, summarise_readers

    folder = out or table.with_name(f"{table.stem}-readers")
    whose: Literal["random", "fixed"] = "fixed" if fixed else "random"
    options = ReaderOptions(threshold, cutoff, margin, whose, complete_cases, without or ())
    found = evaluate_readers(table, folder, options, language=language)
    for line in summarise_readers(found):
        print(line)
    print(f"Report and tables: {folder}")
