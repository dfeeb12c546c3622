import time


def handler(message, context):
    time.sleep(0.02)
    return {"slept": 0.02}
