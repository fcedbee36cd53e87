import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medtl.prediction.gallery import MAX_CASES, choose_cases, worst_readings, write_gallery
from medtl.types import OperatingPoint

POINT = OperatingPoint("f", 0.5, "youden", "val", 10, 5)


def table(rows, label="f"):
    columns = ["case_id", "y_true", "y_score", "split"]
    return pd.DataFrame(rows, columns=columns).assign(label=label)


def test_the_most_wrong_and_the_least_certain():
    rows = [
        ("missed-badly", 1, 0.05, "test"),
        ("missed-a-little", 1, 0.45, "test"),
        ("false-badly", 0, 0.95, "test"),
        ("right-but-near", 1, 0.51, "test"),
        ("right-and-far", 0, 0.01, "test"),
        ("unknown", None, 0.0, "test"),
        ("validation", 1, 0.0, "val"),
    ]
    chosen = choose_cases(table(rows), [POINT], per_kind=1)
    assert [(e.kind, e.case_id) for e in chosen] == [
        ("missed", "missed-badly"),
        ("false_alarm", "false-badly"),
        ("uncertain", "right-but-near"),
    ]


def test_many_labels_share_the_room_fairly():
    rows = [(f"c{i}", i % 2, (i * 7 % 10) / 10, "test") for i in range(40)]
    labels = [f"f{k}" for k in range(9)]
    tables = pd.concat([table(rows, label) for label in labels])
    points = [OperatingPoint(label, 0.5, "youden", "val", 10, 5) for label in labels]
    chosen = choose_cases(tables, points)
    assert len(chosen) == MAX_CASES
    assert {e.label for e in chosen} == set(labels)


def test_nobody_flagged_has_no_false_alarms():
    nobody = OperatingPoint("f", float("inf"), "specificity", "val", 10, 5)
    rows = [("a", 0, 0.9, "test"), ("b", 1, 0.9, "test")]
    kinds = [e.kind for e in choose_cases(table(rows), [nobody])]
    assert kinds == ["missed", "uncertain"]


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_written_without_metadata(tmp_path, channels):
    entries = choose_cases(table([("a", 1, 0.1, "test")]), [POINT])
    unit = np.linspace(0, 1, channels * 64, dtype=np.float32).reshape(channels, 8, 8)
    hot = np.zeros((2, 2), dtype=np.float32)
    hot[0, 0] = 1
    write_gallery(tmp_path, entries, unit_of=lambda _: unit, heat_of=lambda _case, _label: hot)
    listed = json.loads((tmp_path / "gallery.json").read_text())
    assert listed[0]["kind"] == "missed"
    plain, overlay = (Image.open(tmp_path / listed[0][key]) for key in ("image", "overlay"))
    assert plain.size == overlay.size == (8, 8)
    assert plain.info == {}
    difference = np.abs(np.asarray(plain, float) - np.asarray(overlay, float)).sum(axis=2)
    assert difference[0, 0] > 0
    assert difference[7, 7] == 0


def test_the_readings_furthest_off_say_both_numbers(tmp_path):
    worst = [{"case_id": "a", "label": "age", "reference": 24.0, "estimate": 41.4, "error": 17.4}]
    (reading,) = worst_readings(worst)
    assert reading.value == "reference 24, model 41 (+17)"
    write_gallery(
        tmp_path / "gallery",
        [reading],
        unit_of=lambda _case: np.zeros((1, 8, 8), np.float32),
        heat_of=lambda _case, _label: np.ones((2, 2), np.float32),
    )
    (entry,) = json.loads((tmp_path / "gallery" / "gallery.json").read_text())
    assert (entry["kind"], entry["value"], entry["image"]) == ("worst", reading.value, "00.png")


def test_a_heat_map_of_nothing_is_said_and_not_drawn(tmp_path):
    entries = choose_cases(table([("a", 1, 0.1, "test")]), [POINT])
    write_gallery(
        tmp_path,
        entries,
        unit_of=lambda _: np.zeros((1, 8, 8), np.float32),
        heat_of=lambda _case, _label: np.zeros((2, 2), np.float32),
    )
    (entry,) = json.loads((tmp_path / "gallery.json").read_text())
    assert entry["nothing_raised_the_score"] is True
    assert entry["overlay"] is None
    assert not (tmp_path / "00_cam.png").exists()


def test_a_large_picture_has_the_scale_of_its_heat_map(tmp_path):
    entries = choose_cases(table([("a", 1, 0.1, "test")]), [POINT])
    hot = np.zeros((2, 2), np.float32)
    hot[0, 0] = 1
    write_gallery(
        tmp_path,
        entries,
        unit_of=lambda _: np.full((1, 256, 256), 0.5, np.float32),
        heat_of=lambda _case, _label: hot,
    )
    bar = np.asarray(Image.open(tmp_path / "00_cam.png"), float)[64:192, 250]
    assert bar[0, 0] > bar[-1, 0]  # the strongest above
    assert (np.diff(bar[:, 0]) <= 0).all()
