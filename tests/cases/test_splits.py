from __future__ import annotations

import hashlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from medtl.cases.leaks import check_patients
from medtl.cases.splits import assign_splits, grouped_split, kfold, split_hash
from medtl.errors import ManifestError
from medtl.types import Case, Manifest

PARTS = (8, 1, 1)
SHARES = np.array([0.8, 0.1, 0.1])


def study(seed: int, num_patients: int = 200, num_labels: int = 5) -> tuple[list[str], np.ndarray]:
    """Patients with 1 to 6 images, whose findings persist from image to image."""
    rng = np.random.default_rng(seed)
    images = rng.integers(1, 7, num_patients)
    rates = np.geomspace(0.01, 0.4, num_labels)
    ill = rng.random((num_patients, num_labels)) < rates
    member = np.repeat(np.arange(num_patients), images)
    labels = (ill[member] & (rng.random((len(member), num_labels)) < 0.8)).astype(int)
    return [f"p{i:04d}" for i in member], labels


def parts_of(groups: list[str], parts: np.ndarray) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for group, part in zip(groups, parts, strict=True):
        found.setdefault(group, set()).add(int(part))
    return found


def one_hot(classes: np.ndarray) -> np.ndarray:
    return (classes[:, None] == np.unique(classes)).astype(int)


def test_a_case_by_hand() -> None:
    # 10 patients of one image, 5 ill. Shares 8:1:1 of 5 ill are 4, .5, .5 and of 10 images 8, 1, 1.
    labels = np.array([1] * 5 + [0] * 5)[:, None]
    parts = grouped_split([f"p{i}" for i in range(10)], labels, PARTS, 0)
    assert np.bincount(parts).tolist() == [8, 1, 1]
    assert labels[parts == 0].sum() == 4
    assert labels[parts > 0].sum() == 1


SEEDS = range(40)


def test_a_tie_between_parts_goes_to_the_one_that_lacks_rows_most() -> None:
    # 4 ill patients and 8 rows for 2:1:1. The first, of 3 rows, goes to part 0; then every part
    # lacks 1 ill patient, but part 0 lacks 1 row and the others 2: the second goes to one of them.
    groups, ill = list("aaabbcde"), [1, 0, 0, 1, 0, 1, 1, 0]
    for seed in SEEDS:
        parts = grouped_split(groups, np.array(ill)[:, None], (2, 1, 1), seed)
        assert parts[0] == 0
        assert parts[3] != 0


def test_a_tie_in_labels_and_rows_is_drawn() -> None:
    # The larger patient is dealt out first, and both parts lack 1.5 rows.
    none = np.zeros((3, 0), int)
    firsts = [int(grouped_split(["a", "a", "b"], none, (1, 1), seed)[0]) for seed in SEEDS]
    assert set(firsts) == {0, 1}


def test_patients_of_one_size_come_in_drawn_order() -> None:
    # Shares 3:1 of four patients: the third or fourth in order is alone, never the first two.
    none = np.zeros((4, 0), int)
    alone = {list("abcd")[grouped_split(list("abcd"), none, (3, 1), k).argmax()] for k in SEEDS}
    assert alone == set("abcd")


def exact_split(groups: list[str], labels: np.ndarray, shares: tuple[int, ...], seed: int) -> list:
    """The algorithm of `grouped_split` again, in fractions, which know no rounding."""
    names = sorted(set(groups))
    rows = {name: [i for i, group in enumerate(groups) if group == name] for name in names}
    ill = {name: labels[rows[name]].sum(axis=0).tolist() for name in names}
    draw = {
        name: int(hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest()[:16], 16) for name in names
    }
    share = [Fraction(one, sum(shares)) for one in shares]
    lack_rows = [one * len(groups) for one in share]
    lack = [[one * int(total) for total in labels.sum(axis=0)] for one in share]
    part_of: dict[str, int] = {}

    def deal(name: str, label: int | None) -> None:
        empty = set(range(len(share))) - set(part_of.values())
        allowed = empty if len(names) - len(part_of) <= len(empty) else range(len(share))
        need = lack_rows if label is None else [one[label] for one in lack]
        best = max((need[p], lack_rows[p], (p + draw[name]) % len(share), p) for p in allowed)[-1]
        part_of[name] = best
        lack_rows[best] -= len(rows[name])
        lack[best] = [one - taken for one, taken in zip(lack[best], ill[name], strict=True)]

    while True:
        free = [name for name in names if name not in part_of]
        left = [sum(ill[name][k] for name in free) for k in range(labels.shape[1])]
        if not any(left):
            break
        label = min((count, k) for k, count in enumerate(left) if count)[1]
        having = [name for name in free if ill[name][label]]
        for name in sorted(having, key=lambda n: (-ill[n][label], -len(rows[n]), draw[n])):
            deal(name, label)
    for name in sorted(free, key=lambda n: (-len(rows[n]), draw[n])):
        deal(name, None)
    return [part_of[group] for group in groups]


