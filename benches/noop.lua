wrk.method = "POST"
wrk.body = '{"arg": 21}'
wrk.headers["Content-Type"] = "application/json"
