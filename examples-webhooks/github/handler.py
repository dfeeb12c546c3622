"""What GitHub tells of a repository.

The platform has compared the signature in X-Hub-Signature-256 before this runs: whoever calls,
knows the secret. It does not know whether they call twice: X-GitHub-Delivery is the same then.
"""


def handler(message, context):
    event = message["headers"].get("x-github-event", "unknown")
    delivery = message["headers"].get("x-github-delivery", "none")
    print(f"{event} in delivery {delivery}, let in by {context.auth['kind']}")
    if event != "push":
        return {"ignored": event}
    push = message["body"]
    commits = [commit["message"].splitlines()[0] for commit in push["commits"]]
    return {"ref": push["ref"], "commits": commits}
