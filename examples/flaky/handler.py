"""Fails in several ways. Try:

    curl http://127.0.0.1:5000/flaky
    curl -i http://127.0.0.1:5000/flaky/raise      # 500 function_error
    curl -i http://127.0.0.1:5000/flaky/hang       # 504 timeout, after one second
    curl -i http://127.0.0.1:5000/flaky/exit       # 502 crashed
    curl -i http://127.0.0.1:5000/flaky/memory     # 502 out_of_memory
    curl -i http://127.0.0.1:5000/flaky/unavailable  # 503, the function's own answer

None of these disturbs a call of anybody else, and each is explained by its invocation's page and
by `functionsplatform explain code function_error` (or whichever code the answer named).
"""

import os
import time

from functionsplatform.sdk import tracing


def handler(message, context):
    how = message["path_params"].get("how", "well")
    # Printed before things go wrong, and still in the logs afterwards.
    print(f"about to end: {how}")
    with tracing.span_from_context(context["tracer"], context, name="end") as span:
        tracing.set_attr(span, "how", how)
        match how:
            case "well":
                return {"ended": "well"}
            case "raise":
                raise_with_a_cause()
            case "hang":
                time.sleep(3600)
            case "exit":
                os._exit(3)
            case "memory":
                fill_memory()
            case "unavailable":
                # An answer of 500 or more counts against the error budget even though nothing
                # was raised.
                return {"status_code": 503, "body": {"detail": "my back end is down"}}
    return {"status_code": 404, "body": {"detail": f"no such way to end: {how}"}}


def raise_with_a_cause():
    try:
        {}["missing"]
    except KeyError as error:
        raise ValueError("the order has no id") from error


def fill_memory():
    hoard = []
    while True:
        # Written to, not only reserved: memory counts when it is touched.
        hoard.append(b"\xff" * (16 << 20))
