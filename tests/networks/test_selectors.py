import pytest

from medtl.errors import SelectorError
from medtl.networks.selectors import resolve

GROUPS = ("stem", "layer1", "layer2", "layer3", "layer4", "head")
BLOCKS = ("layer1.0", "layer1.1", "layer2.0", "layer2.1")


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("layer4", ["layer4"]),
        ("name:layer4", ["layer4"]),
        ("head", ["head"]),
        ("layer*", ["layer1", "layer2", "layer3", "layer4"]),
        ("layer[34]", ["layer3", "layer4"]),
        (r"/layer[34]|stem/", ["stem", "layer3", "layer4"]),
        (r"/layer\d{1,2}/,head", ["layer1", "layer2", "layer3", "layer4", "head"]),
        ("first:2", ["stem", "layer1"]),
        ("last:1", ["layer4"]),
        ("last:5", ["stem", "layer1", "layer2", "layer3", "layer4"]),
        ("middle:1", ["layer2"]),
        ("middle:3", ["layer1", "layer2", "layer3"]),
        ("stage:0", ["stem"]),
        ("stage:4", ["layer4"]),
        ("frac:0.75-1.0", ["layer4"]),
        ("frac:0-0.5", ["stem", "layer1"]),
        ("frac:0.5-1", ["layer2", "layer3", "layer4"]),
        ("all", list(GROUPS)),
        ("none", []),
        ("head, last:1", ["layer4", "head"]),
        ("!stem", ["layer1", "layer2", "layer3", "layer4", "head"]),
        ("all,!head,!stem", ["layer1", "layer2", "layer3", "layer4"]),
        ("!last:1,layer3,layer4", ["layer3"]),
        ("none,head", ["head"]),
        (["last:1", "head"], ["layer4", "head"]),
        (["head"], ["head"]),
    ],
)
def test_selector_chooses_the_names_in_forward_order(selector, expected):
    assert list(resolve(selector, GROUPS)) == expected


def test_fractions_partition_the_depth():
    parts = [resolve(f"frac:{a}-{b}", GROUPS) for a, b in (("0", "0.5"), ("0.5", "1"))]
    assert sorted(parts[0] + parts[1]) == sorted(GROUPS[:-1])


def test_random_is_a_function_of_the_seed_and_leaves_the_head_out():
    draws = [resolve(f"random:2@{seed}", GROUPS) for seed in range(30)]
    assert draws[3] == resolve("random:2@3", GROUPS)
    assert len(set(draws)) > 3
    assert all(len(d) == 2 and "head" not in d for d in draws)
    assert all(GROUPS.index(a) < GROUPS.index(b) for a, b in draws)


def test_blocks_have_no_head_and_their_own_stages():
    stages = (1, 1, 2, 2)
    assert resolve("stage:2", BLOCKS, head=None, stages=stages) == ("layer2.0", "layer2.1")
    assert resolve("last:1", BLOCKS, head=None) == ("layer2.1",)
    assert resolve("layer1.*,layer2.1", BLOCKS, head=None) == ("layer1.0", "layer1.1", "layer2.1")


@pytest.mark.parametrize(
    ("selector", "words"),
    [
        ("layr4", r"'layr4' selects no layer; expected one of stem.*Did you mean 'layer4'\?"),
        ("name:layer9", "'name:layer9' selects no layer.*Did you mean"),
        ("block*", r"'block\*' selects no layer"),
        ("/block.*/", "selects no layer"),
        ("last:6", "'last:6' selects no layer"),
        ("first:6", "selects no layer"),
        ("middle:6", "selects no layer"),
        ("random:6@1", "selects no layer"),
        ("stage:9", "selects no layer"),
        ("frac:0.15-0.25", "'frac:0.15-0.25' selects no layer"),
        ("last:0", "'last:0' is malformed; expected the form last:2"),
        ("last:x", "malformed"),
        ("frac:1", "expected the form frac:0.75-1.0"),
        ("random:2", "expected the form random:2@7"),
        ("lst:2", r"'lst:2' is no known form of selector.*Did you mean 'last'\?"),
        ("/layer[/", "not a valid pattern"),
        ("/layer4", "selects no layer"),
        ("", "empty or malformed term"),
        ("head,,layer4", "empty or malformed term"),
        ("!", "empty or malformed term"),
        ([], "empty or malformed term"),
        ("!layr4", "'layr4' selects no layer"),
        ("head,!head", "leave no layer.*Write 'none'"),
    ],
)
def test_a_selector_that_names_nothing_is_an_error(selector, words):
    with pytest.raises(SelectorError, match=words):
        resolve(selector, GROUPS)
