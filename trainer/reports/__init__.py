"""Results as pages, tables and Markdown."""
