"""A port, the web server on it, and the compilation of the network behind it."""

import asyncio
import contextlib
import ipaddress
import socket
import sys
import time

import uvicorn

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.serving.sweep import IouSweep
from retinanet_jax.serving.web import Studio, create_app

PATIENCE = 5  # seconds in which what is under way may end after Ctrl-C


def open_port(host: str, port: int) -> socket.socket:
    """A socket that listens; what is wrong with host and port shows before anything is loaded.

    Raises:
      DataError: the host is none of this machine's, or the port cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        opened = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        what = f"cannot be listened on ({error})"
        fix = "choose another port, or --port=0 for any that is free; --host is a name or an "
        fix += "address of this machine"
        raise DataError("port", "--host, --port", f"{host}:{port}", what, fix) from error
    if not ipaddress.ip_address(opened.getsockname()[0]).is_loopback:
        print(
            f"warning: {host} is open to the network: everyone who reaches this machine may send "
            "images; there is no password and no encryption",
            file=sys.stderr,
        )
    return opened


def serve(detector: IouSweep, name: str, host: str, opened: socket.socket) -> bool:
    """Answers until Ctrl-C or SIGTERM.

    Returns:
      Whether the device is still at work, which cannot be interrupted.
    """
    studio = Studio(detector, name)
    config = uvicorn.Config(
        create_app(studio, host),
        http="h11",
        loop="asyncio",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=PATIENCE,
    )
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{opened.getsockname()[1]}"
    print(f"{name}: {address} (Ctrl-C ends it)", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(uvicorn.Server(config), opened, studio))
    print("stopped")
    return studio.desk.busy


async def _run(server: uvicorn.Server, opened: socket.socket, studio: Studio) -> None:
    compiling = asyncio.create_task(_warm_up(studio, server))
    try:
        await server.serve([opened])
    finally:
        if not compiling.done():
            compiling.cancel()
        elif not compiling.cancelled():
            compiling.result()


async def _warm_up(studio: Studio, server: uvicorn.Server) -> None:
    """Compiles, and says so; a network that cannot be compiled ends the server."""
    print("compiling the network: the page is there, detections come after that", flush=True)
    start = time.perf_counter()
    try:
        await studio.warm_up()
    except Exception:
        server.should_exit = True
        raise
    print(f"compiled in {time.perf_counter() - start:.1f} s: ready", flush=True)
