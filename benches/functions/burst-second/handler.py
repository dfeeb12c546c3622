import time


def handler(message, context):
    time.sleep(1)
    return {"slept": 1}
