-- Less time than the function takes: refused at the door while its worker is busy.
wrk.method = "POST"
wrk.body = '{"arg": 0.05}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["X-Request-Timeout"] = "0.02"
