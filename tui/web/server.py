"""The server: a page, the files that it needs and no other, and a websocket for each planner that is open."""

from __future__ import annotations

import asyncio
import html
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import textual_serve
from aiohttp import WSCloseCode, WSMsgType, web

from tui.web.guard import Guard, security_headers
from tui.web.process import PlannerProcess, bounded

LARGEST_MESSAGE = 2 << 20  # bytes of one message: a paste of 1 MB, as JSON
HERE, THEIRS = Path(__file__).parent, Path(textual_serve.__file__).parent / "static"
FILES = {
    "page.js": HERE / "page.js",
    "icon.svg": HERE / "icon.svg",
    "textual.js": THEIRS / "js" / "textual.js",
    "xterm.css": THEIRS / "css" / "xterm.css",
    "mono.ttf": THEIRS / "fonts" / "RobotoMono-VariableFont_wght.ttf",
    "mono-italic.ttf": THEIRS / "fonts" / "RobotoMono-Italic-VariableFont_wght.ttf",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PlannerServer:
    """words: the command of a planner. most: planners at once; each has a process of about 60 MB."""

    def __init__(self, words: Sequence[str], guard: Guard, most: int) -> None:
        self.words, self.guard, self.most = tuple(words), guard, most
        self.open = 0  # planners now

    def application(self) -> web.Application:
        """The aiohttp application."""

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guarded(request, handler)

        app = web.Application(middlewares=[guarded], client_max_size=1024)
        app.router.add_get("/", self._page)
        app.router.add_get("/ws/{token}", self._websocket)
        app.router.add_get("/static/{name}", self._file)
        app.router.add_get("/favicon.ico", self._icon)
        return app

    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every answer has the headers, a refusal too; no request reaches a handler before it is accepted."""
        headers = security_headers(html.escape(request.host).replace(";", "").replace(" ", ""))
        websocket = request.path.startswith("/ws/")
        refusal = self.guard.refusal(request.host, request.headers, websocket=websocket)
        try:
            if refusal:
                raise web.HTTPForbidden(text=refusal)
            answer = await handler(request)
        except web.HTTPException as error:
            error.headers.update(headers)
            raise
        if not answer.prepared:  # a websocket's answer has been sent
            answer.headers.update(headers)
        return answer

    def _refuse(self, token: str) -> None:
        """Raises HTTPForbidden without the token, HTTPServiceUnavailable while all planners are in use."""
        if not self.guard.knows(token):
            raise web.HTTPForbidden(text="open the address that gptplan tui --serve printed: its token is missing here")
        if self.open >= self.most:
            raise web.HTTPServiceUnavailable(
                text=f"{self.open} planners are open, and no more are started: close one with Ctrl+Q, or start "
                "gptplan tui --serve with a larger --sessions"
            )

    async def _page(self, request: web.Request) -> web.Response:
        self._refuse(request.query.get("token", ""))
        scheme = "wss" if request.scheme == "https" else "ws"
        address = f"{scheme}://{request.host}/ws/{self.guard.token or '-'}"
        text = (HERE / "page.html").read_text(encoding="utf-8")
        return web.Response(text=text.replace("{websocket}", html.escape(address)), content_type="text/html")

    async def _file(self, request: web.Request) -> web.StreamResponse:
        path = FILES.get(request.match_info["name"])
        if path is None:
            raise web.HTTPNotFound(text="there is no such file here")
        return web.FileResponse(path)

    async def _icon(self, request: web.Request) -> web.StreamResponse:
        return web.FileResponse(FILES["icon.svg"])

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        self._refuse(request.match_info["token"])
        self.open += 1  # before anything is awaited
        try:
            return await self._serve(request)
        finally:
            self.open -= 1

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        """A planner for as long as the page is open, or the planner runs."""
        socket = web.WebSocketResponse(heartbeat=15, max_msg_size=LARGEST_MESSAGE)
        await socket.prepare(request)
        planner = PlannerProcess(self.words, socket.send_bytes)
        try:
            await planner.start(*_first_size(request))
            tasks = [asyncio.create_task(planner.run()), asyncio.create_task(_answer(socket, planner))]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await asyncio.shield(planner.stop())
            await socket.close()
        return socket


def _first_size(request: web.Request) -> tuple[int, int]:
    try:
        found = bounded(int(request.query["width"]), int(request.query["height"]))
    except (KeyError, ValueError):
        found = None
    return found or (80, 24)


async def _answer(socket: web.WebSocketResponse, planner: PlannerProcess) -> None:
    """Pass on what the page sends; a message of no known form ends the connection."""
    async for message in socket:
        if message.type != WSMsgType.TEXT or not await _passed_on(message.data, socket, planner):
            await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"not a message of the planner's page")
            return


async def _passed_on(data: str, socket: web.WebSocketResponse, planner: PlannerProcess) -> bool:
    match _envelope(data):
        case ["stdin", str(text)]:
            await planner.type(text)
        case ["resize", {"width": width, "height": height}]:
            size = bounded(width, height)
            if size is None:
                return False
            await planner.tell(type="resize", width=size[0], height=size[1])
        case ["ping", str(sent)]:
            await socket.send_json(["pong", sent])
        case ["focus" | "blur" as kind]:
            await planner.tell(type=kind)
        case _:
            return False
    return True


def _envelope(data: str) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
