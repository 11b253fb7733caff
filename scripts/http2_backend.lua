-- Speaks HTTP/2 to a backend: many requests share one connection, and trailers pass. Here the backend is the gateway itself.
--
--   curl -s 127.0.0.1:8080/                                  Via: 1.1 moongate, then 2.0 moongate: the second hop was HTTP/2
--   curl -s 127.0.0.1:8080/ --http2-prior-knowledge          Via: 2.0 moongate, twice
--   curl -s 127.0.0.1:8080/ -d 'a body'                      the same with a body
--
-- From Kong: grpc and grpcs, for HTTP/2 to anything else there is nothing. From OpenResty: grpc_pass.

local moongate = require "moongate"

local port = tonumber(os.getenv "PORT" or 8080)

moongate.settings { via = true }
moongate.listener { port = port, address = "127.0.0.1" }

-- In clear the backend has to be known to speak HTTP/2. With `tls` it is asked for by ALPN; protocol = "auto" takes what comes of it.
moongate.upstream {
  name = "backend", endpoints = { "127.0.0.1:" .. port }, protocol = "http2",
  limits = { streams = 100 }, -- on one connection; one more opens another
}
moongate.upstream { name = "echo", endpoints = { "builtin:echo" } }

moongate.route {
  name = "front", path = "/", backends = "backend",
  plugins = { { "request-headers", set = { ["x-hop"] = "2" } } },
}
moongate.route { name = "back", path = "/", headers = { ["x-hop"] = "2" }, backends = "echo" }
