-- What backends do wrong, and what must come of it (promise P08). Plain data without functions, because the same table runs in
-- both worlds: against the real binary (test/spec/failures_spec.lua) and against the simulated gateway, for which
-- test/support/failures_to_c.lua turns it into C.
--
-- A row: { name, listen, backend, client, connections, heads, min_ms, max_ms }
--   listen       "refuse": nobody listens at the endpoint; "hang": a connect is never answered; absent: the backend listens
--   backend      one list of steps for each connection, in the order in which these are accepted; later connections read a head,
--                answer 200 "fresh\n" and go on so. A connection is closed when its steps are over
--   client       steps of one client connection
--   connections  accepted by the backend in all, heads: request heads it read in all (both absent where nobody listens)
--   min_ms, max_ms  from the first byte of the client to the end of its last step; to the letter in the simulated world,
--                max_ms with some slack on a real machine
--
-- Steps of the backend:
--   {"read_head"}         reads one request head              {"read", n}          reads n bytes behind it
--   {"send", bytes}       sends                               {"fill", n}          sends n bytes 'x'
--   {"shutdown"}          ends its sending side               {"close"}            closes (FIN)
--   {"reset"}             closes with a RST                   {"wait"}             until the gateway ended the connection
--   {"await_client", n}   until the client has got n bytes in all on its connection
-- Steps of the client:
--   {"send", bytes}, {"fill", n}, {"shutdown"}, {"close"}, {"reset"} as above
--   {"await_heads", n}    until the backend has read n heads in all
--   {"await_bytes", n}    until n bytes in all have come on this connection
--   {"await_script", n}   until the steps of the backend's n-th connection are over
--   {"expect", status, body, outcome}   the next final response; body false: any. outcome "kept": whole, and the connection is
--                         still open; "closed": whole, then the end; "aborted": its head and at the most a beginning of body
--                         came, then the connection ended before the response was whole
--   {"expect_end"}        the connection ends without another byte
-- Timeouts of the gateway: connect 300 ms, response head 500 ms, stalled body 500 ms.
local OK = "HTTP/1.1 200 OK\r\n"
local HELLO = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
local CHUNKED = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
local GET = "GET / HTTP/1.1\r\nHost: h.example\r\n\r\n"
local HEAD = "HEAD / HTTP/1.1\r\nHost: h.example\r\n\r\n"
local DELETE = "DELETE / HTTP/1.1\r\nHost: h.example\r\n\r\n"
local POST = "POST / HTTP/1.1\r\nHost: h.example\r\nContent-Length: 5\r\n\r\nhello"
local POST_EMPTY = "POST / HTTP/1.1\r\nHost: h.example\r\nContent-Length: 0\r\n\r\n"
local PUT = "PUT / HTTP/1.1\r\nHost: h.example\r\nContent-Length: 5\r\n\r\nhello"
local PUT_CHUNKED = "PUT / HTTP/1.1\r\nHost: h.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
local PUT_BIG_HEAD = "PUT / HTTP/1.1\r\nHost: h.example\r\nContent-Length: 262144\r\n\r\n"
local POST_BIG_HEAD = "POST / HTTP/1.1\r\nHost: h.example\r\nContent-Length: 1048576\r\n\r\n"
local HUGE = 67108864 -- more than the sockets on the way hold
local POST_HUGE_HEAD = "POST / HTTP/1.1\r\nHost: h.example\r\nContent-Length: 67108864\r\n\r\n"
local GET_10 = "GET / HTTP/1.0\r\nHost: h.example\r\n\r\n"
local EARLY = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
local CONTINUE = "HTTP/1.1 100 Continue\r\n\r\n"

