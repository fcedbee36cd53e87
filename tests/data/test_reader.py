import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from medtl.data.reader import (
    ImageReader,
    ReadRecord,
    check_readable,
    decode_cases,
    in_order,
    read_in_parts,
)
from medtl.data.store import LEVELS
from medtl.errors import ImageError, RunError
from medtl.io.cost import Limits
from medtl.networks.weights import InputContract
from medtl.preprocess.pipeline import Preprocessor
from medtl.recipe.schema import parse_recipe
from medtl.run.build import build_reader
from medtl.types import Case

READER = ImageReader(Preprocessor(size=16, scale="min_max"))


def cases(folder, n=5):
    made = []
    for i in range(n):
        path = folder / f"{i}.png"
        pixels = np.random.default_rng(i).integers(0, 255, (20, 20)).astype(np.uint8)
        Image.fromarray(pixels).save(path)
        made.append(Case(f"c{i}", f"p{i}", path))
    return made


@pytest.mark.parametrize("threads", [1, 3])
def test_units_are_what_the_preprocessor_makes(tmp_path, threads):
    found = cases(tmp_path)
    store, records = decode_cases(found, READER, threads=threads)
    assert store.case_ids == ("c0", "c1", "c2", "c3", "c4")
    for row, case in enumerate(found):
        expected = READER.preprocessor.to_unit(READER.read(case))
        assert np.abs(store.unit(row) - expected).max() <= 0.5 / LEVELS + 1e-7
    assert len({record.sha256 for record in records}) == 5


def test_a_bad_file_costs_its_own_case_only(tmp_path):
    found = cases(tmp_path)
    found[2].image.write_bytes(b"not an image")
    seen = []
    store, records = decode_cases(
        found, READER, file=tmp_path / "units", progress=lambda d, t: seen.append((d, t))
    )
    assert store.case_ids == ("c0", "c1", "c3", "c4")
    assert [bool(r.cause) for r in records] == [False, False, True, False, False]
    assert store.rows([found[4], found[0]]).tolist() == [3, 0]
    assert seen[-1] == (5, 5)


def test_what_a_file_may_cost_is_the_readers_to_say(tmp_path):
    (case,) = cases(tmp_path, 1)
    strict = replace(READER, limits=Limits(pixels_per_frame=399))
    with pytest.raises(ImageError, match=r"has 400 pixels .* raise data\.limits\.pixels_per_frame"):
        strict.read(case)
    recipe = parse_recipe(
        {
            "study": {"question": "Bright?"},
            "data": {"manifest": "m.csv", "target": "t", "limits": {"pixels_per_frame": 399}},
            "image": {"modality": "cxr", "size": 32},
        }
    )
    assert build_reader(recipe, InputContract((0.5,), (0.5,)), None).limits == strict.limits


def test_a_volume_needs_a_frame(tmp_path):
    import nibabel

    path = tmp_path / "v.nii.gz"
    volume = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), path)
    whole, slice_ = Case("v", "v", path), Case("s", "v", path, frame=2)
    store, records = decode_cases([whole, slice_], READER)
    assert "Name the slice or frame in a 'frame' column" in records[0].cause
    assert store.case_ids == ("s",)
    assert READER.read(slice_).array[0] == pytest.approx(volume[:, :, 2])


def test_too_many_unreadable():
    records = [ReadRecord("a"), ReadRecord("b", cause="b.png: cut")]
    check_readable(records, 0.5)
    with pytest.raises(RunError, match=r"1 of 2 images could not be used \(b\.png: cut\)"):
        check_readable(records, 0.4)


@pytest.mark.parametrize(
    ("number", "sizes"), [(5, [3, 2]), (6, [3, 3]), (1, [1]), (10, [3, 3, 2, 2])]
)
def test_parts_are_what_all_at_once_is_and_few_wait_in_memory(tmp_path, number, sizes):
    found = cases(tmp_path, number)
    found[0].image.write_bytes(b"not an image")
    store, records = decode_cases(found, READER)
    parts = list(read_in_parts(found, READER, 3))
    assert [len(read) for _, read in parts] == sizes
    assert [record for _, read in parts for record in read] == records
    units = [part.units[row] for part, _ in parts for row in range(len(part.case_ids))]
    assert [case_id for part, _ in parts for case_id in part.case_ids] == [*store.case_ids]
    for row, unit in enumerate(units):
        np.testing.assert_array_equal(unit, store.units[row])


def test_of_hundreds_of_images_one_part_is_in_memory(tmp_path):
    parts, most = [], 0
    for store, _ in read_in_parts(cases(tmp_path, 300), READER, 4):
        parts.append(weakref.ref(store.units))
        most = max(most, sum(part() is not None for part in parts))
    assert (len(parts), most) == (75, 1)


def test_images_are_begun_only_when_they_are_near():
    begun, most = [], 0

    def call(item):
        begun.append(item)
        return item

    with ThreadPoolExecutor(3) as pool:
        for taken, item in enumerate(in_order(pool, call, range(500), ahead=12)):
            assert item == taken
            most = max(most, len(begun) - taken)
    assert (len(begun), most <= 12) == (500, True)
