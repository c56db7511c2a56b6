"""The demo: the whole loop on real models, offline, in minutes, and what it showed."""

from trainer.demo.measuring import Measured
from trainer.demo.results import Results
from trainer.demo.run import run_demo

__all__ = ["Measured", "Results", "run_demo"]
