"""A run folder as an object: its parts are read when they are asked for."""

from __future__ import annotations

import html
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtl.cases.predictions import read_predictions
from medtl.cases.splits import split_hash
from medtl.errors import MedtlError, RunError
from medtl.evaluation.result import Evaluation
from medtl.recipe.schema import Recipe, parse_recipe
from medtl.run.files import UNSEALED, RunFiles, portable, refuse_existing
from medtl.run.record import history_rows, report_records
from medtl.run.use.mending import kept_recalibrations, own_probabilities, recalibrations_of
from medtl.storage.atomic import read_json, remove_leftovers, sha256_file, write_json, write_text
from medtl.storage.lock import locked
from medtl.storage.traces import SHORTEST_BYTES, find_traces
from medtl.storage.yaml import dump_yaml, load_yaml
from medtl.types import Manifest, Progress, silent

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from torch import nn

    from medtl.evaluation.statements.recalibrated import Recalibrated
    from medtl.export.objects import Exported
    from medtl.prediction.sink import TrainedModel
    from medtl.report.page.diagnosis import Sign
    from medtl.run.evaluate import TableOptions
    from medtl.run.predicted import Predictions


class Run:
    """A run folder: started, trained or finished, of this version or an earlier one.

    Nothing is read before it is asked for. A part that the run has not reached is a `RunError`.

    Args:
        path: The folder. It need not exist yet.
        backbone: The object that the run's backbone was, if it was given in Python.

    Attributes:
        path: The folder.
        files: Where each part lies, also those that are not there.

    Example:
        >>> run = Run("runs/first")
        >>> run, run.is_finished
        (Run('first': not started), False)
        >>> run.history
        Traceback (most recent call last):
        medtl.errors.RunError: first: no history.csv: the run did not reach the tr...
    """

    def __init__(
        self, path: str | os.PathLike[str], *, backbone: Callable[[], nn.Module] | None = None
    ) -> None:
        self.path = Path(path)
        self.backbone = backbone
        self.files = RunFiles(self.path)

    @classmethod
    def start(cls, recipe: Recipe, out: str | os.PathLike[str], *, resume: bool = False) -> Run:
        """Make a run folder, or open the one of this recipe to go on with.

        Raises:
            RunError: When the folder exists without `resume`, holds another recipe's run or cannot
                be made.
        """
        run, stored = cls(out, backbone=recipe.model.given), portable(recipe).to_dict()
        refuse_existing(run.path, resume=resume)
        # Parsed: an earlier version may have written the same recipe in other words.
        if resume and run.files.recipe.is_file() and run.recipe.to_dict() != stored:
            given = ", ".join(run.recipe.given) or "nothing"
            raise RunError(
                "the folder holds a run of another recipe",
                expected=f"that recipe, its overrides and what was given in Python ({given})",
                where=str(run.path),
                fix="Resume with these, or choose another --out",
            )
        try:
            run.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"the folder cannot be made: {error.strerror}",
                where=str(run.path),
                fix="Choose an --out that may be written",
            ) from error
        write_text(run.files.recipe, dump_yaml(stored))
        return run

    # Its parts, in the order in which a run leaves them.

    @property
    def stored_recipe(self) -> dict[str, Any]:
        """`recipe.yaml` as plain data; an earlier version may have known other keys."""
        return load_yaml(self._reached(self.files.recipe, "its start"))

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe, every default written out and no path in it."""
        return parse_recipe(self.stored_recipe, where=self.files.recipe.name)

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, device and hashes that the numbers depend on."""
        return self._json(self.files.environment, "the training")

    @property
    def manifest(self) -> pd.DataFrame:
        """All cases as text: ids, split, targets, strata, and the hash of the decoded image."""
        import pandas as pd

        path = self._reached(self.files.manifest, "the reading of the images")
        return pd.read_csv(path, dtype=str, keep_default_na=False)

    @property
    def cohort(self) -> dict[str, Any]:
        """Images, patients, labels, age and sex of each split."""
        return self._json(self.files.cohort, "the reading of the images")

    @property
    def quality(self) -> dict[str, Any]:
        """Images that were odd, and those that could not be read."""
        return self._json(self.files.quality, "the reading of the images")

    @property
    def history(self) -> pd.DataFrame:
        """One row per epoch: losses, the watched measure, rates, seconds."""
        import pandas as pd

        return pd.read_csv(self._reached(self.files.history, "the training"))

    @property
    def history_rows(self) -> list[dict[str, str]]:
        """The rows of `history.csv` with their cells as they were written."""
        return history_rows(self._reached(self.files.history, "the training"))

    @property
    def checkpoint(self) -> Path:
        """The best model, a safetensors file."""
        return self._reached(self.files.best, "the training", "Train it first")

    @property
    def trained(self) -> TrainedModel[Any, Any]:
        """The best model with its own task and preprocessing, read anew each time.

        Raises:
            WeightsError: When the checkpoint is damaged.
            RunError: When the backbone was given in Python, and is not given again.
        """
        from medtl.run.trained import load_trained

        return load_trained(self.checkpoint, backbone=self.backbone)

    @property
    def network(self) -> nn.Module:
        """The best model's network, on the CPU."""
        network: nn.Module = self.trained.model
        return network

    @property
    def predictions(self) -> pd.DataFrame:
        """The predictions of the validation and test cases."""
        return read_predictions(self._reached(self.files.predictions, "the prediction"))

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of `metrics.json`."""
        return self._json(self.files.metrics, "the evaluation", "Run `medtl evaluate` on it first")

    @property
    def evaluation(self) -> Evaluation:
        """Every measure with its interval, and what was left out.

        Raises:
            RunError: Before the evaluation, or of an exported model.
        """
        self._refuse_exported("the statistics of its run")
        return Evaluation.from_json(self.metrics)

    @property
    def thresholds(self) -> dict[str, float]:
        """Label -> frozen threshold; empty before the evaluation."""
        metrics = self.metrics if self.files.metrics.is_file() else {}
        points = metrics.get("operating_points", [])
        return {point["label"]: float(point["threshold"]) for point in points}

    @property
    def recalibrations(self) -> tuple[Recalibrated, ...]:
        """What mends its probabilities, where validation called for it."""
        return recalibrations_of(self.files)

    @property
    def gallery(self) -> list[dict[str, Any]]:
        """The pictures of the cases to look at; their files lie in `files.gallery`."""
        path = self._reached(self.files.gallery_list, "the gallery")
        entries: list[dict[str, Any]] = read_json(path)
        return entries

    @property
    def report_path(self) -> Path:
        """`report.html`."""
        return self._reached(self.files.report, "the report")

    @property
    def is_finished(self) -> bool:
        """True when the run has reached its end and is sealed."""
        return self.files.checksums.is_file()

    @property
    def state(self) -> str:
        """The furthest step that the run has reached, in a word."""
        steps = {
            "finished": self.files.checksums,
            "evaluated": self.files.metrics,
            "predicted": self.files.predictions,
            "in training": self.files.history,
            "images read": self.files.cohort,
            "started": self.files.recipe,
        }
        return next((step for step, file in steps.items() if file.is_file()), "not started")

    # What can be done with it.

    def evaluate(self) -> Evaluation:
        """Compute the statistics of the predictions, and leave them in `metrics.json`.

        Raises:
            RunError: Before the cases were predicted.
        """
        from medtl.run.evaluate import evaluate_rows

        recipe, study = self.stored_recipe, self.stored_recipe["study"]
        found = evaluate_rows(
            self.predictions,
            self.files,
            rule=study["operating_point"],
            prevalence=study.get("prevalence"),
            acting=study.get("acting"),
            strata=recipe["data"]["strata"],
            classes=recipe["data"].get("classes", ()),
            unit=recipe.get("task", {}).get("unit") or "",
            exams=recipe["data"].get("exam_score"),
            recalibrations=kept_recalibrations(self.files.best),
        )
        write_json(self.files.metrics, found.to_json())
        return found

    def diagnose(self) -> list[Sign]:
        """Return what the log says of the training, each sign with evidence and one suggestion.

        Raises:
            RunError: Before the first epoch.
        """
        from medtl.report.page.diagnosis import diagnose

        layers = read_json(self.files.layers) if self.files.layers.is_file() else None
        return diagnose(self.history_rows, recipe=self.stored_recipe, layers=layers)

    def report(self, out: str | os.PathLike[str] | None = None, *, language: str = "en") -> Path:
        """Write the report from what is in the folder; return its path.

        Args:
            out: The HTML file, `report.html` of the folder by default. Its folder must exist.
            language: "en" or "ko".

        Raises:
            RunError: Before the evaluation, or when a record cannot be read.
        """
        from medtl.report.render import write_report

        self._refuse_exported("the statistics of its run")
        files = self.files
        recipe = self.stored_recipe if files.recipe.is_file() else {}
        study = recipe.get("study")
        study = study if isinstance(study, dict) else {}
        records = report_records(files) | {"recipe": recipe}
        return write_report(
            files.report if out is None else Path(out),
            metrics=self.metrics,
            study=study,
            synthetic=study.get("synthetic") is True,
            language=language,
            **records,
        )

    def predict(
        self,
        data: str | os.PathLike[str],
        out: str | os.PathLike[str] | None = None,
        *,
        splits: Collection[str] = (),
        progress: Progress = silent,
    ) -> Predictions:
        """Predict images with the run's own preprocessing and frozen thresholds.

        The run's own manifest (recognised by its hash) gives the validation and test cases with
        their truth, as in `predictions.csv`. Any other manifest, folder or file is new: every image
        is predicted, truth is filled in where the manifest has the target columns, and columns are
        added for the file, the decision at the frozen threshold, and what is unlike the training
        images.

        Args:
            data: A manifest, a folder of images, or one image.
            out: Where to write the table (CSV or Parquet, new), what was odd (`OUT.quality.json`)
                and masks; None writes nothing, and masks need a place.
            splits: Of the run's own cases; none stated takes validation and test.
            progress: Told of reading and predicting.

        Raises:
            RunError: When the run has no checkpoint, no image could be read, or `out` exists.
            ManifestError: When there is nothing to predict.
        """
        from medtl.run.edge.choice import model_of
        from medtl.run.predict import Judged, check_destination, predict_images

        target = None if out is None else check_destination(Path(out))
        return predict_images(
            model_of(self.files, lambda: self.trained),
            Path(data),
            target,
            own=self.files.manifest,
            judged=Judged(self.thresholds, self.recalibrations),
            splits=splits,
            progress=progress,
        )

    def predict_study(
        self,
        url: str,
        study: str,
        out: str | os.PathLike[str] | None = None,
        *,
        keep: str | os.PathLike[str] | None = None,
        progress: Progress = silent,
    ) -> Predictions:
        """Predict the images of a study that a DICOMweb server has; nothing is sent to it.

        Args:
            url: Address of the DICOMweb service.
            study: Study Instance UID.
            out: As for `predict`; its column `file` names SOP Instance UIDs.
            keep: A new folder that keeps the study's images; None removes them at the end.
            progress: Told of fetching, reading and predicting.

        Raises:
            MedtlError: As `medtl.io.dicom.web.fetch_study` and `predict`.
        """
        from medtl.run.predict import check_destination, fetched_study

        if out is not None:
            check_destination(Path(out))
        with fetched_study(url, study, keep, progress) as (folder, left_out):
            return replace(self.predict(folder, out, progress=progress), left_out=left_out)

    def validate(
        self,
        data: str | os.PathLike[str],
        out: str | os.PathLike[str],
        options: TableOptions | None = None,
        *,
        without_known: bool = False,
        language: str = "en",
        progress: Progress = silent,
    ) -> Evaluation:
        """Judge the model on other patients, at its frozen thresholds; see docs/other-hospitals.md.

        Args:
            data: A predictions table, or a manifest whose images are predicted first.
            out: Folder for the report, the statistics and the tables; new for images.
            options: What is stated of the table; a threshold, a kind and a unit are the run's.
            without_known: Leave out patients that the run was trained or tuned on.
            language: Of the report, "en" or "ko".
            progress: Told of reading and predicting.

        Raises:
            MedtlError: As `medtl.run.clinical.external.evaluate_external` and `predict`.
        """
        from medtl.run.clinical import external

        source, table = external.Source.of(self.files, self.evaluation), Path(data)
        if not external.is_table(table):
            refuse_existing(Path(out), resume=False)
            table = RunFiles(Path(out)).predictions
            done = self.predict(data, table, progress=progress)
            external.keep_predictions(done.frame, table, Path(data).name, self.recipe.data)
        return external.evaluate_external(
            table, source, Path(out), options, without_known=without_known, language=language
        )

    def export(
        self,
        out: str | os.PathLike[str],
        *,
        images: str | os.PathLike[str],
        predictions: str | os.PathLike[str] | None = None,
        case_ids: Sequence[str] = (),
        pdf: str | os.PathLike[str] | None = None,
        gallery: Path | None = None,
        progress: Progress = silent,
    ) -> Exported:
        """Write the results as DICOM objects of the patients and studies they are about.

        Arguments and errors as `medtl.export.objects.export_results`; `gallery`: key pictures.
        """
        from medtl.export.objects import export_results
        from medtl.export.results import RunResults

        files = self.files
        for file in (files.recipe, files.manifest, files.predictions):
            self._reached(file, "its end")
        exams = (self.stored_recipe.get("data") or {}).get("exam_score")
        results = RunResults(
            folder=self.path,
            recipe=self.stored_recipe,
            manifest=files.manifest,
            predictions=files.predictions,
            thresholds=self.thresholds,
            pictures=files.gallery_list if predictions is None else gallery,
            environment=self.environment if files.environment.is_file() else {},
            checkpoint=files.best,
            probabilities=own_probabilities(self.predictions, self.recalibrations, exams),
        )
        return export_results(
            results,
            Path(out),
            images=Path(images),
            predictions=None if predictions is None else Path(predictions),
            case_ids=case_ids,
            pdf=None if pdf is None else Path(pdf),
            progress=progress,
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the losses of every epoch, a line where a stage ends; return the axes.

        Args:
            ax: matplotlib axes; new ones by default.
        """
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots()[1]
        history = self.history
        for part in ("train", "val"):
            ax.plot(range(1, len(history) + 1), history[f"{part}_loss"], ".-", label=part)
        for end in history.groupby("stage", sort=False).size().cumsum()[:-1]:
            ax.axvline(end + 0.5, color="0.7", linestyle=":", zorder=0)
        ax.set(xlabel="epoch", ylabel="loss")
        ax.legend()
        return ax

    # While it is worked on, and when it has ended.

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process out of the folder while the block runs.

        Raises:
            RunError: When another process works in it.
        """
        with locked(self.files.lock, wait=False):
            remove_leftovers(self.path)
            yield

    @contextmanager
    def logged(self) -> Iterator[None]:
        """Append what the library says while the block runs to `log.txt`."""
        logger = logging.getLogger("medtl")
        handler = logging.FileHandler(self.files.log, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            yield
        except MedtlError as error:
            logger.error("%s", error)
            raise
        finally:
            logger.setLevel(level)
            logger.removeHandler(handler)
            handler.close()

    def refuse_other_manifest(self, manifest: Manifest) -> None:
        """Refuse to go on when the manifest has changed: a case of training could be tested on.

        Args:
            manifest: With a split for every case.

        Raises:
            RunError: When the run's study had other rows or was split otherwise.
        """
        if not self.files.cohort.is_file():
            return
        started = self.cohort
        before = started["manifest_sha256"], started["split_hash"]
        if before != (manifest.sha256, split_hash(manifest)):
            raise RunError(
                "the manifest or its split has changed since this run was started",
                where=str(self.path),
                fix="Restore the manifest, or start again with another --out",
            )

    def seal(self) -> None:
        """Remove what only a running run needs; write the SHA-256 of every file that stays."""
        shutil.rmtree(self.files.cache, ignore_errors=True)
        files = sorted(path for path in self.path.rglob("*") if path.is_file())
        names = {path: path.relative_to(self.path) for path in files}
        sums = {
            name.as_posix(): sha256_file(path)
            for path, name in names.items()
            if not UNSEALED & set(name.parts)
        }
        write_json(self.files.checksums, sums)

    def broken_seals(self) -> list[str]:
        """Return the files that are not what their checksums say, with what is wrong.

        Raises:
            RunError: When the run did not reach its end.
        """
        sums: dict[str, str] = self._json(self.files.checksums, "its end")
        files = {name: self.path / name for name in sums}
        missing = [f"{name}: missing" for name, file in files.items() if not file.is_file()]
        altered = [
            f"{name}: altered"
            for name, file in files.items()
            if file.is_file() and sha256_file(file) != sums[name]
        ]
        return missing + altered

    def traces(self, strings: Iterable[str]) -> list[str]:
        """Return where the user's own strings occur in the folder, without repeating them.

        Args:
            strings: One to a line. They are kept nowhere.

        Raises:
            RunError: When there is no such folder, or nothing to look for.
        """
        wanted = [line.strip() for line in strings if line.strip()]
        if not self.path.is_dir():
            raise RunError("there is no such folder", where=self.path.name)
        if not wanted:
            raise RunError("there is nothing to look for", expected="one string a line")
        short = [n for n, text in enumerate(wanted, 1) if len(text.encode()) < SHORTEST_BYTES]
        told = [f"string {number} is too short to be looked for" for number in short]
        found = find_traces(self.path, wanted)
        return told + [f"{where}: string {number}" for where, number in found]

    def __repr__(self) -> str:
        return f"Run({self.path.name!r}: {self.state})"

    def _repr_html_(self) -> str:
        """Question, state, headline measures with intervals and place, for a notebook."""
        study = self.stored_recipe.get("study", {}) if self.files.recipe.is_file() else {}
        measures = self.evaluation._repr_html_() if self.files.metrics.is_file() else ""
        question = html.escape(str(study.get("question", "")))
        return f"<p>{question}</p>{measures}<p>{self.state}: {html.escape(str(self.path))}</p>"

    def _reached(self, file: Path, step: str, fix: str = "") -> Path:
        """The file, when the run has got so far."""
        if not file.is_file():
            self._refuse_exported(file.name)
            missing = "" if self.path.exists() else " (there is no such folder)"
            go_on = "Go on with it: medtl run RECIPE --out FOLDER --resume"
            is_run = self.files.log.is_file()  # a folder of `init` holds a recipe too
            raise RunError(
                f"no {file.name}: the run did not reach {step}",
                expected=f"the folder of a run that did{missing}",
                where=self.path.name,
                fix=fix or (go_on if is_run else "Name the folder of a run"),
            )
        return file

    def _refuse_exported(self, what: str) -> None:
        """Refuse to look in an exported model for what only its run has."""
        if self.files.contract.is_file():
            raise RunError(
                f"this is an exported model, which predicts and is without {what}",
                expected="the folder of the run that it was exported from",
                where=self.path.name,
                fix="Name that run",
            )

    def _json(self, file: Path, step: str, fix: str = "") -> dict[str, Any]:
        """The content of a JSON file of the folder."""
        found: dict[str, Any] = read_json(self._reached(file, step, fix))
        return found
