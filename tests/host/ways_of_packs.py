"""Routes as node packs add them, each with a picture that must not be seen."""

import asyncio

import requests
from aiohttp import ClientSession, web
from gated import FACE, House, png

import nodes


class Own(web.StreamResponse):
    """An answer that sends its body as soon as its head is sent."""

    async def prepare(self, request):
        sent = await super().prepare(request)
        await self.write(png(FACE))
        return sent


def other_packs(house: House) -> None:
    """Routes as node packs add them."""
    (house.folder / "web").mkdir(exist_ok=True)
    house.server.app.router.add_static("/extensions/other", house.folder / "web")

    @house.server.routes.get("/other/bytes")
    async def from_bytes(request):
        return web.Response(body=png(FACE), content_type="text/plain")

    @house.server.routes.get("/other/file")
    async def from_file(request):
        return web.FileResponse(house.folder / "output" / "other.png")

    @house.server.routes.get("/other/stream")
    async def streamed(request):
        answer = web.StreamResponse(headers={"Content-Type": "image/png"})
        await answer.prepare(request)
        await answer.write(png(FACE))
        return answer

    @house.server.routes.get("/other/called-text")
    async def called_text(request):
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        content = request.query.get("words", "").encode() or png(FACE)
        if "whole" in request.query:
            await answer.write_eof(content)
            return answer
        for start in range(0, len(content), 3):
            await answer.write(content[start : start + 3])
        return answer

    @house.server.routes.get("/other/own")
    async def of_its_own_kind(request):
        return Own(headers={"Content-Type": "text/event-stream"})

    @house.server.routes.get("/other/iterated")
    async def iterated(request):
        async def chunks():
            yield png(FACE)[:1000]
            yield png(FACE)[1000:]

        return web.Response(body=chunks(), content_type="image/png")

    @house.server.routes.get("/other/prepared")
    async def prepared(request):
        answer = web.FileResponse(house.folder / "output" / "other.png")
        await answer.prepare(request)
        return answer

    @house.server.routes.get("/other/socket")
    async def talked(request):
        answer = web.WebSocketResponse()
        await answer.prepare(request)
        await answer.send_bytes(png(FACE))
        await answer.send_bytes(b"words")
        return answer

    @house.server.routes.get("/other/raised")
    async def raised(request):
        raise web.HTTPOk(body=png(FACE), content_type="image/png")


def other(name: str):
    def got(house: House) -> list[bytes]:
        house.put(png(FACE), "other.png")
        try:
            return [house.get(f"/other/{name}").content]
        except requests.RequestException:
            return []

    return got


def by_its_socket(house: House) -> list[bytes]:
    async def listen() -> list[bytes]:
        address = f"{house.url}/other/socket"
        async with ClientSession() as session, session.ws_connect(address) as ws:
            return [message.data async for message in ws]

    found = asyncio.run(listen())
    assert found[-1] == b"words"
    return found


def beside_its_scripts(house: House) -> list[bytes]:
    house.put(png(FACE), "shown.png", "web")
    nodes.EXTENSION_WEB_DIRS["other"] = str(house.folder / "web")
    try:
        return [house.get("/extensions/other/shown.png").content]
    finally:
        del nodes.EXTENSION_WEB_DIRS["other"]