return {
  -- No connection.
  { name = "refused, GET", listen = "refuse", client = { { "send", GET }, { "expect", 502, false, "kept" } }, max_ms = 100 },
  { name = "refused, POST with a body", listen = "refuse", client = { { "send", POST }, { "expect", 502, false, "kept" } },
    max_ms = 100 },
  { name = "refused, HEAD", listen = "refuse", client = { { "send", HEAD }, { "expect", 502, "", "kept" } }, max_ms = 100 },
  { name = "refused twice on one connection", listen = "refuse",
    client = { { "send", GET }, { "expect", 502, false, "kept" }, { "send", GET }, { "expect", 502, false, "kept" } } },
  { name = "connect never answered", listen = "hang", client = { { "send", GET }, { "expect", 504, false, "kept" } },
    min_ms = 280, max_ms = 400 },

  -- A fresh connection that ends before the response: never replayed.
  { name = "accepted, then closed", backend = { { { "close" } } }, connections = 1,
    client = { { "send", GET }, { "expect", 502, false, "kept" } } },
  { name = "accepted, then reset", backend = { { { "reset" } } }, connections = 1,
    client = { { "send", GET }, { "expect", 502, false, "kept" } } },
  { name = "closed after the request", backend = { { { "read_head" }, { "close" } } }, connections = 1, heads = 1,
    client = { { "send", GET }, { "expect", 502, false, "kept" } } },
  { name = "reset after the request", backend = { { { "read_head" }, { "reset" } } }, connections = 1, heads = 1,
    client = { { "send", GET }, { "expect", 502, false, "kept" } } },
  { name = "reset after a request with a body", backend = { { { "read_head" }, { "read", 5 }, { "reset" } } }, connections = 1,
    heads = 1, client = { { "send", POST }, { "expect", 502, false, "kept" } } },
  { name = "closed within the status line", backend = { { { "read_head" }, { "send", "HTTP/1.1 20" }, { "close" } } },
    connections = 1, heads = 1, client = { { "send", GET }, { "expect", 502, false, "kept" } } },
  { name = "closed within the head", backend = { { { "read_head" }, { "send", OK .. "Content-Le" }, { "close" } } },
    connections = 1, heads = 1, client = { { "send", GET }, { "expect", 502, false, "kept" } } },
  { name = "reset within the head", backend = { { { "read_head" }, { "send", OK .. "Content-Le" }, { "reset" } } },
    connections = 1, heads = 1, client = { { "send", GET }, { "expect", 502, false, "kept" } } },
  { name = "closed behind 103", backend = { { { "read_head" }, { "send", EARLY }, { "close" } } }, connections = 1, heads = 1,
    client = { { "send", GET }, { "expect", 502, false, "kept" } } },
  { name = "half closed without a response", backend = { { { "read_head" }, { "shutdown" }, { "wait" } } }, connections = 1,
    heads = 1, client = { { "send", GET }, { "expect", 502, false, "kept" } } },

  -- Silence.
  { name = "hangs before the head", backend = { { { "read_head" }, { "wait" } } }, connections = 1, heads = 1,
    client = { { "send", GET }, { "expect", 504, false, "kept" } }, min_ms = 480, max_ms = 700 },
  { name = "hangs without reading", backend = { { { "wait" } } }, connections = 1,
    client = { { "send", GET }, { "expect", 504, false, "kept" } }, min_ms = 480, max_ms = 700 },
  { name = "hangs within the head", backend = { { { "read_head" }, { "send", OK .. "X: " }, { "wait" } } }, connections = 1,
    heads = 1, client = { { "send", GET }, { "expect", 504, false, "kept" } }, min_ms = 480, max_ms = 700 },
  { name = "hangs behind 103", backend = { { { "read_head" }, { "send", EARLY }, { "wait" } } }, connections = 1, heads = 1,
    client = { { "send", GET }, { "expect", 504, false, "kept" } }, min_ms = 480, max_ms = 900 },
  { name = "hangs before the head of HEAD", backend = { { { "read_head" }, { "wait" } } }, connections = 1, heads = 1,
    client = { { "send", HEAD }, { "expect", 504, "", "kept" } }, min_ms = 480, max_ms = 700 },
  { name = "hangs before the body", backend = { { { "read_head" }, { "send", OK .. "Content-Length: 10\r\n\r\n" }, { "wait" } } },
    connections = 1, heads = 1, client = { { "send", GET }, { "expect", 200, "", "aborted" } }, min_ms = 480, max_ms = 900 },
  { name = "hangs within a body with length",
    backend = { { { "read_head" }, { "send", OK .. "Content-Length: 10\r\n\r\nhello" }, { "wait" } } }, connections = 1, heads = 1,
    client = { { "send", GET }, { "expect", 200, "hello", "aborted" } }, min_ms = 480, max_ms = 900 },
  { name = "hangs within a chunked body", backend = { { { "read_head" }, { "send", CHUNKED .. "5\r\nhello\r\n" }, { "wait" } } },
    connections = 1, heads = 1, client = { { "send", GET }, { "expect", 200, "hello", "aborted" } }, min_ms = 480, max_ms = 900 },
  { name = "hangs within the trailers", backend = { { { "read_head" }, { "send", CHUNKED .. "5\r\nhello\r\n0\r\nX: " }, { "wait" } } },
    connections = 1, heads = 1, client = { { "send", GET }, { "expect", 200, "hello", "aborted" } }, min_ms = 480, max_ms = 900 },
  { name = "hangs within a body until close", backend = { { { "read_head" }, { "send", OK .. "\r\nhello" }, { "wait" } } },
    connections = 1, heads = 1, client = { { "send", GET }, { "expect", 200, "hello", "aborted" } }, min_ms = 480, max_ms = 900 },

  -- The response breaks off.
  { name = "reset at byte 0 of a body with length", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", OK .. "Content-Length: 10\r\n\r\n" }, { "await_client", 20 }, { "reset" } } },
    client = { { "send", GET }, { "expect", 200, "", "aborted" } } },
  { name = "reset at byte 5 of a body with length", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", OK .. "Content-Length: 10\r\n\r\nhello" }, { "await_client", 20 }, { "reset" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "aborted" } } },
  { name = "closed at byte 5 of a body with length", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", OK .. "Content-Length: 10\r\n\r\nhello" }, { "close" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "aborted" } } },
  { name = "closed at the last byte but one of 256 KiB", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", OK .. "Content-Length: 262144\r\n\r\n" }, { "fill", 262143 }, { "close" } } },
    client = { { "send", GET }, { "expect", 200, false, "aborted" } } },
  { name = "reset in the middle of 256 KiB", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", OK .. "Content-Length: 262144\r\n\r\n" }, { "fill", 131072 }, { "await_client", 100000 },
      { "reset" } } }, client = { { "send", GET }, { "expect", 200, false, "aborted" } } },
  { name = "reset between two chunks", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", CHUNKED .. "5\r\nhello\r\n" }, { "await_client", 20 }, { "reset" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "aborted" } } },
  { name = "closed between two chunks", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", CHUNKED .. "5\r\nhello\r\n" }, { "close" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "aborted" } } },
  { name = "closed within a chunk", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", CHUNKED .. "a\r\nhello" }, { "close" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "aborted" } } },
  { name = "closed within a chunk line", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", CHUNKED .. "5\r\nhello\r\n5" }, { "close" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "aborted" } } },
  { name = "closed before the last CRLF", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", CHUNKED .. "5\r\nhello\r\n0\r\n" }, { "close" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "aborted" } } },
  { name = "reset within a body until close", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", OK .. "\r\nhello" }, { "await_client", 20 }, { "reset" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "aborted" } } },
  { name = "reset within a body until close, HTTP/1.0 client", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", OK .. "\r\nhello" }, { "await_client", 20 }, { "reset" } } },
    client = { { "send", GET_10 }, { "expect", 200, "hello", "aborted" } } },
  { name = "closed within a chunk, HTTP/1.0 client", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", CHUNKED .. "a\r\nhello" }, { "close" } } },
    client = { { "send", GET_10 }, { "expect", 200, "hello", "aborted" } } },
  { name = "a body until close ends rightly", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", OK .. "\r\nhello" }, { "close" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "kept" } } },
  { name = "broken chunks behind a right one", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", CHUNKED .. "5\r\nhello\r\n" }, { "await_client", 20 }, { "send", "zz\r\n" }, { "wait" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "aborted" } } },

  -- Framing that cannot be trusted.
  { name = "Content-Length with Transfer-Encoding", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", CHUNKED:gsub("\r\n\r\n$", "\r\nContent-Length: 5\r\n\r\n") .. "0\r\n\r\n" }, { "wait" } } },
    client = { { "send", GET }, { "expect", 502, false, "kept" } } },
  { name = "two lengths", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", OK .. "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello" }, { "wait" } } },
    client = { { "send", GET }, { "expect", 502, false, "kept" } } },
  { name = "a negative length", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", OK .. "Content-Length: -1\r\n\r\n" }, { "wait" } } },
    client = { { "send", GET }, { "expect", 502, false, "kept" } } },
  { name = "status 2000", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n" }, { "wait" } } },
    client = { { "send", GET }, { "expect", 502, false, "kept" } } },
  { name = "no HTTP at all", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", "SSH-2.0-OpenSSH_9.2\r\n\r\n" }, { "wait" } } },
    client = { { "send", GET }, { "expect", 502, false, "kept" } } },
  { name = "a folded field", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", OK .. "X: y\r\n z\r\nContent-Length: 0\r\n\r\n" }, { "wait" } } },
    client = { { "send", GET }, { "expect", 502, false, "kept" } } },
  { name = "a head that never ends", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", OK .. "X: " }, { "fill", 131072 }, { "wait" } } },
    client = { { "send", GET }, { "expect", 502, false, "kept" } } },

  -- A pooled connection that is dead.
  { name = "reused connection reset, GET is replayed", connections = 2, heads = 3,
    backend = { { { "read_head" }, { "send", HELLO }, { "read_head" }, { "reset" } }, { { "read_head" }, { "send", HELLO }, { "wait" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "kept" }, { "send", GET }, { "expect", 200, "hello", "kept" } } },
  { name = "reused connection closed, GET is replayed", connections = 2, heads = 3,
    backend = { { { "read_head" }, { "send", HELLO }, { "read_head" }, { "close" } }, { { "read_head" }, { "send", HELLO }, { "wait" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "kept" }, { "send", GET }, { "expect", 200, "hello", "kept" } } },
  { name = "reused connection reset, DELETE is replayed", connections = 2, heads = 3,
    backend = { { { "read_head" }, { "send", HELLO }, { "read_head" }, { "reset" } }, { { "read_head" }, { "send", HELLO }, { "wait" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "kept" }, { "send", DELETE }, { "expect", 200, "hello", "kept" } } },
  { name = "reused connection reset, PUT is replayed with its body", connections = 2, heads = 3,
    backend = { { { "read_head" }, { "send", HELLO }, { "read_head" }, { "read", 5 }, { "reset" } },
      { { "read_head" }, { "read", 5 }, { "send", HELLO }, { "wait" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "kept" }, { "send", PUT }, { "expect", 200, "hello", "kept" } } },
  { name = "reused connection reset, chunked PUT is replayed", connections = 2, heads = 3,
    backend = { { { "read_head" }, { "send", HELLO }, { "read_head" }, { "read", 15 }, { "reset" } },
      { { "read_head" }, { "read", 15 }, { "send", HELLO }, { "wait" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "kept" }, { "send", PUT_CHUNKED }, { "expect", 200, "hello", "kept" } } },
  { name = "reused connection reset, POST is not replayed", connections = 1, heads = 2,
    backend = { { { "read_head" }, { "send", HELLO }, { "read_head" }, { "read", 5 }, { "reset" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "kept" }, { "send", POST }, { "expect", 502, false, "kept" } } },
  { name = "reused connection closed, POST is not replayed", connections = 1, heads = 2,
    backend = { { { "read_head" }, { "send", HELLO }, { "read_head" }, { "read", 5 }, { "close" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "kept" }, { "send", POST }, { "expect", 502, false, "kept" } } },
  { name = "reused connection reset, POST without body is not replayed", connections = 1, heads = 2,
    backend = { { { "read_head" }, { "send", HELLO }, { "read_head" }, { "reset" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "kept" }, { "send", POST_EMPTY }, { "expect", 502, false, "kept" } } },
  { name = "reused connection reset, a PUT of 256 KiB is not replayed", connections = 1, heads = 2,
    backend = { { { "read_head" }, { "send", HELLO }, { "read_head" }, { "read", 262144 }, { "reset" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "kept" }, { "send", PUT_BIG_HEAD }, { "fill", 262144 },
      { "expect", 502, false, "kept" } } },
  { name = "the replay fails too: no third attempt", connections = 2, heads = 3,
    backend = { { { "read_head" }, { "send", HELLO }, { "read_head" }, { "reset" } }, { { "read_head" }, { "reset" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "kept" }, { "send", GET }, { "expect", 502, false, "kept" } } },
  { name = "reused connection reset within the head: no replay", connections = 1, heads = 2,
    backend = { { { "read_head" }, { "send", HELLO }, { "read_head" }, { "send", "HTTP/1.1 2" }, { "reset" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "kept" }, { "send", GET }, { "expect", 502, false, "kept" } } },
  { name = "reused connection silent: no replay", connections = 1, heads = 2, min_ms = 480,
    backend = { { { "read_head" }, { "send", HELLO }, { "read_head" }, { "wait" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "kept" }, { "send", GET }, { "expect", 504, false, "kept" } } },
  { name = "pooled connection closed while idle, GET", connections = 2, heads = 2,
    backend = { { { "read_head" }, { "send", HELLO }, { "shutdown" }, { "wait" } }, { { "read_head" }, { "send", HELLO }, { "wait" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "kept" }, { "await_script", 1 }, { "send", GET },
      { "expect", 200, "hello", "kept" } } },
  { name = "pooled connection closed while idle, POST", connections = 2, heads = 2,
    backend = { { { "read_head" }, { "send", HELLO }, { "shutdown" }, { "wait" } },
      { { "read_head" }, { "read", 5 }, { "send", HELLO }, { "wait" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "kept" }, { "await_script", 1 }, { "send", POST },
      { "expect", 200, "hello", "kept" } } },

  -- More than was asked for.
  { name = "bytes behind the response", connections = 2, heads = 2,
    backend = { { { "read_head" }, { "send", HELLO .. "POISON" }, { "wait" } }, { { "read_head" }, { "send", HELLO }, { "wait" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "kept" }, { "send", GET }, { "expect", 200, "hello", "kept" } } },
  { name = "two responses to one request", connections = 2, heads = 2,
    backend = { { { "read_head" }, { "send", HELLO .. OK .. "Content-Length: 6\r\n\r\nPOISON" }, { "wait" } },
      { { "read_head" }, { "send", HELLO }, { "wait" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "kept" }, { "send", GET }, { "expect", 200, "hello", "kept" } } },
  { name = "a response comes while the connection is idle", connections = 2, heads = 2,
    backend = { { { "read_head" }, { "send", HELLO }, { "await_client", 40 }, { "send", OK .. "Content-Length: 6\r\n\r\nPOISON" }, { "wait" } },
      { { "read_head" }, { "send", HELLO }, { "wait" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "kept" }, { "await_script", 1 }, { "send", GET },
      { "expect", 200, "hello", "kept" } } },
  { name = "a body behind 204", connections = 2, heads = 2,
    backend = { { { "read_head" }, { "send", "HTTP/1.1 204 No Content\r\n\r\nPOISON" }, { "wait" } },
      { { "read_head" }, { "send", HELLO }, { "wait" } } },
    client = { { "send", GET }, { "expect", 204, "", "kept" }, { "send", GET }, { "expect", 200, "hello", "kept" } } },
  { name = "a body behind a response to HEAD", connections = 2, heads = 2,
    backend = { { { "read_head" }, { "send", OK .. "Content-Length: 6\r\n\r\nPOISON" }, { "wait" } },
      { { "read_head" }, { "send", HELLO }, { "wait" } } },
    client = { { "send", HEAD }, { "expect", 200, "", "kept" }, { "send", GET }, { "expect", 200, "hello", "kept" } } },

  -- Answers before the request was read.
  { name = "413 and close before the body was read", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig" },
      { "close" } } },
    client = { { "send", POST_BIG_HEAD }, { "fill", 131072 }, { "expect", 413, "big", "closed" } } },
  { name = "413 and reset while the body comes", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "read", 1000 }, { "send", "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig" },
      { "reset" } } },
    client = { { "send", POST_BIG_HEAD }, { "fill", 131072 }, { "expect", 413, "big", "closed" } } },
  { name = "200 before the body was read", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", HELLO }, { "wait" } } },
    client = { { "send", POST_BIG_HEAD }, { "fill", 131072 }, { "expect", 200, "hello", "closed" } } },
  { name = "reset in the middle of an upload", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "read", 100000 }, { "reset" } } },
    client = { { "send", POST_BIG_HEAD }, { "fill", 131072 }, { "expect", 502, false, "closed" } } },
  { name = "the body is never read", connections = 1, heads = 1, min_ms = 480, max_ms = 2500,
    backend = { { { "read_head" }, { "wait" } } },
    client = { { "send", POST_HUGE_HEAD }, { "fill", HUGE }, { "expect", 504, false, "closed" } } },

  -- Interim responses.
  { name = "a flood of 100", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", CONTINUE:rep(200) }, { "wait" } } },
    client = { { "send", GET }, { "expect", 502, false, "kept" } } },
  { name = "16 interim responses pass", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", EARLY:rep(16) .. HELLO }, { "wait" } } },
    client = { { "send", GET }, { "expect", 200, "hello", "kept" } } },
  { name = "17 interim responses do not", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", EARLY:rep(17) .. HELLO }, { "wait" } } },
    client = { { "send", GET }, { "expect", 502, false, "kept" } } },
  { name = "101 that nobody asked for", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nPOISON" },
      { "wait" } } },
    client = { { "send", GET }, { "expect", 502, false, "kept" } } },

  -- The client goes.
  { name = "the client closes before the response", connections = 1, heads = 1, backend = { { { "read_head" }, { "wait" } } },
    client = { { "send", GET }, { "await_heads", 1 }, { "close" }, { "await_script", 1 } }, max_ms = 400 },
  { name = "the client resets before the response", connections = 1, heads = 1, backend = { { { "read_head" }, { "wait" } } },
    client = { { "send", GET }, { "await_heads", 1 }, { "reset" }, { "await_script", 1 } }, max_ms = 400 },
  { name = "the client resets within the response", connections = 1, heads = 1,
    backend = { { { "read_head" }, { "send", OK .. "Content-Length: 10\r\n\r\nhello" }, { "await_client", 20 }, { "wait" } } },
    client = { { "send", GET }, { "await_heads", 1 }, { "await_bytes", 20 }, { "reset" }, { "await_script", 1 } }, max_ms = 400 },
  { name = "the client closes within its body", connections = 1, heads = 1, backend = { { { "read_head" }, { "wait" } } },
    client = { { "send", POST_BIG_HEAD }, { "await_heads", 1 }, { "close" }, { "await_script", 1 } }, max_ms = 400 },
}
