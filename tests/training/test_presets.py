import pytest

from medtl.networks.selectors import resolve
from medtl.training.stage import DECAY, preset_stages

GROUPS = ["stem", "layer1", "layer2", "layer3", "layer4", "head"]

EXPECTED = {
    "linear_probe": [["head"]],
    "full": [GROUPS],
    "lp_ft": [["head"], GROUPS],
    "bn_only": [["head"], GROUPS],
    "gradual": [GROUPS[i:] for i in (5, 4, 3, 2, 1, 0)],
    "surgical:first": [["head"], ["stem", "layer1", "head"]],
    "surgical:middle": [["head"], ["layer2", "head"]],
    "surgical:last": [["head"], ["layer3", "layer4", "head"]],
}


@pytest.mark.parametrize("preset", EXPECTED)
def test_what_trains_in_each_stage(preset):
    stages = preset_stages(preset, GROUPS)
    assert [list(resolve(stage.train, GROUPS)) for stage in stages] == EXPECTED[preset]
    names = [stage.name for stage in stages]
    assert len(set(names)) == len(names)
    for stage in stages:
        assert stage.train == "head" or stage.lr["base"] <= stage.lr["head"]
        assert stage.train == "head" or stage.warmup_epochs > 0


def test_gradual_thaws_one_group_a_stage_at_discriminative_rates():
    for stage in preset_stages("gradual", GROUPS)[1:]:
        assert stage.layer_decay == DECAY == pytest.approx(0.385, abs=1e-3)


def test_bn_only_trains_scale_and_shift():
    assert dict(preset_stages("bn_only", GROUPS)[1].batch_norm) == {"all": "bn_only"}


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="unknown preset 'surgical:top'"):
        preset_stages("surgical:top", GROUPS)
