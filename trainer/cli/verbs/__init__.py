"""The verbs of `cowest`, a file a group; `command` gathers them."""
