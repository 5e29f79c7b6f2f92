"""What an expert has to keep within to be recommended."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from registry.experts.sources import is_loadable_offline
from registry.records import ExpertRecord


@dataclass(frozen=True)
class Limits:
    """Limits on experts; one whose value is not known passes no limit on it.

    Attributes:
        max_params: Most parameters.
        max_flops: Most multiply-adds for one image.
        input_size: Most pixels of the input's side.
        licenses: SPDX identifiers, of which it must have one; any if there are none.
        loadable_offline: Whether its weights must be on this machine.
    """

    max_params: float | None = None
    max_flops: float | None = None
    input_size: float | None = None
    licenses: Sequence[str] = ()
    loadable_offline: bool = False

    def within(self, experts: Iterable[ExpertRecord]) -> list[ExpertRecord]:
        """Those that keep within all limits, in order."""
        return [expert for expert in experts if self._allows(expert)]

    def _allows(self, expert: ExpertRecord) -> bool:
        for limit, value in (
            (self.max_params, expert.num_params),
            (self.max_flops, expert.flops),
            (self.input_size, expert.input_size),
        ):
            if limit is not None and (value is None or value > limit):
                return False
        if self.licenses and expert.license not in {license.lower() for license in self.licenses}:
            return False
        return not self.loadable_offline or is_loadable_offline(expert)
