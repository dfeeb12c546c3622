def handler(message, context):
    return {"done": True}
