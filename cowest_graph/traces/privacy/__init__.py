"""What a store keeps to itself, gives back or forgets: redaction, `forget`, `prune`."""

from cowest_graph.traces.privacy.forgetting import Forgetting, Forgotten, Pruned
from cowest_graph.traces.privacy.redacting import Clean, Redacting

__all__ = ["Clean", "Forgetting", "Forgotten", "Pruned", "Redacting"]
