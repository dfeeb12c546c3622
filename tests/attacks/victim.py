"""No attack: the neighbour that must not notice any of them. Every call answers the same."""


def handler(message, context):
    return {"victim": "well"}
