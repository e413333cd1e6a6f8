"""Headless Chromium, told what to do by the DevTools protocol."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

Run = Callable[[str], Awaitable[Any]]
Call = Callable[..., Awaitable[dict[str, Any]]]
_OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage")


@asynccontextmanager
async def browser(page: Path, profile: Path) -> AsyncIterator[tuple[Run, Call]]:
    """Yield what runs JavaScript in a page that is shown, returning its value, and what calls the protocol itself."""
    program = shutil.which("chromium")
    assert program is not None
    process = await asyncio.create_subprocess_exec(
        program,
        *_OPTIONS,
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        page.as_uri(),
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        host = await _address(process)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{host}/json") as answer:
                tab = next(one for one in await answer.json() if one["type"] == "page")
            async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                call = _caller(socket)
                run = _runner(call)
                await call("Page.navigate", url=page.as_uri())
                await run("if (document.readyState !== 'complete') await new Promise((done) => onload = done);")
                yield run, call
    finally:
        process.terminate()
        await process.communicate()


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    said = ""
    while "DevTools listening on ws://" not in said:
        line = (await process.stderr.readline()).decode()
        assert line, f"the browser is gone: {said}"
        said += line
    return said.partition("ws://")[2].partition("/")[0]


def _caller(socket: aiohttp.ClientWebSocketResponse) -> Call:
    numbers = itertools.count(1)

    async def call(method: str, **parameters: Any) -> dict[str, Any]:
        number = next(numbers)
        await socket.send_json({"id": number, "method": method, "params": parameters})
        async for message in socket:
            said = json.loads(message.data)
            if said.get("id") == number:
                assert "error" not in said, said
                return said["result"]
        raise AssertionError("the browser is gone")

    return call


def _runner(call: Call) -> Run:
    async def run(script: str) -> Any:
        done = await call(
            "Runtime.evaluate",
            expression=f"(async () => {{ {script} }})()",
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    return run
