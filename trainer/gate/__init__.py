"""Is the new adapter better? Two versions' collaborations on held-out queries, and a paired test.

Knows collaborations, their scores and when a lead is no accident. Knows no training and promotes
nothing.
"""

from trainer.gate.asking import Scores, decided, held_out_scores
from trainer.gate.fixed import Gate
from trainer.gate.sequential import SequentialGate
from trainer.gate.verdicts import Decision, Verdict

__all__ = [
    "Decision",
    "Gate",
    "Scores",
    "SequentialGate",
    "Verdict",
    "decided",
    "held_out_scores",
]
