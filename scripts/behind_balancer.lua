-- Behind a load balancer that ends TLS and speaks the PROXY protocol: who the client is, whether it came over TLS, and with whose
-- certificate, is what the balancer says.
--
--   curl -i --haproxy-protocol 127.0.0.1:8080/           426: nothing says that the client came over TLS
--
-- Of HAProxy, with `server gateway 127.0.0.1:8080 send-proxy-v2-ssl-cn` behind `bind :443 ssl crt ... ca-file ... verify optional`:
--
--   curl -i https://balancer/                            200; the backend sees X-Forwarded-Proto: https
--   curl -i https://balancer/admin                       403
--   curl -i https://balancer/admin --cert alice.pem      200; the backend sees X-Consumer: alice
--
-- From nginx: $proxy_protocol_tlv_ssl_cn. From HAProxy: fc_pp_tlv.

local moongate = require "moongate"

moongate.listener {
  port = tonumber(os.getenv "PORT" or 8080), address = "127.0.0.1",
  proxy_protocol = { trusted = { "127.0.0.1" } }, -- others are not served at all
}
moongate.upstream { name = "echo", endpoints = { "builtin:echo" } }

-- The client's TLS with the balancer; the headers of a client are no proof of anything.
local function tls_of(exchange)
  local proxy = exchange.request.proxy
  local tls = proxy and proxy.tls
  if not tls then exchange:respond(426, "over TLS, please\n") end
  exchange.request.headers["x-forwarded-proto"] = "https"
  exchange.request.headers["x-consumer"] = nil
  return tls
end

moongate.route { path = "/", backends = "echo", access = tls_of }

moongate.route {
  path = "/admin", backends = "echo",
  access = function(exchange)
    local tls = tls_of(exchange)
    if not tls.verified then exchange:respond(403, "a certificate is needed\n") end
    exchange.request.headers["x-consumer"] = tls.cn
  end,
}
