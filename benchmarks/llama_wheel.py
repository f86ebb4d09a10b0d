"""llama.cpp's own server from a prebuilt wheel: `python llama_wheel.py MODEL ADAPTERS PORT THREADS`.

Runs in the peer's environment, with the package `xllamacpp` and nothing of ours. The wheel is compiled for any
processor with AVX2; a server built from source for this one is preferred where there is one.
"""

import sys
import threading

import xllamacpp


def main(model: str, adapters: list[str], port: int, threads: int) -> None:
    """Serves until it is ended."""
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx, params.n_parallel = 16 * 1024, 16
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 1.0) for path in adapters]
    params.lora_init_without_apply = True
    params.port = port
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(params)
    print(server.listening_address, xllamacpp.get_system_info(), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2].split(","), int(sys.argv[3]), int(sys.argv[4]))
