"""How much work the expressions of one activation may do together.

Temporal takes a workflow task for stuck after two seconds. Work is counted and not timed, so that a
replay comes to the same end; all events of one activation come at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from planloom.planner.language.expressions import Meter


@dataclass(slots=True)
class Metering:
    """The work done so far in the activation of the time `at`."""

    at: float = 0.0
    meter: Meter = field(default_factory=Meter)

    def meter_at(self, now: float) -> Meter:
        """The activation's meter; a new one when time has gone on."""
        if now != self.at:
            self.at, self.meter = now, Meter()
        return self.meter
