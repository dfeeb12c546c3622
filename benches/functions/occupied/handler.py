import time


def handler(message, context):
    time.sleep(message["body"]["arg"])
    return {"slept": message["body"]["arg"]}
