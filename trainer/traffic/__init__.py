"""Learning from real traffic: what was served, explored, scored and corrected."""

from trainer.traffic.rounds import SOURCES, TrafficLoop
from trainer.traffic.served import Traffic, traffic_of

__all__ = ["SOURCES", "Traffic", "TrafficLoop", "traffic_of"]
