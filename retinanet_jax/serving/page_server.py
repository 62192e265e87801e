"""The web server of the page: one port, this host only by default, no files left at the end."""

import contextlib
import ipaddress
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.inference.nms_sweep import NmsSweep

SHUTDOWN_SECONDS = 3  # for requests that are running at Ctrl-C
# Scripts, styles, fonts and images of the page come from this server alone.
_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"


def open_port(host: str, port: int) -> socket.socket:
    """A listening socket; an invalid host or port is reported before the model is loaded.

    Raises:
      DataError: the host is not an address of this machine, or the port is in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        opened = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        what = f"cannot listen there ({error})"
        fix = "choose another port, or --port=0 for any free one; --host must be a name or an "
        fix += "address of this machine"
        raise DataError("port", "--host, --port", f"{host}:{port}", what, fix) from error
    if not _is_loopback(opened):
        print(
            f"warning: {host} is open to the network: anyone who can reach this machine can send "
            "images, without a password or encryption",
            file=sys.stderr,
        )
    return opened


def serve(sweep: NmsSweep, name: str, opened: socket.socket) -> None:
    """Serves the page until Ctrl-C or SIGTERM, and compiles the network in the background.

    Ends the process: a running compilation cannot be interrupted, and Python would wait for it.
    """
    host, port = opened.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    # uvicorn repeats the signal at its end: as a KeyboardInterrupt, the folder is deleted after it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _upload_folder():
        server = _make_server(sweep, name, is_local=_is_loopback(opened))
        print(f"{name}: {address} (Ctrl-C stops it)", flush=True)
        threading.Thread(target=_warm_up, args=(sweep, server), daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):
            server.run([opened])
    print("stopped", flush=True)
    os._exit(0)


@contextlib.contextmanager
def _upload_folder() -> Iterator[None]:
    """A folder for Gradio's temporary files, deleted at the end. Gradio is imported after this."""
    with tempfile.TemporaryDirectory(prefix="retinanet_jax_serve_") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        yield


def _make_server(sweep: NmsSweep, name: str, *, is_local: bool):
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from retinanet_jax.serving.gradio_app import LAUNCH, build_app

    app = FastAPI(openapi_url=None)
    if is_local:  # another site may bind its own name to 127.0.0.1 and read the answers
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "[::1]"])
    app.add_middleware(_ContentPolicy)
    demo = build_app(sweep, title=name)
    gr.mount_gradio_app(app, demo, path="", **LAUNCH)
    demo.has_launched = True  # otherwise the API would read any file of this machine by its path
    # Gradio prints the errors of events itself; uvicorn adds those of connections cut at the end.
    config = uvicorn.Config(
        app, log_level="critical", timeout_graceful_shutdown=SHUTDOWN_SECONDS, server_header=False
    )
    return uvicorn.Server(config)


class _ContentPolicy:
    """Adds the header by which browsers load nothing from other hosts."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send) -> None:
        async def send_with_policy(message) -> None:
            if message["type"] == "http.response.start":
                policy = b"content-security-policy", _POLICY.encode()
                message = {**message, "headers": [*message.get("headers", ()), policy]}
            await send(message)

        await self._app(scope, receive, send_with_policy)


def _warm_up(sweep: NmsSweep, server) -> None:
    """Compiles the network; where that fails, the server stops."""
    print("compiling the network; detection starts after that", flush=True)
    start = time.perf_counter()
    try:
        sweep.warm_up()
    except BaseException:
        server.should_exit = True
        raise
    print(f"ready: compiled in {time.perf_counter() - start:.1f} s", flush=True)


def _is_loopback(opened: socket.socket) -> bool:
    return ipaddress.ip_address(opened.getsockname()[0]).is_loopback
