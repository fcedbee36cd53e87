"""Work in shares: each leaves a part, a table with its hash, and all parts together are the whole.

A part is written whole or not at all, is found again by whoever asks for the same share, and is
believed only when its bytes are those that were written. So shares may be done on any machines
that see one folder, in any order, twice, and by processes that are killed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from medtl.errors import RunError
from medtl.storage.atomic import atomic_path, read_json, sha256_file, write_json

if TYPE_CHECKING:
    import pandas as pd

Item = TypeVar("Item")

FORMAT = "medtl-part/1"
"""Stands in every part; a reader refuses what it does not know."""


@dataclass(frozen=True)
class Share:
    """One of several shares of a list, which differ by one item at most.

    Attributes:
        number: From 1.
        of: How many there are.

    Example:
        >>> share = Share.parse("2/3")
        >>> str(share), share.take("abcdefgh")
        ('2/3', 'cde')
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the share that a text such as "2/4" names.

        Raises:
            RunError: When it names none.
        """
        found = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise RunError(
                f"the share is {text!r}", expected="1/4, 2/4, 3/4 or 4/4", fix="State --shard 1/4"
            )
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def take(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return the items of this share, neighbours in their order."""
        return items[self._start(len(items)) : self._start(len(items), 1)]

    def _start(self, length: int, later: int = 0) -> int:
        """Where this share begins, or the one after it."""
        return (self.number - 1 + later) * length // self.of


WHOLE = Share(1, 1)
"""All of it."""


@dataclass(frozen=True)
class Part:
    """The results of one share.

    Attributes:
        table: Its rows; it may have none.
        facts: What is no row, as JSON holds it.
    """

    table: pd.DataFrame
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Parts:
    """The parts of one file that is to be.

    Attributes:
        out: The file.
    """

    out: Path

    @property
    def folder(self) -> Path:
        """Where the parts lie, beside the file."""
        return self.out.with_name(f"{self.out.name}.parts")

    def has(self, share: Share, key: str) -> bool:
        """Tell whether a part is there, whole, and of the same work.

        Args:
            share: Whose part.
            key: Hash of all that the results depend on.
        """
        about = self._about(share)
        if not about.is_file():
            return False
        told = read_json(about)
        return bool(told.get("key") == key and self._is_whole(share, told))

    def write(self, share: Share, key: str, job: Mapping[str, Any], part: Part) -> None:
        """Keep the part of a share; an earlier one of it is replaced.

        Args:
            share: Whose part.
            key: Hash of all that the results depend on.
            job: What the work is, for whoever puts the parts together.
            part: The results.

        Raises:
            RunError: When they cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(self._table(share)) as temporary:
            part.table.to_parquet(temporary, index=False)
        written = {"key": key, "sha256": sha256_file(self._table(share))}
        about = {"format": FORMAT, "share": str(share), **written, "job": job, "facts": part.facts}
        write_json(self._about(share), about)

    def job(self) -> dict[str, Any]:
        """Return what the work is.

        Raises:
            RunError: When there are no parts, or parts of two pieces of work.
        """
        job: dict[str, Any] = self._told()[0]["job"]
        return job

    def read(self) -> list[Part]:
        """Return all parts in their order.

        Raises:
            RunError: When one is missing or damaged, or they are not of one piece of work.
        """
        import pandas as pd

        told = self._told()
        of = Share.parse(told[0]["share"]).of
        whole = [one for one in told if self._is_whole(Share.parse(one["share"]), one)]
        shares = {Share.parse(one["share"]) for one in whole}
        if missing := [n for n in range(1, of + 1) if Share(n, of) not in shares]:
            listed = ", ".join(f"{n}/{of}" for n in missing[:10])
            raise RunError(
                f"{len(missing)} of {of} parts are missing or damaged ({listed})",
                where=self.folder.name,
                fix=f"Repeat the command with --shard {missing[0]}/{of}",
            )
        whole.sort(key=lambda one: Share.parse(one["share"]).number)
        return [
            Part(pd.read_parquet(self._table(Share.parse(one["share"]))), one["facts"])
            for one in whole
        ]

    def _told(self) -> list[dict[str, Any]]:
        """What the parts say of themselves, all of one piece of work."""
        files = sorted(self.folder.glob("[0-9]*-of-*.json"))
        told = [read_json(path) for path in files]
        if not told:
            raise RunError(
                "there are no parts",
                where=self.folder.name,
                fix=f"Name the --out that the shares were given, whose parts lie in "
                f"{self.folder.name}",
            )
        kinds = {(one.get("format"), one.get("key"), one["share"].split("/")[1]) for one in told}
        if len(kinds) > 1 or told[0].get("format") != FORMAT:
            raise RunError(
                "the parts are not of one piece of work: data, model, version or number of shares "
                "differ",
                where=self.folder.name,
                fix="Delete the folder and do the shares again",
            )
        return told

    def _is_whole(self, share: Share, told: Mapping[str, Any]) -> bool:
        """Whether the table of a part is what was written."""
        table = self._table(share)
        return table.is_file() and sha256_file(table) == told.get("sha256")

    def _table(self, share: Share) -> Path:
        return self.folder / f"{share.number}-of-{share.of}.parquet"

    def _about(self, share: Share) -> Path:
        return self._table(share).with_suffix(".json")
