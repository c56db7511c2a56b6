"""The engine of `LocalWeak`: one decode loop over many texts, each with its own adapter."""
