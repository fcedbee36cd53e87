"""The first pass: every fault at once, with the nearest valid name."""

from __future__ import annotations

import csv
import re
import subprocess
import sys

import pytest
from tiny_study import RECIPE, write_tiny_study

from medtl.errors import ManifestError, RecipeError
from medtl.run.check import read_recipe
from medtl.run.prepare import read_study


def faults_of(folder, recipe, *overrides):
    path = write_tiny_study(folder, recipe=recipe)
    with pytest.raises(RecipeError) as error:
        read_recipe(path, overrides)
    return str(error.value)


def test_a_good_recipe_has_no_faults(tmp_path):
    recipe = read_recipe(write_tiny_study(tmp_path))
    assert recipe.finetune.stages[1].lr["base"] == 1e-2
    assert recipe.data.manifest == str((tmp_path / "manifest.csv").resolve())


def test_all_faults_of_all_kinds_at_once(tmp_path):
    bad = (
        RECIPE.replace("question:", "qestion:")
        .replace("size: 32", 'size: "32"')
        .replace("target: bright", "target: brite")
        .replace("test_resnet", "test_resnett")
        .replace("modality: cxr", "modality: xr")
    )
    text = faults_of(tmp_path, bad)
    for expected in (
        "study.qestion: unknown key. Did you mean 'question'",
        "image.size: got '32'; expected a whole number",
        "data.target: no column 'brite'. Did you mean 'bright'",
        "model.backbone: no backbone 'test_resnett'. Did you mean 'test_resnet'",
        "image.modality: got 'xr'",
        "Did you mean 'cxr'",
    ):
        assert expected in text
    assert "6 faults" in text


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["1", "-1"], r"-1 is read as uncertain; if it means absent, state .*\"-1\": 0"),
        (["x", ""], r"An empty cell is no label; .* state data.labels: {x: 1, \"\": 0}"),
        (["1"], r"\(1 \d+ times\).*nothing to learn from it"),
    ],
)
def test_what_a_column_of_one_value_may_mean(tmp_path, cells, said):
    recipe = write_tiny_study(tmp_path / "data")
    manifest = recipe.parent / "manifest.csv"
    with manifest.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        row["bright"] = cells[number % len(cells)]
    with manifest.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(RecipeError, match="holds one value only") as caught:
        read_recipe(recipe)
    assert re.search(said, str(caught.value), re.DOTALL)


def test_a_prevalence_of_no_finding_is_found_before_the_training(tmp_path):
    path = write_tiny_study(tmp_path)
    with pytest.raises(ManifestError, match=r"stated for 'brigt'.*one of bright.*mean 'bright'"):
        read_study(read_recipe(path, ["study.prevalence={brigt: 0.1}"]))
    assert read_study(read_recipe(path, ["study.prevalence={bright: 0.1}"])).cases


NO_WEIGHTS = "weights: {source: none, random_features: true}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("manifest: manifest.csv", "manifest: manifst.csv", "manifst.csv"),
        ("strata: [site]", "strata: [cite]", "data.strata: no column 'cite'"),
        ("target: bright", "target: sex", "holds one value only"),
        ("target: bright", "target: bright, positive: bright", "data.positive: no value 'bright'"),
        ("target: bright", "target: bright, uncertain: {brit: ones}", "data.uncertain"),
        (f"test_resnet, {NO_WEIGHTS}", "resnet18", "no weights of resnet18 come with"),
        (
            NO_WEIGHTS,
            "weights: {source: file, path: w.safetensors}",
            "model.weights.path: no file 'w.safetensors'",
        ),
        ("size: 32}", "size: 32, scale: window}", "needs image.window"),
        ("size: 32}", "size: 32, scale: window, window: lungs}", "Did you mean 'lung'"),
        ("lr: {head: 1e-2, base: 1e-2}", "lr: {head: 1e-2}", "finetune.stages.1.lr"),
        ("run:", "augment: {transforms: {horizontal_flip: {}}}\nrun:", "is UNSAFE for cxr"),
        ("name: full", "name: head", "stage names must differ"),
        ("operating_point: {sensitivity: 0.8}", "operating_point: {}", "exactly one rule"),
        ("size: 32}", "size: 32, percentiles: [99, 1]}", "0 <= low < high <= 100"),
        (NO_WEIGHTS, "weights: {source: file}", "a path goes with source 'file'"),
        (NO_WEIGHTS, "weights: none", "'head', freezes layers of random weights"),
        (NO_WEIGHTS, "weights: {source: timm, random_features: true}", "random_features goes with"),
        (NO_WEIGHTS, "weights: {path: w.pt, card: xrv-densnet121}", "Did you mean xrv-densenet121"),
        (
            f"test_resnet, {NO_WEIGHTS}",
            "resnet18, weights: {path: w.pt, card: xrv-resnet50}",
            "50, not",
        ),
        (NO_WEIGHTS, "weights: {source: timm, card: xrv-resnet50}", "of the backbone resnet50"),
        ("question:", "question: [", "line"),
        ("strata: [site]", "strata: site", "data.strata: got 'site'; expected a list"),
        ("target: bright", "target: site", "positive: north or positive: south"),
        ("target: bright", "target: age", "one prevalence for"),
    ],
)
def test_each_fault(tmp_path, old, new, message):
    assert old in RECIPE
    assert message in faults_of(tmp_path, RECIPE.replace(old, new))


