"""Pseudonyms: keyed hashes of ids, with a salt that never leaves this user's data directory.

Whoever holds a run folder cannot find a patient, not even by trying all ids, because the salt is
not in it. The machine that made the pseudonyms keeps a table to map them back (`whois`).
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import sqlite3
import stat
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Literal

from medtl.errors import MedtlError

Kind = Literal["patient", "case", "study", "series"]

SALT_BYTES = 32
"""Length of the secret: that of the hash it keys."""

PSEUDONYM_DIGITS = 12
"""48 bits: two of 10 000 patients share a pseudonym with a probability of 2e-7."""

OLDEST_AGE_YEARS = 89
"""Ages above this identify people and are given as one band (HIPAA 45 CFR 164.514(b)(2)(i)(C))."""

_AGE = re.compile(r"(\d+(?:[.,]\d*)?)\s*([^\d\s]*)")

_AGE_UNITS: Mapping[float, str] = {
    1.0: "y yr yrs year years yo y.o. j jahr jahre a an ans año años anno anni anos 세 살 岁 歳",
    1 / 12: "m mo month months monat monate mois mes meses mese mesi 개월 个月 ヶ月 か月",
    7 / 365.25: "w wk week weeks woche wochen semaine semaines 주 周 週",
    1 / 365.25: "d day days tag tage jour jours día días giorni dias 일 天 日",
}
"""Years in a unit of age -> what it is called."""

_PREFIXES: Mapping[str, str] = {"patient": "p", "case": "c", "study": "st", "series": "se"}


def data_folder() -> Path:
    """Return this user's data directory of medtl, made with mode 0700 when it is not there."""
    import platformdirs

    folder = Path(platformdirs.user_data_path("medtl", appauthor=False))
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise _folder_error(error) from error
    return folder


def load_salt(path: Path | None = None) -> bytes:
    """Return the secret salt of this user, 32 bytes, made on first use.

    Args:
        path: The salt file; by default `salt.bin` in the user's data directory.

    Raises:
        MedtlError: If the file is readable by others, damaged, or cannot be made.
    """
    path = data_folder() / "salt.bin" if path is None else path
    try:
        if not path.exists():
            _create_secret(path)
        _refuse_if_shared(path)
        salt = path.read_bytes()
    except OSError as error:
        raise _folder_error(error) from error
    if len(salt) != SALT_BYTES:
        raise MedtlError(
            f"the secret salt has {len(salt)} bytes",
            expected=f"{SALT_BYTES}",
            where=path.name,
            fix="Restore the file from a backup, or delete it: pseudonyms then change",
        )
    return salt


def pseudonym(kind: Kind, text: str, salt: bytes) -> str:
    """Return the pseudonym of an id: the same text, kind and salt always give the same one.

    Args:
        kind: What the id names; the same text gives unrelated pseudonyms for two kinds.
        text: The id, exactly as in the file: "7" and "007" are two patients.
        salt: The secret of `load_salt`.

    Reference:
        HMAC-SHA256, RFC 2104, truncated (section 5) to 48 bits.
    """
    digest = hmac.digest(salt, f"{kind}\0{text}".encode(), "sha256")
    return f"{_PREFIXES[kind]}-{digest.hex()[:PSEUDONYM_DIGITS]}"


