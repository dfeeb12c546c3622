import random
import time


def handler(message, context):
    time.sleep(0.2 if random.random() < 0.02 else 0.01)
    return {"done": True}
