"""`tenantry serve`: from nothing to a line that says `ready`, and from Ctrl-C to nothing left behind.

Owns the command's flags, its progress for people, and the order of signals. What it starts is stack.py's.
"""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from tenantry.platform.cli import demo as demos
from tenantry.platform.cli.connection import OPERATOR_KEY_FILE
from tenantry.platform.cli.console import sign_in_url
from tenantry.platform.cli.model import choose_context, find_model
from tenantry.platform.cli.output import err, fail, out
from tenantry.platform.cli.progress import Progress
from tenantry.platform.cli.rest import Rest, read_key
from tenantry.platform.cli.stack import Stack, require_port
from tenantry.platform.core import logging, settings
from tenantry.platform.core.errors import ConfigurationError
from tenantry.platform.core.settings import Settings
from tenantry.runtime.config import CacheConfig, EngineConfig, ScheduleConfig
from tenantry.runtime.errors import RuntimeRefusal
from tenantry.runtime.speculative.options import parse as parse_speculation

DEMO_MODEL_NAME = "tenantry-demo"
UNSET = Path()


def serve(
    *,
    model: Annotated[str | None, Parameter(help="A directory with config.json and safetensors, or a hub id.")] = None,
    model_name: Annotated[
        str | None, Parameter(help="What clients call the base model; else the directory's name.")
    ] = None,
    demo: Annotated[bool, Parameter(negative="", help="Serve the demo's model, tenants and adapters.")] = False,
    data_dir: Annotated[
        Path | None, Parameter(help="Where everything is kept; else TENANTRY_DATA_DIR, else .data.")
    ] = None,
    database_url: Annotated[
        str | None, Parameter(help="An own PostgreSQL, as tenantry_app; else an embedded one.")
    ] = None,
    host: Annotated[str | None, Parameter(help="Address to listen on.")] = None,
    port: Annotated[int | None, Parameter(help="Port to listen on; 0 takes a free one.")] = None,
    dtype: Annotated[Literal["bfloat16", "float32"], Parameter(help="Arithmetic of the weights.")] = "bfloat16",
    kv_dtype: Annotated[Literal["int8", "bfloat16", "native"], Parameter(help="How KV pages are kept.")] = "int8",
    weights: Annotated[
        Literal["native", "w8a16", "w8a8", "w4a16"] | None,
        Parameter(help="How matrices are held: as dtype says, or in 8 or 4 bits; else TENANTRY_WEIGHTS."),
    ] = None,
    adapter_dtype: Annotated[
        Literal["native", "int8"] | None,
        Parameter(help="How adapters are held: as dtype says, or in int8; else TENANTRY_ADAPTER_DTYPE."),
    ] = None,
    memory: Annotated[
        Literal["unified", "split"] | None,
        Parameter(help="One memory for KV and adapters, or one each; else TENANTRY_MEMORY."),
    ] = None,
    memory_bytes: Annotated[
        int | None,
        Parameter(help="Of the one memory; 0 is twice the floors. Else TENANTRY_MEMORY_BYTES."),
    ] = None,
    host_cache_bytes: Annotated[
        int | None,
        Parameter(help="Host memory for KV that left the device; 0: none. Else TENANTRY_HOST_CACHE_BYTES, or 1 GiB."),
    ] = None,
    memory_pressure: Annotated[
        float | None,
        Parameter(help="Memory in use from which on to shed; 0: never. Else TENANTRY_MEMORY_PRESSURE, or 0.95."),
    ] = None,
    disk_cache_bytes: Annotated[
        int | None,
        Parameter(help="Disk for KV, found again after a restart; 0 for none. Else TENANTRY_DISK_CACHE_BYTES."),
    ] = None,
    disk_tenant_bytes: Annotated[
        int | None,
        Parameter(help="Most of that for one tenant; 0 sets no limit. Else TENANTRY_DISK_TENANT_BYTES."),
    ] = None,
    disk_cache_dir: Annotated[
        Path | None, Parameter(help="Where; else TENANTRY_DISK_CACHE_DIR, else `kv` in the data directory.")
    ] = None,
    tenant_kv_min: Annotated[
        int | None,
        Parameter(help="Cached pages of a tenant that others' never push out. Else TENANTRY_TENANT_KV_MIN, or none."),
    ] = None,
    tenant_kv_max: Annotated[
        int | None,
        Parameter(help="Cached pages beyond which a tenant's own go first. Else TENANTRY_TENANT_KV_MAX, or none."),
    ] = None,
    kv_pages: Annotated[int, Parameter(help="Pages of 16 tokens that KV has (split) or is sure of.")] = 2048,
    adapter_gib: Annotated[float, Parameter(help="GiB that adapters have (split) or are sure of.")] = 1.0,
    max_running: Annotated[int, Parameter(help="Most sequences in one step.")] = 64,
    token_budget: Annotated[int, Parameter(help="Most tokens computed in one step.")] = 256,
    itl_target_ms: Annotated[
        float | None,
        Parameter(
            help="How long a step may take while anything decodes; 0 sets no target. Else TENANTRY_ITL_TARGET_MS."
        ),
    ] = None,
    policy: Annotated[
        Literal["mixed", "prefill-first"] | None,
        Parameter(help="Prompts beside decoding rows, or before them; else TENANTRY_POLICY."),
    ] = None,
    batch_delay_ms: Annotated[
        float | None,
        Parameter(help="With nothing decoding, wait so long for more requests, 0-10; else TENANTRY_BATCH_DELAY_MS."),
    ] = None,
    tenant_weights: Annotated[
        str | None, Parameter(help="Shares of the engine by tenant, acme=4,beta=2; else TENANTRY_TENANT_WEIGHTS.")
    ] = None,
    speculate: Annotated[
        str, Parameter(help="Guess tokens ahead: off, ngram, auto, self, or draft, medusa, eagle, clover:DIRECTORY.")
    ] = "off",
    speculate_depth: Annotated[int, Parameter(help="Always guess so many; 0 lets measurements decide.")] = 0,
    speculate_verify: Annotated[
        Literal["sample", "reject", "typical"],
        Parameter(help="sample: a seed's own text; reject: the same distribution; typical: lossy, plausible tokens."),
    ] = "sample",
    threads: Annotated[int, Parameter(help="Threads of the model; 0 takes all cores. Engines share them.")] = 0,
    engines: Annotated[
        int | None, Parameter(help="So many engine processes, each with its own memory; else TENANTRY_ENGINES.")
    ] = None,
    roles: Annotated[
        str | None,
        Parameter(help="An engine process for each: both; or prefill,decode and more. Else TENANTRY_ROLES."),
    ] = None,
    currency: Annotated[
        str | None, Parameter(help="What all money is in, by ISO 4217; else TENANTRY_CURRENCY, or USD.")
    ] = None,
    support: Annotated[
        str | None, Parameter(help="A mail address or link where tenants ask for more; else TENANTRY_SUPPORT.")
    ] = None,
    runner: Annotated[
        Literal["model", "scripted"], Parameter(help="scripted: no model, to load-test a gateway.")
    ] = "model",
) -> None:
    """Serve a base model with its tenants' adapters until Ctrl-C.

    Example: tenantry serve --model ./llama-3-8b --data-dir /var/lib/tenantry --port 8080
    """
    try:
        if demo == (model is not None):
            raise ConfigurationError("give either --model or --demo")
        directory = demos.FOLDER / "model" if demo else find_model(str(model))
        chosen = settings.load(
            data_dir=data_dir.absolute() if data_dir else None,
            database_url=database_url,
            host=host,
            port=port,
            model_dir=directory,
            model_name=model_name or (DEMO_MODEL_NAME if demo else None),
            memory=memory,
            memory_bytes=memory_bytes,
            weights=weights,
            adapter_dtype=adapter_dtype,
            itl_target_ms=itl_target_ms,
            policy=policy,
            batch_delay_ms=batch_delay_ms,
            tenant_weights=tenant_weights,
            host_cache_bytes=host_cache_bytes,
            memory_pressure=memory_pressure,
            disk_cache_bytes=disk_cache_bytes,
            disk_tenant_bytes=disk_tenant_bytes,
            tenant_kv_min=tenant_kv_min,
            tenant_kv_max=tenant_kv_max,
            disk_cache_dir=disk_cache_dir.absolute() if disk_cache_dir else None,
            engines=engines,
            roles=roles,
            currency=currency,
            support=support,
        )
        parse_speculation(speculate, speculate_depth)
        if chosen.port:
            require_port(chosen.host, chosen.port)
        context = choose_context(chosen.max_context, directory, kv_pages * CacheConfig().page_size)
        chosen = replace(chosen, max_context=context)
        schedule = ScheduleConfig(
            token_budget=token_budget,
            max_running=max_running,
            max_context=context,
            itl_target_ms=chosen.itl_target_ms,
            policy=chosen.policy,
            batch_delay_ms=chosen.batch_delay_ms,
        )
        engine = EngineConfig(
            model_dir=directory,
            adapter_dir=UNSET,
            socket="",
            journal_dir=UNSET,
            dtype=dtype,
            kv_dtype=kv_dtype,
            memory=chosen.memory,
            memory_bytes=chosen.memory_bytes,
            weights=chosen.weights,
            adapter_dtype=chosen.adapter_dtype,
            host_cache_bytes=chosen.host_cache_bytes,
            memory_pressure=chosen.memory_pressure,
            disk_cache_bytes=chosen.disk_cache_bytes,
            disk_tenant_bytes=chosen.disk_tenant_bytes,
            disk_cache_dir=chosen.kv_dir,
            adapter_bytes=int(adapter_gib * (1 << 30)),
            threads=threads or os.cpu_count() or 1,
            cache=CacheConfig(pages=kv_pages, tenant_min=chosen.tenant_kv_min, tenant_max=chosen.tenant_kv_max),
            schedule=schedule,
            runner=runner,
            speculate=speculate,
            speculate_depth=speculate_depth,
            speculate_verify=speculate_verify,
        )
        asyncio.run(run(chosen, engine, demo))
    except (ConfigurationError, RuntimeRefusal) as error:
        fail(str(error), status=78)


