"""Keeps the page and its visitors to this server."""

from __future__ import annotations

from urllib.parse import unquote

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Browsers load nothing from other sites. Gradio needs inline scripts and styles.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'self'; "
    "frame-ancestors 'self'"
)
# With these, Gradio fetches pages of other sites for visitors.
_FETCHING = ("/gradio_api/proxy=", "/proxy=")
_FILES = ("/gradio_api/file=", "/gradio_api/file/", "/file=", "/file/")


class Guard:
    """ASGI middleware: refuses to fetch other sites' pages, and tells browsers not to.

    Args:
        app: what it guards.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _fetches(scope["path"]):
            await PlainTextResponse("refused", status_code=403)(scope, receive, send)
            return

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = POLICY
                headers["Referrer-Policy"] = "no-referrer"
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        await self._app(scope, receive, send_with_policy)


def _fetches(path: str) -> bool:
    """Whether Gradio would fetch something to answer a request for ``path``."""
    if path.startswith(_FETCHING):
        return True
    file = next((path[len(start) :] for start in _FILES if path.startswith(start)), "")
    return "//" in unquote(file)[:16].lstrip("/") or unquote(file).lower().startswith("http")
