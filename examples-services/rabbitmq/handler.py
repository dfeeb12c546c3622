"""A queue of jobs in RabbitMQ.

curl -d '{"job": "resize"}' http://127.0.0.1:5000/jobs    # puts one in
curl http://127.0.0.1:5000/jobs                           # takes one out; 204 when there is none
"""

import json

import pika

QUEUE = "jobs"

# One channel per worker, kept between calls.
_channel = None


def handler(message, context):
    url = context["services"]["message_queue"]
    try:
        return serve(message, channel(url))
    except pika.exceptions.AMQPConnectionError:
        # The broker was restarted since our last call. Nothing of this call was confirmed, so it is
        # done again on a new connection: a job may come twice, but is never lost.
        forget_channel()
        return serve(message, channel(url))


def serve(message, queue):
    if message["verb"] == "POST":
        # With confirms on, this returns only after the broker has taken the message.
        queue.basic_publish(
            exchange="",
            routing_key=QUEUE,
            body=json.dumps(message["body"]).encode(),
            properties=pika.BasicProperties(
                content_type="application/json", delivery_mode=pika.DeliveryMode.Persistent
            ),
        )
        return {"status_code": 202, "body": {"queued": message["body"]}}

    delivery, _, body = queue.basic_get(QUEUE)
    if delivery is None:
        return {"status_code": 204}
    queue.basic_ack(delivery.delivery_tag)
    return {"job": json.loads(body)}


def channel(url):
    global _channel
    if _channel is None or _channel.is_closed:
        parameters = pika.URLParameters(url)
        # Nobody answers heartbeats between two calls, so none are asked for.
        parameters.heartbeat = 0
        parameters.socket_timeout = 2
        parameters.blocked_connection_timeout = 2
        _channel = pika.BlockingConnection(parameters).channel()
        _channel.confirm_delivery()
        _channel.queue_declare(QUEUE, durable=True)
    return _channel


def forget_channel():
    global _channel
    _channel = None
