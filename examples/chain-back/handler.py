"""Squares a number. Try:

curl http://127.0.0.1:5000/chain-back/7
"""


def handler(message, context):
    text = message["path_params"]["number"]
    try:
        number = int(text)
    except ValueError:
        return {"status_code": 422, "body": {"detail": f"{text!r} is not a whole number"}}

    # Says how much time the caller left us: less than our own timeout when it came through
    # `chain-front`, which passes its remaining time on.
    print(f"{context.remaining_ms():.0f} ms left, called as {message['headers'].get('host')}")
    return {"number": number, "square": number * number}
