"""Whether the strong model is still the one that it was."""

from trainer.drift.comparing import compared
from trainer.drift.probing import Probing

__all__ = ["Probing", "compared"]
