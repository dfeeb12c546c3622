"""Greets. Try:

curl http://127.0.0.1:5000/hello
curl 'http://127.0.0.1:5000/hello/Ada?punctuation=!'
"""


def handler(message, context):
    # `path_params` holds what the {name} of the event type matched, percent-decoded.
    name = message["path_params"].get("name", "world")
    # `query` maps each parameter to its last value; `query_all` has them all.
    punctuation = message["query"].get("punctuation", ".")

    # What is printed belongs to this invocation: `functionsplatform logs ID`, where ID is the
    # X-Serverless-Instance-Id of the answer.
    print(f"greeting {name}")

    # A dict becomes JSON with status 200.
    return {"greeting": f"Hello, {name}{punctuation}"}
