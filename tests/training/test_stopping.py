import pytest

from medtl.training.stopping import Position, Stopping
from medtl.types import Stage


def run(values, **options):
    state = Stopping(**options)
    for epoch, value in enumerate(values):
        state = state.update(value, epoch)
    return state


@pytest.mark.parametrize(
    ("values", "options", "best_epoch", "waited"),
    [
        ([3, 2, 1], {}, 2, 0),
        ([3, 2, 2, 2], {}, 1, 2),  # a tie is no improvement
        ([3, 2.95, 2.5], {"min_delta": 0.1}, 2, 0),
        ([3, 2.95], {"min_delta": 0.1}, 0, 1),
        ([0.5, 0.7, 0.6], {"mode": "max"}, 1, 1),
        ([float("nan"), 2, float("nan")], {}, 1, 1),
        ([3, 2], {"baseline": 1.0}, -1, 2),  # never better than the baseline
        ([3, 0.5], {"baseline": 1.0}, 1, 0),
    ],
)
def test_scripted_values(values, options, best_epoch, waited):
    state = run(values, **options)
    assert (state.best_epoch, state.waited) == (best_epoch, waited)


def test_a_new_stage_has_new_patience_but_the_old_best():
    state = run([3, 1, 2, 2]).next_stage()
    assert (state.best, state.waited) == (1, 0)
    state = state.update(1.5, 4)  # best of this stage, not of all
    assert (state.best_epoch, state.waited) == (1, 0)
    assert state.update(0.5, 5).best_epoch == 5


STAGE = Stage("full", "all", 9, {"head": 1e-3}, schedule="plateau")


def test_position_survives_json():
    import json

    position = (
        Position().after_epoch(STAGE, 1.0, {"epoch": 0}).after_epoch(STAGE, 2.0, {"epoch": 1})
    )
    again = Position.from_dict(json.loads(json.dumps(position.to_dict())))
    assert again == position
    assert [row["best"] for row in again.history] == [1, 0]
    assert not again.improved


def test_plateau_drops_after_two_epochs_without_improvement():
    position = Position()
    for value in [1, 2, 2, 2, 2]:
        position = position.after_epoch(STAGE, value, {})
    assert position.drops == 2
    assert position.next_stage().drops == 0
