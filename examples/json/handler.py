"""Describes a list of numbers. Try:

curl -d '{"numbers": [3, 1, 4, 1, 5]}' http://127.0.0.1:5000/json
"""

import statistics

from functionsplatform.sdk import tracing


def handler(message, context):
    # The body arrives parsed. Malformed JSON under a JSON content type never gets here:
    # the platform answers 400 itself.
    body = message["body"]
    numbers = body.get("numbers") if isinstance(body, dict) else None
    if not is_list_of_numbers(numbers):
        return refusal("send a JSON object whose key `numbers` is a non-empty list of numbers")

    # A span of your own, under the platform's `run` span in this call's trace.
    with tracing.span_from_context(context["tracer"], context, name="describe") as span:
        tracing.set_attr(span, "count", len(numbers))
        return {
            "count": len(numbers),
            "sum": sum(numbers),
            "mean": statistics.fmean(numbers),
            "median": statistics.median(numbers),
        }


def is_list_of_numbers(value):
    if not isinstance(value, list) or not value:
        return False
    # bool is an int to Python, not to the people who call us.
    return all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in value)


def refusal(detail):
    # A dict with an integer `status_code` is a response envelope: status, headers and body.
    # A 4xx is an answer like any other: it does not spend the error budget.
    return {
        "status_code": 422,
        "headers": {"content-type": "application/problem+json"},
        "body": {"title": "cannot be described", "detail": detail},
    }
