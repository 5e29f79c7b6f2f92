"""Which experts may be recommended for content of a kind, and what left out the others."""

from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING

from registry.errors import InvalidQueryError, NotFoundError
from registry.ingest.data import takes_texts
from registry.records import Content, ExpertRecord

if TYPE_CHECKING:
    from registry.experts.limits import Limits


def choose_candidates(
    everyone: Sequence[ExpertRecord],
    content: Content,
    limits: "Limits",
    own: Set[str],
    given: Mapping[str, float],
    *,
    toys: bool,
) -> tuple[list[ExpertRecord], list[ExpertRecord], dict[str, int]]:
    """The experts that take this content, and those of them that may be recommended.

    Returns:
        Those that take the content, those that may be recommended, and how many each reason left out.

    Raises:
        NotFoundError: If an accuracy is given of an expert that there is not.
        InvalidQueryError: If an accuracy is out of range, or of an expert that may not be recommended.
    """
    fitting = [expert for expert in everyone if _content_of(expert) == content]
    within, left_out = limits.within(fitting)
    candidates = within if toys else _without_toys(within, own | given.keys(), left_out)
    _check_given(given, candidates, everyone, content)
    return fitting, candidates, left_out


def _without_toys(experts: list[ExpertRecord], own: Set[str], left_out: dict[str, int]) -> list[ExpertRecord]:
    """The experts that are no toys, if there are any, and the toys that the user measured on this very task.

    Counts in ``left_out`` what that leaves out.
    """
    if all(expert.toy for expert in experts):
        return experts
    kept = [expert for expert in experts if not expert.toy or expert.name in own]
    left_out["toys"] = len(experts) - len(kept)
    return kept


def under_one_name(experts: Sequence[ExpertRecord], alias: Mapping[str, str]) -> dict[str, ExpertRecord]:
    """Experts by the name under which they count: the one of that name, or another that limits did leave."""
    names = dict[str, ExpertRecord]()
    for expert in experts:
        counting = alias.get(expert.name, expert.name)
        if counting not in names or counting == expert.name:
            names[counting] = expert
    return names


_NONE_OF: dict[Content, str] = {
    "texts": "there is no text encoder: add one with `t2v expert add hf:./encoder`",
    "images": "there is no expert of images: add one with `t2v expert add LOADER`",
}


def why_none(content: Content, left_out: Mapping[str, int]) -> str:
    """Why there is no expert to recommend, and the way out."""
    counts = [f"{name} left out {count}" for name, count in left_out.items() if count]
    if not counts:
        return _NONE_OF[content]
    return f"no expert is within the limits ({', '.join(counts)}): widen them, or add an expert"


def _content_of(expert: ExpertRecord) -> Content:
    return "texts" if takes_texts(expert.loader) else "images"


def _check_given(
    given: Mapping[str, float],
    candidates: Sequence[ExpertRecord],
    everyone: Sequence[ExpertRecord],
    content: Content,
) -> None:
    """Check what a user measured.

    Raises:
        NotFoundError: If there is no such expert.
        InvalidQueryError: If an expert takes other samples or is not within the limits, or an accuracy is not
            from 0 to 1.
    """
    registered = {expert.name: expert for expert in everyone}
    among = {expert.name for expert in candidates}
    for name, accuracy in given.items():
        if name not in registered:
            raise NotFoundError("expert", name, list(registered))
        if _content_of(registered[name]) != content:
            raise InvalidQueryError(
                f"{name} is given, which does not take {content}, as tasks here hold; leave it out"
            )
        if name not in among:
            raise InvalidQueryError(
                f"{name} is given, which is not within the limits; widen them, or leave it out"
            )
        if not 0 <= accuracy <= 1:
            raise InvalidQueryError(f"the accuracy given of {name} must be from 0 to 1, got {accuracy:g}")
