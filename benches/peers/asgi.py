"""The handler of benches/functions/noop under FastAPI, as its tutorial would write it."""

from typing import Any

from fastapi import FastAPI

app = FastAPI()


@app.post("/noop")
async def noop(message: dict[str, Any]) -> dict[str, Any]:
    return {"result": message["arg"] * 2, "status": "noice"}
