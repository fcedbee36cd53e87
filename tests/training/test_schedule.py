import pytest

from medtl.training.schedule import FINAL_FRACTION, rate_factor


def trace(schedule, steps, warmup, **more):
    options = {"steps": steps, "warmup_steps": warmup, **more}
    return [rate_factor(schedule, step, **options) for step in range(steps)]


def test_warm_up_is_linear_and_ends_at_the_peak():
    assert trace("constant", 6, 4) == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])


def test_cosine_counts_from_the_end_of_the_warm_up():
    factors = trace("cosine", 12, 2)
    assert factors[2] == 1.0
    middle = FINAL_FRACTION + (1 - FINAL_FRACTION) / 2
    assert factors[7] == pytest.approx(middle)
    assert rate_factor("cosine", 12, steps=12, warmup_steps=2) == pytest.approx(FINAL_FRACTION)
    assert factors[2:] == sorted(factors[2:], reverse=True)


def test_step_divides_by_ten_at_30_60_80_of_90():
    factors = trace("step", 90, 0)
    assert [factors[29], factors[30], factors[60], factors[80]] == pytest.approx(
        [1, 0.1, 0.01, 0.001]
    )


def test_plateau_follows_its_drops():
    assert rate_factor("plateau", 5, steps=9, warmup_steps=0, plateau_drops=2) == pytest.approx(
        0.01
    )


def test_unknown_schedule():
    with pytest.raises(ValueError, match="unknown schedule"):
        rate_factor("exponential", 0, steps=1, warmup_steps=0)
