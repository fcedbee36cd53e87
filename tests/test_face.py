"""The public face: what `import medtl as mt` offers, how it loads and how it shows itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

import medtl as mt
from medtl.recipe.schema import parse_recipe

ROOT = Path(__file__).parents[1]
ROOMS = (mt.metrics, mt.losses, mt.preprocess, mt.report)


def test_the_face_is_what_it_lists() -> None:
    assert sorted(mt.__all__) == sorted([*mt._names, "__version__"])
    assert len(mt.__all__) <= 30
    assert set(mt.__all__) <= set(dir(mt))


@pytest.mark.parametrize("room", [mt, *ROOMS], ids=lambda room: room.__name__)
def test_every_name_of_a_face_is_there_and_documented(room: ModuleType) -> None:
    for name in room.__all__:
        found = getattr(room, name)
        assert getattr(found, "__doc__", None), name
        assert vars(room)[name] is found  # loaded once


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.__name__)
def test_no_name_of_a_face_is_that_of_a_file_beside_it(room: ModuleType) -> None:
    """Importing the file would put the module in the place of what it defines."""
    assert not set(room.__all__) & {found.name for found in iter_modules(room.__path__)}


def test_a_name_that_is_not_there_is_said() -> None:
    with pytest.raises(AttributeError, match="module 'medtl' has no attribute 'aurok'"):
        getattr(mt, "aurok")  # noqa: B009
    with pytest.raises(ImportError, match="cannot import name 'aurok'"):
        from medtl.metrics import aurok  # noqa: F401


def cpu_seconds(code: str) -> float:
    """Processor time of a new interpreter that runs `code`: the least of three."""
    script = f"import time\n{code}\nprint(time.process_time())"
    done = [
        subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
        )
        for _ in range(3)
    ]
    return min(float(one.stdout) for one in done)


def test_import_is_quick() -> None:
    assert cpu_seconds("import medtl") - cpu_seconds("") < 0.05


def test_reading_and_evaluating_load_no_torch() -> None:
    script = (
        "import sys, medtl as mt\n"
        "assert 'numpy' not in sys.modules\n"
        "for room in (mt, mt.metrics, mt.losses, mt.preprocess):\n"
        "    for name in room.__all__: getattr(room, name)\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_a_volume_is_drawn_as_seen_from_the_front() -> None:
    """(i, j, k): the first axis to the right, the second upwards."""
    array = np.zeros((1, 4, 6, 3), np.float32)
    array[0, 3, 5, 1] = 7.0  # right, top, middle slice
    ax = mt.Image(array, spacing=(2.0, 1.0, 5.0), modality="ct").plot()
    (drawn,) = ax.images
    assert drawn.get_array().shape == (6, 4)
    assert drawn.get_array()[0, 3] == 7.0
    assert drawn.get_extent() == [0, 8.0, 6.0, 0]
    assert (ax.get_xlabel(), ax.get_title()) == ("mm", "CT")
    other = mt.Image(array).plot(ax, at=0, vmin=-1)
    assert other is ax
    assert ax.images[1].get_array().max() == 0
    assert ax.get_xlabel() == "pixels"


def test_a_film_is_drawn_in_millimetres() -> None:
    film = mt.Image(np.eye(3, 5, dtype=np.float32)[None], spacing=(2.0, 1.0))
    assert film.plot().images[0].get_extent() == [0, 5.0, 6.0, 0]
    color = mt.Image(np.arange(27, dtype=np.float32).reshape(3, 3, 3))
    shown = color.plot().images[0].get_array()
    assert shown.shape == (3, 3, 3)
    assert (shown.min(), shown.max()) == (0.0, 1.0)


@pytest.mark.parametrize("shape", [(1, 8, 9), (3, 8, 9), (1, 8, 9, 4)])
def test_an_image_shows_itself_in_a_notebook(shape: tuple[int, ...]) -> None:
    page = mt.Image(np.zeros(shape, np.float32), notes=("a <b>",))._repr_html_()
    assert page.startswith('<img src="data:image/png;base64,')
    assert "a &lt;b&gt;" in page


def test_an_image_says_what_was_done_to_it() -> None:
    image = mt.Image(np.zeros((1, 2, 2), np.float32), spacing=(0.5, 0.7), notes=("turned",) * 200)
    assert repr(image).startswith("Image(1 x 2 x 2, 0.5 x 0.7 mm, notes: turned; turned")


def test_every_public_value_has_a_short_repr() -> None:
    case = mt.Case("c", "p", Path("x"), targets={f"finding {n}": "1" for n in range(99)})
    recipe = {
        "study": {"question": "Is it there? " * 50},
        "data": {"manifest": "m.csv", "target": [f"finding {n}" for n in range(40)]},
        "image": {"modality": "cxr"},
        "model": {"backbone": "resnet" * 60, "weights": "none"},
    }
    values = [
        mt.CI(),
        case,
        mt.Columns.of(recipe["data"] | {"target": ["effusion"]}),
        mt.evaluate([0, 1, 1, 0] * 9, np.linspace(0, 1, 36), ci=mt.CI(resamples=20)),
        mt.Image(np.zeros((1, 2, 2), np.float32), spacing=(0.5, 0.7), notes=("turned",) * 200),
        mt.Manifest((case,) * 99, Path("x"), ""),
        mt.Mask(np.zeros((4, 4), np.uint8), tuple(range(1, 200))),
        mt.metrics.auroc([0, 1, 1, 0] * 9, np.linspace(0, 1, 36)),
        mt.MedtlError("found", expected="another"),
        mt.OperatingPoint("effusion", 0.5, "sensitivity >= 0.90", "val", 10, 5),
        mt.Predictions(pd.DataFrame({"case_id": range(999)}), 999),
        parse_recipe(recipe),
        mt.Run("runs/nothing"),
        mt.StopTraining("enough"),
        mt.TableOptions(),
    ]
    shown = {type(value).__name__ for value in values} | {"Study"}  # tests/test_notebook.py
    classes = {name for name in mt.__all__ if isinstance(getattr(mt, name), type)}
    assert classes <= shown
    for value in values:
        assert len(repr(value)) < 400, value


def test_a_manifest_is_a_table() -> None:
    case = mt.Case("c", "p", Path("x"), targets={"pneumonia": "1"}, strata={"sex": "F"})
    frame = mt.Manifest((case,), Path("x"), "").frame()
    assert frame.to_dict("records") == [
        {"case_id": "c", "patient_id": "p", "split": "", "pneumonia": "1", "sex": "F"}
    ]