@pytest.mark.parametrize("shares", [PARTS, (7, 1), (1, 1, 1), (3, 2, 1), (6, 3, 1)])
def test_every_tie_is_broken_as_in_exact_arithmetic(shares: tuple[int, ...]) -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        groups = [f"p{k}" for k in rng.integers(0, 30, 40)]  # small and alike: full of ties
        labels = (rng.random((40, 2)) < 0.3).astype(int)
        found = grouped_split(groups, labels, shares, seed)
        assert found.tolist() == exact_split(groups, labels, shares, seed)


def test_a_tie_of_shares_that_no_float_holds_is_a_tie() -> None:
    # 0.7, 0.2 and 0.1 of 14: in floats the parts would differ in the 16th digit.
    groups, none = [f"p{k}" for k in range(14)], np.zeros((14, 0), int)
    for seed in range(4):
        found = grouped_split(groups, none, (7, 2, 1), seed)
        assert found.tolist() == exact_split(groups, none, (7, 2, 1), seed)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("fractions", [PARTS, (1,) * 5, (7, 1), (1,) * 10])
def test_no_patient_is_divided_and_shares_hold(seed: int, fractions: tuple[int, ...]) -> None:
    groups, labels = study(seed)
    parts = grouped_split(groups, labels, fractions, seed)
    assert all(len(found) == 1 for found in parts_of(groups, parts).values())
    shares = np.array(fractions) / sum(fractions)
    rows = np.bincount(parts, minlength=len(shares))
    assert rows == pytest.approx(shares * len(groups), abs=6)  # no patient has more images
    found = np.array([labels[parts == k].sum(axis=0) for k in range(len(shares))])
    assert found == pytest.approx(shares[:, None] * labels.sum(axis=0), abs=6)


def test_it_is_far_closer_to_the_shares_than_chance() -> None:
    groups, labels = study(3, num_patients=400)
    names = sorted(set(groups))
    stratified, chance = [], []
    for seed in range(10):
        draw = dict(zip(names, np.random.default_rng(seed).permutation(400) % 10, strict=True))
        random = np.array([max(draw[group] - 7, 0) for group in groups])
        for parts, errors in (
            (grouped_split(groups, labels, PARTS, seed), stratified),
            (random, chance),
        ):
            counts = np.array([labels[parts == k].sum(axis=0) for k in range(3)])
            errors.append(np.abs(counts - SHARES[:, None] * labels.sum(axis=0)).max())
    assert np.mean(stratified) < 0.25 * np.mean(chance)


@pytest.mark.parametrize("seed", range(5))
def test_single_images_of_exclusive_classes_miss_their_share_by_less_than_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = rng.choice(6, 500, p=[0.5, 0.3, 0.1, 0.06, 0.03, 0.01])
    labels = one_hot(classes)
    parts = grouped_split([f"p{i}" for i in range(500)], labels, PARTS, seed)
    counts = np.array([labels[parts == k].sum(axis=0) for k in range(3)])
    assert np.abs(counts - SHARES[:, None] * labels.sum(axis=0)).max() < 1


@pytest.mark.parametrize("folds", range(2, 11))
def test_folds_of_single_images_are_level_in_every_class(folds: int) -> None:
    classes = np.random.default_rng(folds).choice(3, 211, p=[0.7, 0.2, 0.1])
    labels = one_hot(classes)
    parts = grouped_split([f"p{i}" for i in range(211)], labels, (1,) * folds, 0)
    counts = np.array([labels[parts == k].sum(axis=0) for k in range(folds)])
    assert (counts.max(axis=0) - counts.min(axis=0)).max() <= 1


