"""What was stored, worked through again: queries asked anew, answers judged, judges compared."""

from trainer.replay.agreement import Agreement, agreements
from trainer.replay.sampling import Sample, sampled
from trainer.replay.scoring import Judge, Scored, scored

__all__ = ["Agreement", "Judge", "Sample", "Scored", "agreements", "sampled", "scored"]
