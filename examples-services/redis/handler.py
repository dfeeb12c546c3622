"""Named counters in Redis.

curl -X POST http://127.0.0.1:5000/counters/visits    # counts
curl http://127.0.0.1:5000/counters/visits            # looks
"""

import redis

from functionsplatform.sdk import tracing

# One client per worker, made by its first call and kept: a worker serves many calls, and a new
# connection for each would be most of their time. The client connects again by itself.
_client = None


def handler(message, context):
    key = f"counters:{message['path_params']['name']}"
    cache = client(context["services"]["cache_service"])
    with tracing.span_from_context(context["tracer"], context, name="redis") as span:
        tracing.set_attr(span, "db.system.name", "redis")
        if message["verb"] == "POST":
            return {"count": cache.incr(key)}
        return {"count": int(cache.get(key) or 0)}


def client(url):
    global _client
    if _client is None:
        # Without limits of its own a client would wait for a dead server until our timeout.
        _client = redis.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=1)
    return _client
