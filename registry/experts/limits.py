"""What an expert has to keep within to be recommended."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from registry.errors import InvalidQueryError
from registry.ingest.data import is_loadable_offline
from registry.records import ExpertRecord


@dataclass(frozen=True)
class Limits:
    """Limits on experts; one whose value is not known passes no limit on it.

    Attributes:
        patterns: Its name or an alias must match one of these, such as ``convnext*``; any if there are none.
    """

    max_params: float | None = None
    max_flops: float | None = None
    input_size: float | None = None
    licenses: Sequence[str] = ()  # SPDX identifiers, of which it must have one; any if there are none
    loadable_offline: bool = False
    patterns: Sequence[str] = ()

    def within(self, experts: Iterable[ExpertRecord]) -> tuple[list[ExpertRecord], dict[str, int]]:
        """Those that keep within all limits, in order, and how many each limit left out.

        An expert that several limits leave out counts for the first of them.

        Raises:
            InvalidQueryError: If there are experts, and none has a name that a pattern matches.
        """
        everyone = list(experts)
        left, left_out = everyone, dict[str, int]()
        for name, allows in self._checks():
            kept = [expert for expert in left if allows(expert)]
            if name == "experts" and everyone and not kept:
                raise InvalidQueryError(
                    f"no expert is named {' or '.join(self.patterns)}; `t2v expert list` shows the names"
                )
            left_out[name], left = len(left) - len(kept), kept
        return left, left_out

    def _checks(self) -> list[tuple[str, Callable[[ExpertRecord], bool]]]:
        """The limits that are set, each by the name of its option."""

        def at_most(name: str, limit: float) -> Callable[[ExpertRecord], bool]:
            def allows(expert: ExpertRecord) -> bool:
                value = getattr(expert, name)
                return value is not None and value <= limit

            return allows

        licenses = {license.lower() for license in self.licenses}
        checks: list[tuple[str, Callable[[ExpertRecord], bool]]] = []
        if self.patterns:
            checks.append(("experts", lambda expert: matches(expert, self.patterns)))
        for option, name, limit in (
            ("max_params", "num_params", self.max_params),
            ("max_flops", "flops", self.max_flops),
            ("input_size", "input_size", self.input_size),
        ):
            if limit is not None:
                checks.append((option, at_most(name, limit)))
        if licenses:
            checks.append(("license", lambda expert: expert.license in licenses))
        if self.loadable_offline:
            checks.append(("loadable_offline", is_loadable_offline))
        return checks


def matches(expert: ExpertRecord, patterns: Sequence[str]) -> bool:
    """Whether the name of an expert or one of its aliases matches one of some patterns, case aside."""
    names = [name.lower() for name in (expert.name, *expert.aliases)]
    return any(fnmatchcase(name, pattern.strip().lower()) for name in names for pattern in patterns)
