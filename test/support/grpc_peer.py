# A peer of gRPC without generated code: messages are bytes.
#
#   grpc_peer.py serve              prints "port N"; says "cancelled METHOD" where a call ended early
#   grpc_peer.py call PORT NAME     runs one scenario as a client, prints "all right"
import sys
import threading
import time
from concurrent import futures

import grpc

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0)]


# ---- the server

def say(*words):
    print(*words, flush=True)


def unary(request, context):
    context.set_trailing_metadata((("x-end", "yes"), ("x-bytes-bin", b"\x00\xff")))
    context.send_initial_metadata((("x-begin", dict(context.invocation_metadata()).get("x-ask", "")),))
    return request


def client_stream(requests, context):
    return b",".join(b"%d" % len(request) for request in requests)


def server_stream(request, context):
    for i in range(int(request)):
        yield b"%d" % i


def both(requests, context):
    for request in requests:
        yield request


def fail(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: 100% \u00e4")


def fail_late(request, context):
    yield b"one"
    context.abort(grpc.StatusCode.DATA_LOSS, "lost")


def watch(context, name):
    context.add_callback(lambda: say("ended", name))


def hang(request, context):
    watch(context, "Hang")
    say("began Hang", "%.1f" % min(context.time_remaining() or 9999, 9999))
    gone = threading.Event()
    context.add_callback(gone.set)
    gone.wait(20)
    return b""


def drip(request, context):
    watch(context, "Drip")
    for i in range(400):
        if not context.is_active():
            return
        yield b"%d" % i
        time.sleep(0.05)


def left(request, context):
    return b"%d" % int((context.time_remaining() or 0) * 1000)


health = {"status": 1}


def check(request, context):
    if b"Unknown" in request:
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    return b"\x08" + bytes([health["status"]])


def set_health(request, context):
    health["status"] = int(request)
    return b""


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=64), options=OPTIONS)
    server.add_generic_rpc_handlers((
        grpc.method_handlers_generic_handler("test.Echo", {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
            "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
            "Both": grpc.stream_stream_rpc_method_handler(both),
            "Fail": grpc.unary_unary_rpc_method_handler(fail),
            "FailLate": grpc.unary_stream_rpc_method_handler(fail_late),
            "Hang": grpc.unary_unary_rpc_method_handler(hang),
            "Drip": grpc.unary_stream_rpc_method_handler(drip),
            "Left": grpc.unary_unary_rpc_method_handler(left),
            "SetHealth": grpc.unary_unary_rpc_method_handler(set_health),
        }),
        grpc.method_handlers_generic_handler("grpc.health.v1.Health", {
            "Check": grpc.unary_unary_rpc_method_handler(check),
        }),
    ))
    say("port", server.add_insecure_port("127.0.0.1:0"))
    server.start()
    server.wait_for_termination()


# ---- the client

class Client:
    def __init__(self, port):
        self.channel = grpc.insecure_channel("127.0.0.1:" + port, options=OPTIONS)

    def unary(self, name, request=b"", **more):
        return self.channel.unary_unary(name)(request, timeout=more.pop("timeout", 10), **more)

    def status(self, name, request=b"", **more):
        try:
            self.unary(name, request, **more)
        except grpc.RpcError as error:
            return error.code(), error.details()
        return grpc.StatusCode.OK, ""


def expect(is_so, *what):
    if not is_so:
        raise AssertionError(what)


def call_unary(client):
    for size in (0, 1, 100, 16384, 65536, 100000):
        message = bytes(i % 251 for i in range(size))
        expect(client.unary("/test.Echo/Unary", message) == message, size)


def call_metadata(client):
    response, call = client.channel.unary_unary("/test.Echo/Unary").with_call(
        b"x", metadata=(("x-ask", "hello"), ("x-ask-bin", b"\x01\x02")), timeout=10)
    expect(dict(call.initial_metadata()).get("x-begin") == "hello", call.initial_metadata())
    trailing = dict(call.trailing_metadata())
    expect(trailing.get("x-end") == "yes" and trailing.get("x-bytes-bin") == b"\x00\xff", trailing)


def call_client_stream(client):
    sizes = [0, 1, 5000, 70000, 3]
    answer = client.channel.stream_unary("/test.Echo/ClientStream")((b"x" * size for size in sizes), timeout=10)
    expect(answer == b",".join(b"%d" % size for size in sizes), answer)


