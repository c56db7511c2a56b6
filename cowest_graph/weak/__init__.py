"""Live weak models: LangChain chat models whose adapter follows an `AdapterRegistry`.

Importing this package brings no torch; `LocalWeak` loads its weights at the first call.
"""
