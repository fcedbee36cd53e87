"""A run folder as an object: its parts, what it says of the missing ones, old folders."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from tiny_study import write_tiny_study

from medtl.errors import RunError
from medtl.run.chain import run_study, train_study
from medtl.run.check import read_recipe
from medtl.run.files import RunFiles
from medtl.run.folder import Run
from medtl.training import checkpoint

PACKAGE = Path(__file__).parents[2] / "medtl"

MAY_SPELL = {
    "run/files.py": None,
    "training/checkpoint.py": {"best.safetensors"},
    "cases/manifest.py": {"manifest.csv"},  # the user's own, beside the images
    "cli/manifest_commands.py": {"manifest.csv"},
    "prediction/portable.py": {"contract.json"},  # an exported model is a folder of its own
    "prediction/gallery.py": {"gallery.json"},  # a gallery is a folder of its own
    "prediction/overlays.py": {"gallery.json"},
    "report/page/sections.py": {"gallery.json"},
    "run/init.py": {"recipe.yaml", "manifest.csv"},  # the first ones of a user
}
"""Module -> the names of a run folder's files that it may spell, None for all."""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A finished run."""
    folder = tmp_path_factory.mktemp("study")
    return run_study(read_recipe(write_tiny_study(folder / "data")), folder / "run")


def spelled(root: Path) -> list[str]:
    """The names of a run folder's files as literals where they do not belong."""
    files = RunFiles(Path("run"))
    names = {path.name for path in vars(files).values() if path.suffix and path.parent != Path()}
    faults = []
    for path in sorted(root.rglob("*.py")):
        module = path.relative_to(root).as_posix()
        allowed = MAY_SPELL.get(module, set())
        if allowed is None or module.startswith("demo/"):  # it draws a user's folder
            continue
        tree = ast.parse(path.read_text("utf-8"))
        words = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)}
        faults += [f"{module}: {name}" for name in sorted((names & words) - allowed)]
    return faults


def test_the_names_of_a_run_folder_are_spelled_once() -> None:
    assert spelled(PACKAGE) == []


def test_a_name_spelled_elsewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "a.py").write_text('x = out / "history.csv"\ny = "a history.csv"')
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "checkpoint.py").write_text('x = "best.safetensors"\ny = "log.txt"')
    assert spelled(tmp_path) == ["studies/a.py: history.csv", "training/checkpoint.py: log.txt"]


def test_training_and_run_agree_on_the_best_model() -> None:
    assert RunFiles(Path("run")).best.name == checkpoint.BEST


def test_every_part_of_a_finished_run(run: Run) -> None:
    assert run.is_finished
    assert run.recipe.study.question == "Is the square bright?"
    assert run.recipe.data.manifest == "manifest.csv"
    assert set(run.manifest["split"]) == {"train", "val", "test"}
    assert run.cohort["splits"]["train"]["images"] == (run.manifest["split"] == "train").sum()
    assert run.quality["n_images"] == len(run.manifest) == 60
    assert run.environment["manifest_sha256"] == run.cohort["manifest_sha256"]
    assert run.history["best"].sum() >= 1
    assert run.checkpoint.is_file()
    assert run.report_path.is_file()
    assert set(run.predictions["split"]) == {"val", "test"}
    assert run.thresholds["bright"] == run.metrics["operating_points"][0]["threshold"]
    assert {entry["label"] for entry in run.gallery} == {"bright"}
    assert run.trained.recipe.model.backbone == "test_resnet"
    assert sum(p.numel() for p in run.network.parameters()) > 1000


def test_a_run_says_in_a_line_what_it_is(run: Run) -> None:
    assert repr(run) == "Run('run': finished)"
    page = run._repr_html_()
    assert page.startswith("<p>Is the square bright?</p>")
    assert "auroc" in page
    assert page.endswith(f"<p>finished: {run.path}</p>")


def test_a_question_is_shown_as_text(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text('study: {question: "<script>x</script>"}')
    assert "<script>" not in Run(tmp_path)._repr_html_()


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("recipe", r"no recipe.yaml: the run did not reach its start"),
        ("environment", r"no environment.json: the run did not reach the training"),
        ("manifest", r"no manifest.csv: the run did not reach the reading of the images"),
        ("cohort", r"no cohort.json"),
        ("quality", r"no data_quality.json"),
        ("history", r"no history.csv: the run did not reach the training"),
        ("checkpoint", r"no best.safetensors: .*Train it first"),
        ("trained", r"no best.safetensors"),
        ("predictions", r"no predictions.csv: the run did not reach the prediction"),
        ("metrics", r"no metrics.json: .*medtl evaluate"),
        ("gallery", r"no gallery.json"),
        ("report_path", r"no report.html: the run did not reach the report"),
    ],
)
def test_a_part_that_is_not_there(tmp_path: Path, part: str, message: str) -> None:
    assert repr(Run(tmp_path / "new")) == "Run('new': not started)"
    with pytest.raises(RunError, match=f"new: {message}"):
        getattr(Run(tmp_path / "new"), part)


def test_a_trained_run_is_no_finished_one(tmp_path: Path) -> None:
    run = train_study(read_recipe(write_tiny_study(tmp_path / "data")), tmp_path / "run")
    assert (run.state, run.is_finished) == ("in training", False)
    assert run.thresholds == {}
    assert run.checkpoint.is_file()
    with pytest.raises(RunError, match="the run did not reach the prediction"):
        run.evaluate()


def test_a_damaged_record_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "cohort.json").write_text("{not json")
    with pytest.raises(RunError, match=r"cohort\.json: not a readable JSON file"):
        _ = Run(tmp_path).cohort


def test_evaluating_and_reporting_again_change_nothing(run: Run, tmp_path: Path) -> None:
    before = run.files.metrics.read_bytes()
    assert run.evaluate() == run.evaluation
    assert run.files.metrics.read_bytes() == before
    again = run.report(tmp_path / "again.html")
    assert again.read_bytes() == run.report_path.read_bytes()
    assert run.broken_seals() == []


def test_predictions_need_no_place(run: Run) -> None:
    images = run.path.parent / "data" / "images"
    before = set(run.path.parent.rglob("*"))
    done = run.predict(str(images))
    assert (done.images, done.quality) == (60, None)
    assert set(done.frame["decision"]) == {0, 1}
    assert set(run.path.parent.rglob("*")) == before
    own = run.predict(run.path.parent / "data" / "manifest.csv")
    scores = own.frame.set_index("case_id")["y_score"].astype(float).sort_index()
    stored = run.predictions.set_index("case_id")["y_score"].sort_index()
    assert scores.to_dict() == stored.to_dict()


@pytest.mark.parametrize("part", ["evaluation", "report", "predictions", "recipe", "checkpoint"])
def test_an_exported_model_is_no_run(tmp_path, part):
    """It has thresholds in a metrics.json of its own; what it lacks is its run's."""
    files = RunFiles(tmp_path)
    files.contract.write_text("{}")
    files.metrics.write_text('{"measures": [], "operating_points": []}')
    with pytest.raises(RunError, match="an exported model, which predicts and is without") as error:
        getattr(Run(tmp_path), part)()  # a property says it sooner
    assert error.value.expected == "the folder of the run that it was exported from"
    with pytest.raises(RunError, match="an exported model"):
        Run(tmp_path).validate(tmp_path / "m.csv", tmp_path / "out")