def call_server_stream(client):
    answers = list(client.channel.unary_stream("/test.Echo/ServerStream")(b"500", timeout=10))
    expect(answers == [b"%d" % i for i in range(500)], len(answers))
    expect(list(client.channel.unary_stream("/test.Echo/ServerStream")(b"0", timeout=10)) == [])


def call_both(client):
    turn = threading.Semaphore(1)

    def ask():
        for i in range(200):
            turn.acquire()
            yield b"%d" % i

    count = 0
    for answer in client.channel.stream_stream("/test.Echo/Both")(ask(), timeout=20):
        expect(answer == b"%d" % count, answer)  # one at a time: each answer before the next message
        count += 1
        turn.release()
    expect(count == 200, count)


def call_many(client):
    calls = [client.channel.stream_stream("/test.Echo/Both")(iter([b"%d" % i] * 20), timeout=20) for i in range(60)]
    for i, call in enumerate(calls):
        expect(list(call) == [b"%d" % i] * 20, i)


def call_big(client):
    message = bytes(range(256)) * 4096 * 8  # 8 MiB: over windows, frames and buffers
    expect(client.unary("/test.Echo/Unary", message, timeout=60) == message)
    answers = list(client.channel.stream_stream("/test.Echo/Both")(iter([message, b"", message]), timeout=60))
    expect(answers == [message, b"", message])


def call_fail(client):
    code, details = client.status("/test.Echo/Fail")
    expect(code == grpc.StatusCode.FAILED_PRECONDITION and details == "not now: 100% \u00e4", code, details)
    code, _ = client.status("/test.Echo/NoSuch")
    expect(code == grpc.StatusCode.UNIMPLEMENTED, code)
    seen = []
    try:
        for answer in client.channel.unary_stream("/test.Echo/FailLate")(b"", timeout=10):
            seen.append(answer)
    except grpc.RpcError as error:
        expect(error.code() == grpc.StatusCode.DATA_LOSS and error.details() == "lost", error)
    expect(seen == [b"one"], seen)


def call_deadline(client):
    start = time.time()
    code, _ = client.status("/test.Echo/Hang", timeout=0.5)
    expect(code == grpc.StatusCode.DEADLINE_EXCEEDED and time.time() - start < 5, code)
    left_ms = int(client.unary("/test.Echo/Left", timeout=8))
    expect(5000 < left_ms <= 8100, left_ms)  # grpcio rounds up what it sends


def call_route_deadline(client):
    code, details = client.status("/test.Echo/Hang", timeout=15)
    expect(code == grpc.StatusCode.DEADLINE_EXCEEDED, code, details)  # of the gateway or, bounded by it, of the server
    seen = 0
    try:
        for _ in client.channel.unary_stream("/test.Echo/Drip")(b"", timeout=15):
            seen += 1
    except grpc.RpcError as error:
        expect(error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error)
    expect(seen > 2, seen)


def call_cancel(client):
    call = client.channel.unary_stream("/test.Echo/Drip")(b"", timeout=20)
    expect(next(call) == b"0")
    call.cancel()
    future = client.channel.unary_unary("/test.Echo/Hang").future(b"", timeout=20)
    time.sleep(0.3)
    future.cancel()
    time.sleep(0.2)


def call_errors(client):
    code, details = client.status("/dead.Service/M")
    expect(code == grpc.StatusCode.UNAVAILABLE and "refused" in details, code, details)
    code, details = client.status("/other.Service/M")
    expect(code == grpc.StatusCode.UNIMPLEMENTED and details == "no route matches", code, details)
    code, details = client.status("/denied.Service/M")
    expect(code == grpc.StatusCode.PERMISSION_DENIED and details == "not you, \u00e4", code, details)


def call_unavailable(client):
    code, details = client.status("/test.Echo/Unary")
    expect(code == grpc.StatusCode.UNAVAILABLE, code, details)


def call_health(client):
    client.unary("/test.Echo/SetHealth", b"2")


if sys.argv[1] == "serve":
    serve()
else:
    globals()["call_" + sys.argv[3]](Client(sys.argv[2]))
    say("all right")
