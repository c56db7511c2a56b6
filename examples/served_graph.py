"""The collaboration of `cowest.toml` and the environment, for LangGraph's server.

Models, registry and store are those that the command line would use, so that `cowest collect` and
`cowest adapters` beside it see the same traces and versions. Names no model of its own. It is made
as the server starts: what is wrong with the configuration is told then, and no run waits for it.

    cd examples && langgraph dev --config langgraph.served.json    # it reads paths from there
    docker compose -f examples/compose.yaml up --build             # with PostgreSQL and vLLM
"""

from __future__ import annotations

from cowest_graph import create_collaboration
from trainer.cli.config import Config

config = Config.load()
graph = create_collaboration(
    config.weak_model(),
    config.strong_model(),
    traces=config.store(),
    prompts=config.wording(),
    domain=config.collect.domain,
).compile(name="cowest")
