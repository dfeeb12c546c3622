"""Counts down, one server-sent event at a time. Try:

    curl -N 'http://127.0.0.1:5000/stream?from=5'

Stop curl half way: the generator is closed, `finally` runs, and the invocation is recorded as
`cancelled`, which costs no error budget.
"""

import time

LONGEST = 100


def handler(message, context):
    try:
        start = int(message["query"].get("from", "5"))
    except ValueError:
        return {"status_code": 400, "body": {"detail": "`from` must be a whole number"}}

    # The envelope sets the content type; its body may be a generator.
    return {
        "status_code": 200,
        "headers": {"content-type": "text/event-stream", "cache-control": "no-store"},
        "body": countdown(min(max(start, 0), LONGEST)),
    }


def countdown(start):
    sent = 0
    try:
        for number in range(start, -1, -1):
            # Under this content type a dict with a key `data` is one event. A text would be one, too.
            yield {"event": "tick", "data": number}
            sent += 1
            if number:
                time.sleep(0.1)
    finally:
        # Output of a stream is captured until its end.
        print(f"sent {sent} events")
