import time


def handler(message, context):
    end = time.thread_time() + 0.006
    steps = 0
    while time.thread_time() < end:
        steps += 1
    return {"steps": steps}
