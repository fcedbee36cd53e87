"""The data sets that medtl knows by name: YAML files, shipped with the package."""

from __future__ import annotations

from functools import cache
from importlib.resources import as_file, files
from typing import Any

from medtl.errors import ManifestError
from medtl.storage.tables import nearest
from medtl.storage.yaml import load_yaml

ABOUT_KEYS = ("source", "licence", "allows", "ask", "expects", "looked_up", "tried")
"""What each says about itself: citation, terms, where to ask, what is in the folder, evidence."""


@cache
def names() -> tuple[str, ...]:
    """Return the names of the data sets, in order.

    >>> "chexpert" in names()
    True
    """
    here = files("medtl.cases") / "data_manifests"
    listed = (one.name for one in here.iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in listed if name.endswith(".yaml")))


def shipped(name: str) -> dict[str, Any] | None:
    """Return the description of a data set, None for a name that none has.

    >>> shipped("chexpert")["title"], shipped("nothing")
    ('CheXpert', None)
    """
    if name not in names():
        return None
    with as_file(files("medtl.cases") / "data_manifests" / f"{name}.yaml") as path:
        return load_yaml(path)


def about(name: str) -> dict[str, str]:
    """Return what a data set says about itself: its title and all of `ABOUT_KEYS`.

    Raises:
        ManifestError: There is no such data set.

    >>> about("chexpert")["licence"]
    'Stanford University School of Medicine CheXpert Dataset Research Use Agreement'
    """
    spec = shipped(name)
    if spec is None:
        near = nearest(name, names())
        raise ManifestError(
            "no such data set",
            expected=f"one of {', '.join(names())}",
            where=name,
            fix=f"Did you mean '{near}'?" if near else "",
        )
    return {"title": spec["title"], **{key: spec["about"][key] for key in ABOUT_KEYS}}
