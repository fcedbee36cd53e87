"""The place in a recipe of a loss that was given as a Python object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from medtl.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class GivenInPython:
    """A loss of which a written recipe knows the name alone: it takes the object to train with it.

    Attributes:
        what: Name of the object's class or function.
        call: The object, in the recipe of the process it was given in; never written.

    Example:
        >>> GivenInPython("my_loss")
        GivenInPython(what='my_loss')
    """

    what: str
    call: Annotated[SkipJsonSchema[Callable[..., Any] | None], Field(exclude=True)] = field(
        default=None, repr=False, compare=False
    )
    name: Literal["python"] = field(default="python", repr=False, kw_only=True)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return what the object says of raw outputs and targets: a scalar."""
        scalar: Tensor = self.require()(outputs, targets)
        return scalar

    def require(self) -> Callable[..., Any]:
        """Return the object.

        Raises:
            RunError: When it is not there.
        """
        if self.call is None:
            raise RunError(
                f"the loss {self.what} was given in Python",
                where="task.loss",
                fix="Give the object again: Study.fit(loss=...)",
            )
        return self.call
