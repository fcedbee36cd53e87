"""Every target value of the frozen oracle tables, through the adapter."""

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medtl.metrics.ranking import rank

REPOSITORY = Path(__file__).parents[2]
ORACLES = REPOSITORY / "../shared/oracles"

sys.path.insert(0, str(REPOSITORY / "tests"))
import oracle_adapter  # noqa: E402

pytestmark = pytest.mark.skipif(
    not ORACLES.is_dir(), reason="the folder shared/oracles beside the repository is absent"
)

CASES = sorted(ORACLES.glob("*.expected.json"))


def _entries(path: Path, role: str) -> Iterator[dict[str, Any]]:
    return (entry for entry in json.loads(path.read_text())["values"] if entry["role"] == role)


def _agrees(found: object, entry: dict[str, Any]) -> bool:
    expected = entry["value"]
    if expected is None or isinstance(expected, str):
        return found == expected
    if not isinstance(found, int | float):
        return False
    return abs(found - expected) <= entry["abs_tol"] + 1e-12


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name.split(".")[0])
def test_targets_agree(path: Path) -> None:
    case = oracle_adapter.read_case(path)
    found = {
        name: oracle_adapter.plain(value)
        for name, value in oracle_adapter.KINDS[case.kind](case).items()
    }
    wrong = [
        f"{entry['name']}: {found.get(entry['name'], 'missing')} for {entry['value']}"
        for entry in _entries(path, "target")
        if not _agrees(found.get(entry["name"], "missing"), entry)
    ]
    offered = [
        f"{entry['name']}: {found[entry['name']]} for {entry['value']}"
        for entry in _entries(path, "optional")
        if entry["name"] in found and not _agrees(found[entry["name"]], entry)
    ]
    assert not wrong + offered


def test_numbers_in_json() -> None:
    assert oracle_adapter.plain(math.inf) == "Inf"
    assert oracle_adapter.plain(math.nan) is None
    assert oracle_adapter.plain(3) == 3


def test_interpolated_sensitivity_lies_on_the_line() -> None:
    # ROC from (0, 1/2) to (1/2, 1): at specificity 0.75 halfway up.
    ranked = rank([1, 1, 0, 0], [0.9, 0.5, 0.5, 0.1])
    found = oracle_adapter.interpolated_sensitivity(ranked.tp, ranked.fp, 0.75)
    assert float(found) == pytest.approx(0.75)
