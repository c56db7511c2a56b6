"""The servers that weak models are behind: where they are and what they can serve."""
