"""Named tokens of a server, each with a role: kept as hashes in ``tokens.json`` of its state folder.

They lie beside the server and not in the registry: whoever may read the tables need not see them, and a copy,
an export or a backup of the registry gives nobody access to a server. Revoked and expired tokens stay in the
file, which so says who could do what, when, and by whom that began and ended. The file is read again when it
changes, so a token works, or stops to, with the next request.
"""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from registry.errors import InvalidRecordError, NotFoundError, StorageError
from registry.files import replacing
from registry.gate import checked_name
from registry.options import ROLES
from registry.records import utc_now
from registry.storage.rows import actor

RANKS = list(ROLES)
FILE, PREFIX, ACTOR = "tokens.json", "t2v_", "token:"
SINGLE = "server"
"""Name of the single token of ``--token-file`` and ``$T2V_TOKEN``, which is of an admin."""


@dataclass(frozen=True)
class Token:
    """A token, without what is secret."""

    name: str  # whose it is, or what for
    role: str  # one of ``registry.options.ROLES``
    digest: str  # SHA-256 of the token; 256 random bits need no salt and no slow hash
    created_at: str  # ISO 8601, UTC, as are the others
    created_by: str
    expires_at: str = ""  # empty if it never does
    revoked_at: str = ""  # empty unless it was
    revoked_by: str = ""

    @property
    def state(self) -> str:
        """``active``, ``expired`` or ``revoked``."""
        if self.revoked_at:
            return "revoked"
        return "expired" if self.expires_at and self.expires_at <= utc_now() else "active"

    def may(self, role: str) -> bool:
        """Whether it may do what a role may."""
        return self.state == "active" and RANKS.index(self.role) >= RANKS.index(role)

    def shown(self) -> dict[str, str]:
        """What may be printed."""
        return {"name": self.name, "role": self.role, "state": self.state} | {
            name: value for name, value in asdict(self).items() if name not in {"name", "role", "digest"}
        }


class Tokens:
    """The named tokens of one server; threads and processes may share them."""

    def __init__(self, state: Path) -> None:
        """Remember the state folder; nothing is made before a token is added."""
        self._path = state / FILE
        self._read: tuple[tuple[int, int, int] | None, list[Token]] = (None, [])

    def all(self) -> list[Token]:
        """Every token that ever was, oldest first; ``StorageError`` if the file cannot be read."""
        try:
            stamp = self._path.stat()
            version = (stamp.st_ino, stamp.st_mtime_ns, stamp.st_size)
            if version != self._read[0]:
                self._read = version, [Token(**row) for row in json.loads(self._path.read_bytes())]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except (OSError, ValueError, TypeError) as error:
            raise StorageError(
                f"{self._path}: the tokens cannot be read: {error}; mend it, or delete it and add new ones"
            ) from error
        return self._read[1]

    def of(self, digest: str) -> Token | None:
        """The token of a digest, whatever its state; all are compared, in a time that reveals nothing."""
        match = None
        for token in self.all():
            if hmac.compare_digest(digest, token.digest):
                match = token
        return match

    def revoked(self, actor: str, at: str) -> Token | None:
        """The token in whose name something was asked at a time, if it was revoked since.

        A later one may have its name.

        Raises:
            StorageError: If the file cannot be read.
        """
        name = actor.removeprefix(ACTOR)
        asked = [one for one in self.all() if one.name == name != actor and one.created_at <= at]
        return asked[-1] if asked and asked[-1].revoked_at else None

    def add(self, name: str, role: str, seconds: float | None = None) -> tuple[str, Token]:
        """Make a token.

        Returns:
            The text to give to its holder, which nothing remembers, and what is kept.

        Raises:
            InvalidRecordError: If the name is not allowed or taken, or it would expire too late.
            StorageError: If the file cannot be written.
        """
        if checked_name("token", name) == SINGLE:
            raise InvalidRecordError(f"token {SINGLE} stands for the one of --token-file and $T2V_TOKEN")
        try:
            end = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat() if seconds else ""
        except OverflowError:
            raise InvalidRecordError("a token must expire before the year 10000, or never") from None
        text = PREFIX + secrets.token_urlsafe(32)
        token = Token(name, role, digest_of(text), utc_now(), actor(), end)
        with self._changed() as tokens:
            if any(one.name == name and one.state == "active" for one in tokens):
                raise InvalidRecordError(
                    f"there is an active token {name} already; revoke it first, or choose another name"
                )
            tokens.append(token)
        return text, token

    def revoke(self, name: str) -> Token:
        """End a token for good, at once.

        Raises:
            NotFoundError: If no active token has the name.
            StorageError: If the file cannot be written.
        """
        with self._changed() as tokens:
            for position, token in enumerate(tokens):
                if token.name == name and token.state == "active":
                    tokens[position] = replace(token, revoked_at=utc_now(), revoked_by=actor())
                    return tokens[position]
            raise NotFoundError("active token", name, {one.name for one in tokens if one.state == "active"})

    @contextmanager
    def _changed(self) -> Iterator[list[Token]]:
        """The tokens, under a lock; written back, for the owner's eyes only, unless the block raises.

        Raises:
            StorageError: If the file cannot be written.
        """
        from filelock import FileLock

        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with FileLock(self._path.with_suffix(".lock"), mode=0o600):
                tokens = list(self.all())
                yield tokens
                with replacing(self._path, durable=True) as file:
                    os.fchmod(file.fileno(), 0o600)
                    file.write(json.dumps([asdict(token) for token in tokens], indent=1).encode())
        except OSError as error:
            raise StorageError(
                f"{self._path}: the tokens cannot be written: {error.strerror or error}"
            ) from error


def digest_of(text: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()
