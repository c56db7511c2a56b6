"""What other systems see of a run: OpenTelemetry's spans and metrics, feedback in LangSmith.

Off until `instrument` is called; until then nothing of OpenTelemetry is imported or called.
"""

from cowest_graph.telemetry.switch import (
    carried,
    instrument,
    observer,
    recorded,
    uninstrument,
)

__all__ = ["carried", "instrument", "observer", "recorded", "uninstrument"]
