"""Answers with a square that another function works out. Try:

    curl http://127.0.0.1:5000/chain/7

and open the trace: both functions are in it, the second under the first.
"""

import json
import os
import urllib.error
import urllib.request

from functionsplatform.sdk import tracing


def handler(message, context):
    number = message["path_params"]["number"]
    # Where the gateway listens. The platform sets it for every function, so that nothing
    # breaks when it was started on another port.
    url = f"{os.environ['FUNCTIONSPLATFORM_GATEWAY']}/chain-back/{number}"

    # A span for the call, and headers that carry it: `traceparent`, so that both sides make one
    # trace, and `X-Request-Timeout` with what is left of our own deadline, so that the other side
    # never works for nobody.
    with tracing.outbound_trace(url, {"accept": "application/json"}) as headers:
        request = urllib.request.Request(url, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=context.remaining_ms() / 1000) as answer:
                square = json.load(answer)["square"]
        except urllib.error.HTTPError as error:
            # Hand the other function's refusal on instead of failing with a 500 of our own.
            return {"status_code": error.code, "body": {"detail": f"chain-back answered {error.code}"}}

    return {"number": int(number), "square": square}
