"""Asks three (pretended) back ends at once and answers with what came in time. Try:

curl http://127.0.0.1:5000/async
curl -H 'X-Request-Timeout: 150ms' http://127.0.0.1:5000/async
"""

import asyncio

from functionsplatform.sdk import tracing

# Name and answering time in seconds. In real life these are awaitable clients.
BACK_ENDS = {"prices": 0.02, "stock": 0.03, "reviews": 0.3}

# Kept back for putting the answer together and sending it.
RESERVE_MS = 10


async def handler(message, context):
    # What is left of the caller's own deadline or the function's timeout, whichever is sooner.
    patience = max(context.remaining_ms() - RESERVE_MS, 0) / 1000

    tasks = {name: asyncio.create_task(ask(context, name, delay)) for name, delay in BACK_ENDS.items()}
    done, late = await asyncio.wait(tasks.values(), timeout=patience)
    for task in late:
        task.cancel()

    # A part of the answer in time is worth more than all of it too late.
    return {
        "answers": {name: task.result() for name, task in tasks.items() if task in done},
        "missing": [name for name, task in tasks.items() if task in late],
    }


async def ask(context, name, delay):
    # Spans of concurrent tasks do not mix: in the trace the three lie beside each other.
    with tracing.span_from_context(context["tracer"], context, name=f"ask {name}"):
        await asyncio.sleep(delay)
        return f"{name} after {delay * 1000:.0f} ms"
