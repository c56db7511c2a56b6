"""The collaboration where LangChain apps want it: a chat model, a tool, an agent's middleware."""
