def handler(message, context):
    return {"result": message["body"]["arg"] * 2, "status": "noice"}