async def run(chosen: Settings, engine: EngineConfig, demo: bool) -> None:
    logging.configure("warning" if err.is_terminal else chosen.log_level, "console")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    with Progress() as progress:
        beating = asyncio.create_task(progress.beat())
        stack = Stack(chosen, engine, progress.say)
        started = asyncio.create_task(_start(stack, demo))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([started, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not stop.is_set():
                await started
                progress.end()
                announce(stack, demo)
                await stop.wait()
        finally:
            started.cancel()
            beating.cancel()
            await asyncio.gather(started, beating, return_exceptions=True)
            stop.clear()
            await _stop(stack, stop)


async def _start(stack: Stack, demo: bool) -> None:
    await stack.start()
    if demo:
        await asyncio.to_thread(demos.register, stack.base_url, stack.settings.data_dir)


async def _stop(stack: Stack, again: asyncio.Event) -> None:
    """A second signal does not wait for what still runs."""
    stopping = asyncio.create_task(stack.stop())
    hurry = asyncio.create_task(again.wait())
    await asyncio.wait([stopping, hurry], return_when=asyncio.FIRST_COMPLETED)
    if not stopping.done():
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
        await stack.kill()
    hurry.cancel()
    if stopping.done() and not stopping.cancelled():
        stopping.result()


def announce(stack: Stack, demo: bool) -> None:
    out.print(f"gateway  {stack.base_url}/v1")
    out.print(f"API      {stack.base_url}/api/v1   (its description: {stack.base_url}/schema/openapi.json)")
    operator = Rest(stack.base_url, read_key(stack.settings.secrets_dir / OPERATOR_KEY_FILE))
    link = sign_in_url(operator, stack.base_url)
    out.print(f"console  {link}   (signs the operator in, once; again: `tenantry login`)", soft_wrap=True)
    out.print(f"data     {stack.settings.data_dir}", soft_wrap=True, markup=False)
    if demo:
        demos.announce(stack.base_url, stack.settings.data_dir)
    out.print("\nready")
