"""The handlers of benches/functions/noop and limited under FastAPI, as its tutorial would write them."""

import asyncio
from typing import Any

from fastapi import FastAPI

app = FastAPI()


@app.post("/noop")
async def noop(message: dict[str, Any]) -> dict[str, Any]:
    return {"result": message["arg"] * 2, "status": "noice"}


places = asyncio.Semaphore(2)


@app.post("/limited")
async def limited(message: dict[str, Any]) -> dict[str, Any]:
    async with places:
        await asyncio.sleep(0.02)
    return {"slept": 0.02}