def test_row_order_changes_nothing_and_the_seed_does() -> None:
    groups, labels = study(1)
    parts = grouped_split(groups, labels, PARTS, 7)
    order = np.random.default_rng(0).permutation(len(groups))
    shuffled = grouped_split([groups[i] for i in order], labels[order], PARTS, 7)
    assert (shuffled == parts[order]).all()
    assert (grouped_split(groups, labels, PARTS, 7) == parts).all()
    assert (grouped_split(groups, labels, PARTS, 8) != parts).any()


def test_over_seeds_every_patient_is_tested_sometimes() -> None:
    groups = [f"p{i}" for i in range(30)]
    labels = np.array([[i % 2] for i in range(30)])
    tested = [grouped_split(groups, labels, PARTS, seed) == 2 for seed in range(200)]
    share = np.mean(tested, axis=0)
    assert share.min() > 0.02
    assert share.max() < 0.25


def test_classes_rarer_than_parts_and_no_labels_at_all() -> None:
    groups = [f"p{i}" for i in range(40)]
    labels = np.zeros((40, 3), dtype=int)
    labels[:1, 0] = labels[1:3, 1] = 1
    parts = grouped_split(groups, labels, PARTS, 0)
    assert np.bincount(parts).tolist() == [32, 4, 4]
    assert labels[parts == 0].sum(axis=0).tolist() == [1, 2, 0]  # training lacks them most
    folds = grouped_split(groups, labels, (1,) * 5, 0)
    assert len(set(folds[1:3].tolist())) == 2
    none = grouped_split(groups, np.zeros((40, 0), dtype=int), PARTS, 0)
    assert np.bincount(none).tolist() == [32, 4, 4]


