"""The plan of a study: named conditions of one recipe and paired seeds, fixed before the first run.

A plan file is YAML:

    question: "Does it help to ...?"
    reference: none                     # the condition that all others are compared with
    conditions:
      none: []
      last3: ["finetune.zero_gamma.select=last:3"]

or, for a factorial study, `factors` in place of `conditions`: every combination of the levels is a
condition, the first levels together are the reference.

    factors:
      batch_norm: {frozen: [], trained: ["finetune.stages.0.batch_norm=adapt"]}
      head:       {first: [], random: ["finetune.stages.0.train=all"]}
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import TypeAdapter

from medtl.errors import MedtlError, RunError
from medtl.recipe.schema import Recipe, Seeds, parse_recipe
from medtl.storage.atomic import write_json
from medtl.storage.yaml import load_yaml

Source = Literal["split", "init", "order", "augment"]
"""A part of the randomness that a seed decides."""

SOURCES: tuple[Source, ...] = get_args(Source)

KEYS = ("question", "reference", "conditions", "factors", "vary", "measure")
"""Keys of a plan file."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
"""A condition's name is a folder's name."""

PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class Plan:
    """The work of a study, complete before its first run.

    Attributes:
        conditions: Name -> overrides ("key=value") of the recipe, in the order of the runs.
        reference: Name of the condition that the others are compared with.
        seeds: Every condition runs with each of them.
        vary: What a seed decides; anything else stays as the recipe says.
        measure: The test measure that is compared; "" for the task's own (`rows.primary_measure`).
        question: In words.
        factors: Factor -> level -> names of its conditions, for a factorial study.
    """

    conditions: Mapping[str, tuple[str, ...]]
    reference: str
    seeds: tuple[int, ...]
    vary: tuple[Source, ...] = SOURCES
    measure: str = ""
    question: str = ""
    factors: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be a study."""
        wrong = [name for name in self.conditions if not NAME.fullmatch(name)]
        if wrong:
            raise RunError(
                f"{wrong[0]!r} cannot be the name of a condition",
                expected="letters, digits and . _ + -",
                where="plan",
            )
        if self.reference not in self.conditions:
            raise RunError(
                f"the reference {self.reference!r} is no condition",
                expected=f"one of {', '.join(self.conditions)}",
                where="plan",
            )
        unknown = set(self.vary) - set(SOURCES)
        if unknown or not self.vary:
            raise RunError(
                f"a seed cannot vary {', '.join(sorted(unknown)) or 'nothing'}",
                expected=f"some of {', '.join(SOURCES)}",
                where="plan",
            )

    @property
    def pairs(self) -> tuple[tuple[str, int], ...]:
        """(condition, seed) of every run, all conditions of a seed before the next seed."""
        return tuple((name, seed) for seed in self.seeds for name in self.conditions)

    @property
    def shares_the_split(self) -> bool:
        """Tell whether all seeds train and test on the same patients."""
        return "split" not in self.vary

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return data


def read_plan(path: str | PathLike[str], *, seeds: int) -> Plan:
    """Return the plan of a file.

    Args:
        path: The YAML file.
        seeds: How many seeds; they are 0, 1, 2, ...

    Raises:
        RunError: For a file that is no plan.
        MedtlError: For a file that cannot be read.
    """
    path = Path(path)
    data = load_yaml(path)
    unknown = [key for key in data if key not in KEYS]
    if unknown:
        raise RunError(
            f"unknown key {unknown[0]!r}", expected=f"some of {', '.join(KEYS)}", where=path.name
        )
    if ("factors" in data) == ("conditions" in data):
        raise RunError(
            "a plan has either conditions or factors", where=path.name, fix="State one of them"
        )
    stated: dict[str, Any] = {key: data[key] for key in ("measure", "question") if key in data}
    if "vary" in data:
        stated["vary"] = tuple(data["vary"])
    numbers = tuple(range(seeds))
    if "conditions" in data:
        conditions = _overrides(data["conditions"], path.name)
        reference = data.get("reference", next(iter(conditions)))
        return Plan(conditions, reference, numbers, **stated)
    if not isinstance(data["factors"], dict) or not data["factors"]:
        raise MedtlError("factors is not a mapping", where=path.name)
    factors = {str(name): _overrides(levels, path.name) for name, levels in data["factors"].items()}
    return factorial_plan(factors, seeds=numbers, **stated)


def factorial_plan(
    factors: Mapping[str, Mapping[str, Sequence[str]]], *, seeds: tuple[int, ...], **stated: Any
) -> Plan:
    """Return the plan of all combinations of the levels of some factors.

    Args:
        factors: Factor -> level -> overrides. Names of levels differ between factors.
        seeds: As `Plan`.
        stated: Other attributes of `Plan`.

    Raises:
        RunError: When a factor has one level only, or two factors share the name of a level.
    """
    listed = [level for levels in factors.values() for level in levels]
    if len(set(listed)) < len(listed) or any(len(levels) < 2 for levels in factors.values()):
        raise RunError(
            "the levels of the factors cannot be told apart, or a factor has one level",
            expected="two levels or more a factor, all with names of their own",
            where="plan",
        )
    cells = list(itertools.product(*(levels.items() for levels in factors.values())))
    conditions = {
        "+".join(level for level, _ in cell): tuple(o for _, listed in cell for o in listed)
        for cell in cells
    }
    members = {
        factor: {
            level: tuple(name for name in conditions if level in name.split("+"))
            for level in levels
        }
        for factor, levels in factors.items()
    }
    return Plan(conditions, next(iter(conditions)), seeds, factors=members, **stated)


def seeds_plan(seeds: int, *, vary: Sequence[str] = SOURCES) -> Plan:
    """Return the plan that repeats a recipe, as its only condition, with several seeds."""
    chosen: Any = tuple(vary)
    return Plan({"recipe": ()}, "recipe", tuple(range(seeds)), vary=chosen)


def seeded(recipe: Recipe, seed: int, vary: Sequence[Source]) -> Recipe:
    """Return the recipe of one seed: what varies gets the seed, the rest keeps its own."""
    seeds = {name: seed if name in vary else recipe.seed_of(name) for name in SOURCES}
    run = recipe.run.model_copy(update={"seed": seed, "seeds": Seeds(**seeds)})
    return recipe.model_copy(update={"run": run})


def fix_plan(stated: Mapping[str, Any], recipe: Recipe, out: Path) -> None:
    """Write what a study will do into its folder, or check that what is there is the same.

    Args:
        stated: The plan, as JSON types.
        recipe: What it changes, without paths.
        out: The study folder.

    Raises:
        RunError: When the folder holds another plan, or one of another recipe.
    """
    content = {"schema": "medtl-plan/1", **stated, "recipe": recipe.to_dict()}
    text = json.dumps(content, sort_keys=True)
    content["plan_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    draft = out / f".plan-{secrets.token_hex(6)}.json"
    write_json(draft, content)
    try:
        # A link is made only where nothing is: of two workers that start together, one writes.
        os.link(draft, out / PLAN_FILE)
    except FileExistsError:
        _refuse_other_plan(stated, recipe, out)
    finally:
        draft.unlink()


def load_plan(out: Path) -> Plan:
    """Return the plan of a study folder.

    Raises:
        RunError: When the folder holds none.
    """
    path = out / PLAN_FILE
    if not path.is_file():
        raise RunError("the folder holds no plan", expected="a study folder", where=str(out))
    return TypeAdapter(Plan).validate_json(path.read_bytes())


def _refuse_other_plan(stated: Mapping[str, Any], recipe: Recipe, out: Path) -> None:
    """Refuse to go on with another plan or recipe, and say what differs.

    Keys that a newer medtl has added to the recipe do not differ while they keep their defaults.
    """
    stored = json.loads((out / PLAN_FILE).read_text("utf-8"))
    differing = [key for key, value in stated.items() if stored.get(key) != value]
    if parse_recipe(stored["recipe"], where=PLAN_FILE) != recipe:
        differing.append("recipe")
    if differing:
        raise RunError(
            f"the plan has changed since the first run ({', '.join(differing)})",
            where=str(out),
            fix="Resume with the recipe, conditions and seeds it was started with, or choose "
            "another --out",
        )


def _overrides(data: object, where: str) -> dict[str, tuple[str, ...]]:
    """Name -> overrides, as a plan file states them."""
    if not isinstance(data, dict) or not data:
        raise RunError("no conditions", expected="name: [key=value, ...]", where=where)
    for name, listed in data.items():
        if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
            raise RunError(
                f"the overrides of {name!r} are not a list of texts",
                expected='["key=value", ...]',
                where=where,
            )
    return {str(name): tuple(listed) for name, listed in data.items()}
