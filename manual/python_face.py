"""The page of the Python face: every public name, its docstring shown by mkdocstrings."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType

import medtl as mt
from medtl import errors

HEAD = """# Python

Every name of `import medtl as mt`, in the words of its docstring. [In Python](../python.md) shows
how they are used together.

"""

ROOMS = {
    "metrics": "Statistics: arrays in, measures with intervals out.",
    "losses": "Training losses, stated in a recipe by their word or given to `Study.fit`.",
    "preprocess": "What is done to an image before the network sees it.",
    "report": "From an evaluation to one HTML file.",
}
"""Package of the face -> what it holds."""


def python_page() -> str:
    """Return the page: the names of `medtl`, those of its rooms, the errors."""
    own = [name for name in mt.__all__ if not isinstance(getattr(mt, name), ModuleType | str)]
    version = f"## medtl\n\n`mt.__version__` is the version, here {code_of_version()}.\n\n"
    parts = [HEAD, version, *(_entry(f"mt.{name}", getattr(mt, name)) for name in own)]
    for room, told in ROOMS.items():
        module = getattr(mt, room)
        parts.append(f"## medtl.{room}\n\n{told}\n\n")
        parts += [_entry(f"mt.{room}.{name}", getattr(module, name)) for name in module.__all__]
    parts.append("## medtl.errors\n\nWhat the user can cause is one of these; each says what was "
                 "found, what was expected, where, and what to do.\n\n")  # fmt: skip
    parts += [_entry(f"medtl.errors.{one.__name__}", one) for one in _errors()]
    return "".join(parts)


def code_of_version() -> str:
    """Return the version as code."""
    return f"`{mt.__version__}`"


def _errors() -> Iterator[type[Exception]]:
    """The classes of errors in the order of their names, but that of the face."""
    for _, value in sorted(vars(errors).items()):
        is_error = inspect.isclass(value) and issubclass(value, errors.MedtlError)
        if is_error and value is not errors.MedtlError:
            yield value


def _entry(shown: str, value: object) -> str:
    """A heading with the name as it is written, and the docstring of where it is defined."""
    place = f"{value.__module__}.{value.__qualname__}"  # type: ignore[attr-defined]
    return f"### {shown}\n\n::: {place}\n\n"
