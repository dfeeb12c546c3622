"""The handlers of benches/functions/noop and limited under FastAPI, as its tutorial would write them."""

import asyncio
from typing import Any

from fastapi import FastAPI

app = FastAPI()


@app.post("/noop")
async def noop(message: dict[str, Any]) -> dict[str, Any]:
    return {"result": message["arg"] * 2, "status": "noice"}


places = asyncio.Semaphore(2)
waiting = 0


@app.post("/limited")
async def limited(message: dict[str, Any]) -> dict[str, Any]:
    global waiting
    waiting += 1
    try:
        async with places:
            await asyncio.sleep(0.02)
    finally:
        waiting -= 1
    return {"slept": 0.02}


@app.get("/waiting")
async def how_many_wait() -> int:
    return waiting
