"""The handler of benches/functions/noop under functions-framework."""


def handler(request):
    message = request.get_json()
    return {"result": message["arg"] * 2, "status": "noice"}
