import json

import pytest

from medtl.prediction.likeness import training_profile, unlike_training

FACTS = [
    {
        "modality": "dx",
        "view_position": "PA" if i % 2 else "AP",
        "spacing_mm": 0.14 + 0.0001 * i,
        "unit_p5": 0.05,
        "unit_p50": 0.4 + 0.001 * i,
        "unit_p95": 0.9,
    }
    for i in range(100)
]
PROFILE = training_profile(FACTS)


def test_training_images_are_like_themselves():
    assert all(unlike_training(facts, PROFILE) == [] for facts in FACTS)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"modality": "ct"}, "modality not seen in training"),
        ({"view_position": "LL"}, "view position not seen in training"),
        ({"spacing_mm": 1.0}, "pixel spacing outside the training range"),
        ({"unit_p50": 0.9}, "intensity outside the training range"),
    ],
)
def test_each_difference_is_said(change, reason):
    assert unlike_training({**FACTS[0], **change}, PROFILE) == [reason]


def test_two_intensities_off_are_said_once():
    odd = {**FACTS[0], "unit_p5": 0.9, "unit_p50": 0.9}
    assert unlike_training(odd, PROFILE) == ["intensity outside the training range"]


def test_what_an_image_does_not_state_is_not_held_against_it():
    assert unlike_training({"modality": "dx"}, PROFILE) == []


def test_a_rare_value_in_training_does_not_count_as_seen():
    facts = [*FACTS, *FACTS, {**FACTS[0], "view_position": "LL"}]
    assert training_profile(facts)["view_position"] == ["AP", "PA"]


def test_what_few_training_images_state_is_left_out():
    facts = [{"modality": ""} for _ in range(9)] + [{"modality": "dx"}]
    assert training_profile(facts) == {}


def test_the_profile_is_json():
    assert json.loads(json.dumps(PROFILE)) == PROFILE
