"""Where a collection runs, other than in this process."""

from trainer.engines.ray import collect_on_ray

__all__ = ["collect_on_ray"]
