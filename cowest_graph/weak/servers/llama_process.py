"""The process in which llama.cpp serves: started by its file's path, ended by its standard input.

Knows xllamacpp's parameters, and nothing of this package: it starts in a tenth of a second. Reads
one line of JSON, writes one ({"url"} or {"error"}), and serves until its input ends, which it does
when the process that started it is killed, too.
"""

from __future__ import annotations

import json
import os
import select
import sys
from typing import Any

_LOOK = 2.0  # seconds between two looks at who the parent is


def main() -> None:
    """Serve what the first line of the input says."""
    parent = os.getppid()
    server, told = None, {}
    try:
        server = serve(json.loads(sys.stdin.readline()))
        told = {"url": server.listening_address}
    except Exception as error:  # told to who asked, who raises it
        told = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(told), flush=True)
    while server is not None and os.getppid() == parent:
        if select.select([sys.stdin], [], [], _LOOK)[0] and not sys.stdin.read(1):
            break
    os._exit(0)  # llama.cpp's own end waits for the calls that are under way


def serve(given: dict[str, Any]) -> Any:
    """llama.cpp's server, in threads of this process.

    Args:
        given: "gguf", "name", "lora", "parallel", "context", "threads", "repeatable", "key".
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = given["gguf"], {given["name"]}
    if given["lora"] is not None:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(given["lora"], 1.0)]
    params.n_parallel = given["parallel"]
    params.n_ctx = given["parallel"] * given["context"]
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.api_keys = [given["key"]]
    params.cors_origins, params.ui, params.endpoint_slots = "", False, False
    if given["repeatable"]:  # flash attention rounds by what else is computed with a token
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cache_ram_mib = 0  # a state that was put away there comes back with other bits
    params.verbosity = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = given["threads"]
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