def test_a_missing_recipe(tmp_path):
    with pytest.raises(RecipeError, match=r"nothing\.yaml"):
        read_recipe(tmp_path / "nothing.yaml")


def test_a_recipe_that_is_a_list(tmp_path):
    assert "mapping" in faults_of(tmp_path, "- a\n- b\n")


def test_a_patient_in_two_splits_is_found_before_any_work(tmp_path):
    path = write_tiny_study(tmp_path)
    manifest = tmp_path / "manifest.csv"
    lines = manifest.read_text().splitlines()
    splits = ["split", *("train" if n % 2 else "test" for n in range(len(lines) - 1))]
    manifest.write_text("\n".join(f"{a},{b}" for a, b in zip(lines, splits, strict=True)) + "\n")
    with pytest.raises(RecipeError, match="leak") as error:
        read_recipe(path)
    assert "Kim" not in str(error.value)


def test_overrides(tmp_path, monkeypatch):
    path = write_tiny_study(tmp_path / "study")
    recipe = read_recipe(path, ["finetune.stages.0.lr=1e-4", "run.seed=7", "image.size=64"])
    assert recipe.finetune.stages[0].lr["head"] == 1e-4
    assert (recipe.run.seed, recipe.image.size) == (7, 64)
    monkeypatch.chdir(tmp_path)
    again = read_recipe(path, ["data.manifest=study/manifest.csv"])
    assert again.data.manifest == recipe.data.manifest


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("image.size", "cannot read the override"),
        ("data.manifest.x=1", "has no keys"),
        ("finetune.stages.9.lr=1", "has no keys"),
        ("image.sise=3", "Did you mean 'size'"),
    ],
)
def test_bad_overrides(tmp_path, override, message):
    assert message in faults_of(tmp_path, RECIPE, override)


def test_the_first_pass_imports_no_torch(tmp_path):
    path = write_tiny_study(tmp_path)
    code = (
        "import sys, pathlib; from medtl.run.check import read_recipe; "
        f"read_recipe(pathlib.Path({str(path)!r})); "
        "print([m for m in ('torch', 'timm', 'pandas', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def words(folder, cells, **data):
    """What check says of a column of words with these keys of the section data."""
    path = write_tiny_study(folder)
    head, *rows = (folder / "manifest.csv").read_text().splitlines()
    rows = [f"{row},{cells[number // 2 % len(cells)]}" for number, row in enumerate(rows)]
    (folder / "manifest.csv").write_text("\n".join([f"{head},word", *rows]) + "\n")
    stated = [f"data.{key}={value}" for key, value in data.items()]
    read_recipe(path, ["data.target=word", *stated])


def test_a_word_of_the_recipe_that_no_cell_holds_is_blamed(tmp_path):
    with pytest.raises(RecipeError, match=r"data\.labels: no value 'yess'\. Did you mean 'yes'"):
        words(tmp_path, ["yes", "no"], labels="{yess: 1, 'no': 0}")


def test_labels_for_words_where_the_cells_are_numbers(tmp_path):
    with pytest.raises(RecipeError, match="no value 'positive'; expected one of 0, 1"):
        words(tmp_path, ["1", "0"], labels="{positive: 1, 'no': 0}")


def test_a_list_of_words_may_be_longer_than_one_table_needs(tmp_path):
    words(tmp_path, ["Yes", "no"], labels="{'yes': 1, 'no': 0, unklar: -1, pos: 1}")
