"""Serves the page, on this machine alone unless told otherwise."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

# Gradio reads it when it is imported; without it, a thread asks for newer versions.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

from starlette.middleware import Middleware

from ddep.errors import UserError
from ddep.web.guard import Guard
from ddep.web.models import Models
from ddep.web.page import Page
from ddep.web.style import STYLE, theme
from ddep.web.uploads import Limits

LOCAL = ("127.0.0.1", "localhost", "::1")
# More visitors' images are not kept in memory.
MAX_VISITS = 50


def serve(runs: Mapping[str, Path], *, host: str, port: int | None, limits: Limits) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Uploads and results are kept in a temporary folder, which is removed at the end.

    Args:
        runs: folders of runs, by the names that the page calls them.
        host: address to listen on.
        port: to listen on; None takes the first free one from 7860.
        limits: of uploads.

    Raises:
        UserError: the first model cannot be loaded, or the port is taken.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="ddep-web-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # read when components are made
        page = Page(Models(runs), limits)
        try:
            page.blocks.launch(
                server_name=host,
                server_port=port,
                share=False,
                quiet=True,
                ssr_mode=False,
                run_history=False,
                enable_monitoring=False,
                footer_links=[],
                max_file_size=int(limits.megabytes * 2**20),
                state_session_capacity=MAX_VISITS,
                app_kwargs={"middleware": [Middleware(Guard)]},
                theme=theme(),
                css=STYLE,
                prevent_thread_lock=True,
            )
        except OSError as error:
            raise UserError(
                f"--port {port or 'from 7860'} is taken on {host}; choose another one"
            ) from error
        print(f"the page is at {page.blocks.local_url} (Ctrl-C ends it)", flush=True)
        if host not in LOCAL:
            print(
                f"anyone who reaches {host} can use it; --host 127.0.0.1 keeps it to this machine",
                flush=True,
            )
        try:
            page.blocks.block_thread()
        finally:
            page.blocks.close(verbose=False)
