from __future__ import annotations

import math
from pathlib import Path

import pytest

from medtl.errors import MedtlError
from medtl.storage import yaml as yaml12
from medtl.storage.yaml import dump_yaml, load_yaml, loads

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus" / "yaml"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 0.0001),
        ("1E5", 1e5),
        ("-.5e3", -500.0),
        ("5.", 5.0),
        ("+1", 1),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("-.inf", -math.inf),
        ("no", "no"),
        ("Off", "Off"),
        ("12:30", "12:30"),
        ("2020-01-01", "2020-01-01"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("007a", "007a"),
        ("'007'", "007"),
        ("!!str 7", "7"),
        ("~", None),
        ("", None),
        ("true", True),
        ("False", False),
        ("[no, yes, NA]", ["no", "yes", "NA"]),
        ("=", "="),
        ("{b: 1, a: [{}]}", {"b": 1, "a": [{}]}),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    found = loads(f"a: {text}", "r.yaml")["a"]
    assert found == value
    assert type(found) is type(value)


def test_nan_is_read_and_an_old_version_directive_changes_nothing() -> None:
    assert math.isnan(loads("a: .nan", "r")["a"])
    assert loads("%YAML 1.1\n---\na: no", "r") == {"a": "no"}


def test_keys_are_texts_as_written() -> None:
    assert loads("007: a\n1.0: b\nno: c\ntrue: d", "r") == {
        "007": "a",
        "1.0": "b",
        "no": "c",
        "true": "d",
    }


def test_an_alias_gives_the_value_of_its_anchor() -> None:
    assert loads("a: &x [1, 2]\nb: *x", "r") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a: 1\nb: 2\na: 3", r"r\.yaml, line 3: duplicate key 'a'"),
        ("{a: 1, 'a': 2}", "duplicate key"),
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("- a\n- b", "the top level is a list; expected a mapping"),
        ("7", "the top level is a single value"),
        ("a:\n\tb: 1", "line 2: a tab indents the line"),
        ("a: [1", "line 1: not YAML"),
        ("a: b: c", "not YAML: mapping values are not allowed here"),
        ("a: \x01", "character that is not allowed"),
        ("a: *x", r"the alias \*x has no anchor"),
        ("a: &x [*x]", r"the alias \*x has no anchor"),
        ("a: 1\n---\nb: 2", "line 2: a second document"),
        ("x: !!python/object/apply:os.mkdir [canary]", "line 1: the tag"),
        ("x: !thing a", "the tag"),
        ("!!python/name:os.system x: 1", "the tag"),
        ("a: &x {b: 1}\nc:\n  <<: *x", "merge keys"),
        ("? [1, 2]\n: 3", "a key is not a plain text"),
        ("a: " + "9" * 5000, "too many digits"),
        ("a: " + "[" * 100 + "]" * 100, "nested deeper than the limit"),
        ("a: " + "[" * 100_000, "nested deeper"),
        ("a: " + "x" * 300_000, "larger than the limit of 256 KiB"),
    ],
)
def test_what_is_refused(text: str, match: str) -> None:
    with pytest.raises(MedtlError, match=match):
        loads(text, "r.yaml")


def test_a_bomb_of_aliases_is_refused_before_it_explodes() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(MedtlError, match="line 5: expands to more than the limit"):
        loads("\n".join(lines), "r.yaml")


def test_the_number_of_values_is_limited_also_without_aliases(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(yaml12, "MAX_NODES", 10)
    assert loads("a: [1, 2, 3, 4, 5, 6, 7]", "r")
    with pytest.raises(MedtlError, match="more than the limit of 10 values"):
        loads("a: [1, 2, 3, 4, 5, 6, 7, 8]", "r")


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: \xed\x95\x9c\r\n")
    assert load_yaml(path) == {"a": "한"}
    path.write_bytes("a: 1\nb: 정상".encode("cp949"))
    with pytest.raises(MedtlError, match=r"r\.yaml: line 2 holds bytes that are not UTF-8"):
        load_yaml(path)
    path.write_bytes(b"a" * (yaml12.MAX_BYTES + 1))
    with pytest.raises(MedtlError, match="larger than the limit"):
        load_yaml(path)
    with pytest.raises(MedtlError, match=r"none\.yaml: the file is not found") as error:
        load_yaml(tmp_path / "none.yaml")
    assert str(tmp_path) not in str(error.value)


TRICKY = [
    "no", "Yes", "y", "1e-4", "007", "-.5e3", "0x1F", "", " ", "a ", " a", "a: b", "# c", "null",
    "~", "- x", "=", "*x", "&x", "!x", "%x", "@x", "`x", "'", '"', "a\nb", "a\tb", "한글", "\u2028",
    "true", "last:1", "2020-01-01", ".inf", ".nan", "{a}", "[a]", "a, b", "x" * 300,
    "head (new)", "90 %",
]  # fmt: skip


def test_dump_and_load_give_back_the_same() -> None:
    data = {
        "texts": TRICKY,
        "keys": {text: i for i, text in enumerate(TRICKY)},
        "numbers": [0, -3, 1e-4, 3e-05, 1e22, -0.5, math.inf, -math.inf, 10**30],
        "rest": {"none": None, "yes": True, "empty": {}, "list": [], "deep": [{"a": [[1], []]}]},
    }
    assert loads(dump_yaml(data), "r") == data


def test_dump_keeps_order_and_is_pleasant_to_read() -> None:
    data = {"data": {"manifest": "data/chest.csv", "ids": "no"}, "lr": 1e-4, "sizes": (1, 2)}
    text = 'data:\n  manifest: data/chest.csv\n  ids: "no"\nlr: 0.0001\nsizes: [1, 2]\n'
    assert dump_yaml(data) == text


@pytest.mark.parametrize("data", [{"a": object()}, {1: 2}, {"a": b"x"}])
def test_dump_refuses_what_yaml_cannot_hold(data: object) -> None:
    with pytest.raises(TypeError, match=r"YAML"):
        dump_yaml(data)


CORPUS_CAUSES = {
    "yml_bomb": "limit",
    "yml_python_tag": "tag",
    "yml_duplicate_key": "duplicate key 'lr'",
    "yml_empty": "empty",
    "yml_tab": "tab",
    "yml_list_root": "list",
    "yml_not_utf8": "UTF-8",
}


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the shared corpus is not beside the repository")
def test_the_corpus() -> None:
    kinds = sorted(folder.name for folder in CORPUS.iterdir())
    assert len(kinds) >= len(CORPUS_CAUSES)
    for kind in kinds:
        path = CORPUS / kind / "config.yaml"
        if kind in CORPUS_CAUSES:
            with pytest.raises(MedtlError, match=CORPUS_CAUSES[kind]):
                load_yaml(path)
        else:
            assert load_yaml(path)["train"]["epochs"] in (3, "many")
    assert load_yaml(CORPUS / "yml_sci_text" / "config.yaml")["train"]["lr"] == 1e-4
    assert load_yaml(CORPUS / "yml_bool_as_int" / "config.yaml")["train"]["batch_size"] is True