def test_no_part_stays_empty_while_there_are_patients_for_it() -> None:
    groups = ["big"] * 100 + ["a", "b", "c"]
    parts = grouped_split(groups, np.zeros((103, 1), dtype=int), (1,) * 4, 0)
    assert set(parts.tolist()) == {0, 1, 2, 3}
    three = grouped_split(["a", "b", "c"], np.ones((3, 1), dtype=int), PARTS, 0)
    assert sorted(three.tolist()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("groups", "labels", "fractions", "match"),
    [
        (["a", "b"], [[1], [0]], PARTS, "2 patients cannot fill 3 parts"),
        (["a", "b", "c"], [[1], [0]], PARTS, "one row for each of 3 groups"),
        (["a", "b", "c"], [1, 0, 1], PARTS, "labels must be 0 or 1"),
        (["a", "b", "c"], [[1], [2], [0]], PARTS, "labels must be 0 or 1"),
        (["a", "b", "c"], [[1], [np.nan], [0]], PARTS, "labels must be 0 or 1"),
        (["a", "b", "c"], [[1], [1], [0]], (8, 0, 1), "fractions must be positive"),
        (["a", "b", "c"], [[1], [1], [0]], (8, np.inf), "fractions must be positive"),
        (["a", "b", "c"], [[1], [1], [0]], (), "fractions must be positive"),
    ],
)
def test_what_is_refused(groups: list[str], labels: list, fractions: tuple, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        grouped_split(groups, np.array(labels), fractions, 0)


# ------------------------------------------------------------------ manifests


def manifest(splits: list[str], images_each: int = 1) -> tuple[Manifest, np.ndarray]:
    """Two images of each patient where asked; every third patient is ill."""
    root = Path("/data")
    cases = tuple(
        Case(f"c{i:03d}-{j}", f"p{i:03d}", root / f"{i:03d}_{j}.png", split=split, row=i + 2)
        for i, split in enumerate(splits)
        for j in range(images_each)
    )
    labels = np.repeat([[int(i % 3 == 0)] for i in range(len(splits))], images_each, axis=0)
    return Manifest(cases, root, "0" * 64), labels


def splits_of(one: Manifest) -> list[str]:
    return [case.split for case in one.cases]


def test_a_split_is_made_8_1_1() -> None:
    given, labels = manifest([""] * 30, images_each=2)
    made = assign_splits(given, labels, seed=1)
    assert [splits_of(made).count(name) for name in ("train", "val", "test")] == [48, 6, 6]
    check_patients(made)
    assert made.notes == ("split by patient 8:1:1, stratified, seed 1",)
    assert splits_of(assign_splits(given, labels, fractions=(1, 1, 1))).count("test") == 20


def test_the_same_table_gives_the_same_split_under_any_salt() -> None:
    given, labels = manifest([""] * 60)
    cases = [replace(case, patient_id=case.patient_id[::-1]) for case in given.cases]
    other = replace(given, cases=tuple(cases))
    assert splits_of(assign_splits(other, labels)) == splits_of(assign_splits(given, labels))


def test_given_splits_are_kept() -> None:
    given, labels = manifest(["train"] * 5 + ["val"] * 2 + ["test"] * 3)
    assert assign_splits(given, labels) == given


def test_without_a_test_part_val_becomes_the_test_part_and_an_eighth_is_cut() -> None:
    given, labels = manifest(["train"] * 48 + ["val"] * 12, images_each=2)
    made = assign_splits(given, labels, seed=3)
    splits = np.array(splits_of(made))
    assert (splits == "test").tolist() == [case.split == "val" for case in given.cases]
    assert (splits == "val").sum() == 12
    assert labels[splits == "val"].sum() == 4
    check_patients(made)
    assert "its validation part became the test part" in made.notes[0]
    assert made.notes[1] == "6 of 48 training patients were cut off for validation, seed 3"


def test_without_a_validation_part_an_eighth_is_cut() -> None:
    given, labels = manifest(["train"] * 16 + ["test"] * 4)
    made = assign_splits(given, labels)
    assert splits_of(made).count("val") == 2
    assert splits_of(made)[16:] == ["test"] * 4
    assert made.notes == ("2 of 16 training patients were cut off for validation, seed 0",)


@pytest.mark.parametrize(
    ("splits", "match"),
    [
        (["train"] * 9, "the split column has only train; expected train and test"),
        (["test"] * 9, "the split column has only test"),
        (["val"] * 4 + ["test"] * 5, "the split column has only test and val"),
        (["train", "val"], "1 patient .1 rows. are too few for a split into 2 parts"),
        ([""], "1 patient .1 rows. are too few for a split into 3 parts"),
    ],
)
def test_splits_that_cannot_be(splits: list[str], match: str) -> None:
    given, labels = manifest(splits)
    with pytest.raises(ManifestError, match=match):
        assign_splits(given, labels)


def test_every_case_is_tested_once_over_the_folds() -> None:
    given, labels = manifest(["train"] * 40 + ["val"] * 8, images_each=2)
    folds = kfold(given, labels, 4, seed=5)
    tested = [case.case_id for fold in folds for case in fold.cases if case.split == "test"]
    assert sorted(tested) == sorted(case.case_id for case in given.cases)
    for fold in folds:
        check_patients(fold)
        splits = splits_of(fold)
        counts = [splits.count(name) for name in ("train", "val", "test")]
        assert counts == pytest.approx([62, 10, 24], abs=2)
        assert 0 < sum(labels[i, 0] for i, split in enumerate(splits) if split == "val") < 8
    assert folds[1].notes[0] == "fold 2 of 4 is the test part; seed 5"
    assert len({split_hash(fold) for fold in folds}) == 4


@pytest.mark.parametrize(
    ("folds", "match"), [(1, "1 folds; expected 2"), (9, "8 patients .8 rows. are too few")]
)
def test_folds_that_cannot_be(folds: int, match: str) -> None:
    given, labels = manifest([""] * 8)
    with pytest.raises(ManifestError, match=match):
        kfold(given, labels, folds, 0)


def test_the_hash_is_of_the_split_and_not_of_row_order() -> None:
    given, labels = manifest([""] * 30)
    made = assign_splits(given, labels)
    turned = replace(made, cases=made.cases[::-1])
    assert split_hash(turned) == split_hash(made)
    assert split_hash(assign_splits(given, labels, seed=1)) != split_hash(made)
    assert split_hash(given) != split_hash(made)
