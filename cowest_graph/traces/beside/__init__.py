"""What is kept beside traces: feedback, corrections, drifts, what was spent, who is at work."""
