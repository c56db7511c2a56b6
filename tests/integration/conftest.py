"""What the integration tests share."""

from databases import postgres, store, url

__all__ = ["postgres", "store", "url"]
