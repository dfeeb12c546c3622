"""Sleeps 10 ms, and in 2 % of the calls 200 ms. Try:

    functionsplatform bench http://127.0.0.1:5000/slow-tail --rate 100 --duration 20s

and look at the difference between p50 and p99.
"""

import random
import time

SLOW_SHARE = 0.02


def handler(message, context):
    # Each worker has a random seed of its own although all are forked from one parent.
    slow = random.random() < SLOW_SHARE
    time.sleep(0.2 if slow else 0.01)
    return {"slow": slow}
