-- gRPC: calls by service and method, a rule whose refusal is told as gRPC tells it, browsers by gRPC-Web, and a backend that is
-- asked for its health.
--
--   BACKEND=127.0.0.1:50051 moongate run scripts/grpc.lua      any gRPC server with the health service
--   curl -i --http2-prior-knowledge 127.0.0.1:8080/shop.Admin/Reset -H 'Content-Type: application/grpc' -d ''
--                                                              200, grpc-status: 7, grpc-message: not for you
--   the same for /shop.Users/Get                               grpc-status: 12, no route matches
--
-- Deadlines need no configuration: `grpc-timeout` of a call bounds it, and goes on to the backend shortened.

local moongate = require "moongate"

moongate.listener { port = tonumber(os.getenv "PORT" or 8080), address = "127.0.0.1" }
moongate.upstream {
  name = "shop", endpoints = { os.getenv "BACKEND" or "127.0.0.1:50051" }, protocol = "http2",
  health = { grpc = true, interval = 1 },
}

moongate.route {
  grpc = { service = "shop.Orders" }, backends = "shop", timeouts = { request = 60 },
  plugins = {
    { "cors", origins = { "*" }, methods = { "POST" }, headers = { "*" } },
    { "grpc-web" },
  },
}
moongate.route {
  grpc = { service = "shop.Admin", method = { regex = "(Reset|Delete.*)" } }, backends = "shop",
  access = function(exchange)
    if exchange.request.headers.authorization ~= "Bearer let-me-in" then
      exchange:respond(403, "not for you")
    end
  end,
}
moongate.route { grpc = { service = "grpc.health.v1.Health" }, backends = "shop" }