def band_age(text: str) -> str:
    """Return an age in years, "90+" when it is above 89, "" when it cannot be read and might be.

    Years as plain numbers and words for groups ("adult", "18-40") stay as they are.

    Args:
        text: Years, or a number with a unit as DICOM or people write it (PS3.5 6.2, VR AS).

    >>> band_age("89"), band_age("93.5"), band_age(""), band_age("adult")
    ('89', '90+', '', 'adult')
    >>> band_age("058Y"), band_age("095Y"), band_age("95,5"), band_age("18 months")
    ('58', '90+', '90+', '1.5')
    """
    with suppress(ValueError):
        if float(text) >= OLDEST_AGE_YEARS + 1:
            return f"{OLDEST_AGE_YEARS + 1}+"
    written = _AGE.fullmatch(text.strip().casefold())
    unit = written[2] if written else ""
    factors = [factor for factor, words in _AGE_UNITS.items() if unit in words.split()]
    if written is None or (unit and not factors):
        largest = max((float(number) for number in re.findall(r"\d+", text)), default=0.0)
        is_group = largest <= OLDEST_AGE_YEARS or text.strip() == f"{OLDEST_AGE_YEARS + 1}+"
        return text if is_group else ""
    years = float(written[1].replace(",", ".")) * (factors[0] if unit else 1.0)
    if years >= OLDEST_AGE_YEARS + 1:
        return f"{OLDEST_AGE_YEARS + 1}+"
    return f"{years:.4g}" if unit or "," in text else text


def age_unit(text: str) -> str | None:
    """Return "y", "m", "w" or "d" for the unit that an age states, "" for none; None: no number.

    >>> age_unit("065Y"), age_unit("18 months"), age_unit("65"), age_unit("adult"), age_unit("18X")
    ('y', 'm', '', None, None)
    """
    written = _AGE.fullmatch(text.strip().casefold())
    if written is None or not written[2]:
        return None if written is None else ""
    known = [words[0] for words in _AGE_UNITS.values() if written[2] in words.split()]
    return known[0] if known else None


def remember(pairs: Iterable[tuple[str, str]], *, folder: Path | None = None) -> None:
    """Keep (pseudonym, original id) pairs in this user's local table, mode 0600.

    Raises:
        MedtlError: If the table cannot be written.
    """
    path = (data_folder() if folder is None else folder) / "pseudonyms.sqlite"
    try:
        path.touch(mode=0o600)
        _refuse_if_shared(path)
        with closing(sqlite3.connect(path, timeout=30)) as table, table:
            table.execute("CREATE TABLE IF NOT EXISTS ids (pseudonym TEXT PRIMARY KEY, id TEXT)")
            table.executemany("INSERT OR REPLACE INTO ids VALUES (?, ?)", pairs)
    except (OSError, sqlite3.Error) as error:
        raise _folder_error(error) from error


def whois(name: str, *, folder: Path | None = None) -> str | None:
    """Return the id behind a pseudonym made on this machine by this user, or None if unknown.

    Raises:
        MedtlError: If the table cannot be read.
    """
    path = (data_folder() if folder is None else folder) / "pseudonyms.sqlite"
    if not path.exists():
        return None
    _refuse_if_shared(path)
    try:
        with closing(sqlite3.connect(path, timeout=30)) as table:
            row = table.execute("SELECT id FROM ids WHERE pseudonym = ?", (name,)).fetchone()
    except sqlite3.Error as error:
        raise _folder_error(error) from error
    return None if row is None else str(row[0])


def _create_secret(path: Path) -> None:
    """Make the salt file; of two runs that start together, one wins and both read the same."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(6)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, secrets.token_bytes(SALT_BYTES))
        os.fsync(handle)
    finally:
        os.close(handle)
    try:
        os.link(temporary, path)  # unlike a rename, this fails when the other run was first
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def _refuse_if_shared(path: Path) -> None:
    """Raise if other users of the machine may read or change a secret file."""
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise MedtlError(
            "other users of this machine can open it",
            expected="mode 0600",
            where=path.name,
            fix=f"Run chmod 600 on {path.name} in the medtl folder of your data directory",
        )


def _folder_error(error: Exception) -> MedtlError:
    """Return the error for a data directory that cannot be used; it holds no absolute path."""
    reason = getattr(error, "strerror", None) or type(error).__name__
    return MedtlError(
        f"the secret of the pseudonyms cannot be read or made: {reason}",
        where="medtl data directory of this user",
        fix="Make the folder writable, or set `ids: pseudonymous` if the ids already are",
    )
