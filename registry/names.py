"""Names and references: what may name a task, a tag or an expert, and what ``name@version`` stands for."""

import re
from collections.abc import Collection
from typing import NamedTuple, Self

from registry.errors import InvalidRecordError

NAME_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,128}")

EXPERT_PATTERN = re.compile(r"(?!(?:.*/)?\.{0,2}(?:/|$))[A-Za-z0-9._/:-]{1,160}")
"""Names of experts as timm, torchvision, open_clip and the Hugging Face hub write them; no part of a path."""

# No name is "." or "..": it is looked for in a folder.
CACHED_AS_PATTERN = re.compile(r"torch:(?!\.)[\w.+-]+|hf:(?!\.)[\w.-]+/(?!\.)[\w.-]+", re.ASCII)

Key = tuple[str, int]
"""Name and version of a task."""

MAX_VERSION = 1_000_000
"""No task has more versions: a number above it is a mistake."""

LATEST = "latest"
"""``name@latest`` is the latest version, as ``name`` alone is."""


def checked_name(kind: str, name: str) -> str:
    """Return ``name`` if it may name a ``kind``.

    Raises:
        InvalidRecordError: If it is not 1 to 128 of the letters a to z, digits and ``._-``; the name of an
            expert may have 160 characters, ``/`` and ``:`` too, but no part that is empty, ``.`` or ``..``.
    """
    is_expert = kind == "expert"
    if not (EXPERT_PATTERN if is_expert else NAME_PATTERN).fullmatch(name):
        article = "an" if kind[0] in "aeiou" else "a"
        allowed = (
            "1 to 160 of the characters A-Z a-z 0-9 . _ - / :, as in timm/resnet50.a1_in1k"
            if is_expert
            else "1 to 128 of the characters A-Z a-z 0-9 . _ -"
        )
        raise InvalidRecordError(f"{name!r} cannot name {article} {kind}: allowed are {allowed}")
    return name


def checked_alias(alias: str) -> str:
    """Return ``alias`` if it may name a version of a task, as in ``name@alias``.

    Raises:
        InvalidRecordError: If it could not name a task, or could be taken for a version.
    """
    checked_name("alias", alias)
    if alias.isdecimal() or alias == LATEST:
        raise InvalidRecordError(
            f"{alias!r} cannot be an alias: name@{alias} is a version; use a word of your own"
        )
    return alias


class Reference(NamedTuple):
    """A task and what tells its version: a number, an alias or ``latest``."""

    name: str
    wanted: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``name``, ``name@version`` or ``name@alias``."""
        name, mark, wanted = text.partition("@")
        return cls(name, wanted if mark else LATEST)

    @property
    def is_latest(self) -> bool:
        """Whether the latest version is meant."""
        return self.wanted == LATEST

    def fits(self, version: int, aliases: Collection[str]) -> bool:
        """Whether a version of the task with these aliases is the one that is meant."""
        return self.wanted == str(version) or self.wanted in aliases
