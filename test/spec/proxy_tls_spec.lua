-- PROXY headers together with TLS: in clear in front of the handshake, and what they say of TLS.
local h = require "test.support.harness"
local haproxy = require "test.support.haproxy"
local tls = require "test.support.tls"

if not h.has_binary() then
  describe("PROXY headers and TLS", function() pending "no binary: set MOONGATE_BIN" end)
  return
end

local GET = "GET %s HTTP/1.1\r\nHost: h.example\r\n\r\n"
local set, site, me

setup(function()
  set = tls.certs()
  if not set then return end
  site = set:issue { name = "site", sans = "DNS:localhost,IP:127.0.0.1" }
  me = set:issue { name = "me", sans = "DNS:me.example" }
  set:write("both.pem", set:read "site.crt" .. set:read "site.key") -- as HAProxy wants it
end)

teardown(function()
  if set then set:remove() end
end)

local function test(body) return tls.test(function() return set end, body) end

local function start(address, upstream, options)
  options = options or {}
  local listener = { port = 0, address = "127.0.0.1" }
  for key, value in pairs(options.listener or {}) do listener[key] = value end
  return h.gateway { config = ([[
local moongate = require "moongate"
moongate.settings { workers = 1, timeouts = { connect = 2 } }
moongate.listener %s
moongate.upstream { name = "b", endpoints = { "%s" }, %s }
moongate.route { path = "/", backends = "b"%s }
]]):format(h.literal(listener), address, upstream, options.route or "") }
end

describe("PROXY headers for an upstream with TLS", function()
  it("go out in clear, in front of the handshake", test(function()
    local backend = h.backend(function(connection)
      connection:read_until "\n"
      connection:wait_end()
    end)
    for _, version in ipairs { "v1", "v2" } do
      local gateway = start(backend:address(), ([[proxy_protocol = "%s", tls = { ca = "%s" }]]):format(version, set.ca))
      local client = gateway:connect { source = "127.0.0.7" }
      client:send(GET:format "/")
      local index = version == "v1" and 1 or 2
      backend:wait_connections(index)
      local peer = backend.connections[index]
      peer:wait_total(60)
      local bytes = peer:bytes()
      local header = version == "v1" and ("PROXY TCP4 127.0.0.7 127.0.0.1 %d %d\r\n"):format(client:local_port(), gateway.port)
        or "\r\n\r\n\0\r\nQUIT\n\33\17\0\12\127\0\0\7\127\0\0\1"
      assert.equal(header, bytes:sub(1, #header))
      local behind = bytes:sub((version == "v1" and #header or 28) + 1)
      assert.equal("\22\3\1", behind:sub(1, 3)) -- a record of the handshake
      client:close()
    end
  end))

  it("are understood by HAProxy, and the link serves that client connection alone", test(function()
    local backend, probe, port = h.backend(), h.dead_port(), h.dead_port()
    if not haproxy.start(h, probe, ([[
frontend probe
  bind 127.0.0.1:%d
  http-request return status 200
frontend in
  bind 127.0.0.1:%d accept-proxy ssl crt %s
  http-request set-header X-Src %%[src]:%%[src_port]
  http-request set-header X-Tls %%[ssl_fc_protocol]
  default_backend b
backend b
  server s %s
]]):format(probe, port, set:path "both.pem", backend:address())) then return pending "no haproxy" end
    for _, version in ipairs { "v1", "v2" } do
      local gateway = start("127.0.0.1:" .. port, ([[proxy_protocol = "%s", tls = { ca = "%s" }]]):format(version, set.ca))
      for i = 1, 2 do
        local client = gateway:connect { source = "127.0.0." .. (8 + i) }
        for _ = 1, 2 do
          client:send(GET:format "/")
          assert.equal(200, h.read_response(client).status)
          local seen = backend.requests[#backend.requests].headers
          assert.equal(("127.0.0.%d:%d"):format(8 + i, client:local_port()), seen["x-src"])
          assert.equal("TLSv1.3", seen["x-tls"])
        end
        client:close()
      end
      assert.equal(2, gateway:metrics().moongate_upstream_connects_total)
      gateway:stop()
    end
  end))

  it("leave the reasons of failures as they are", test(function()
    local gateway = start("127.0.0.1:" .. h.dead_port(), 'proxy_protocol = "v2", tls = {}')
    local response = gateway:get "/"
    assert.equal(502, response.status)
    assert.truthy(response.body:find "refused the connection", response.body)
    local mute = start("127.0.0.1:" .. h.black_hole(), 'proxy_protocol = "v2", tls = {}') -- connecting to it never ends
    local client = mute:connect()
    client:send(GET:format "/")
    assert.equal(504, h.read_response(client).status)
  end))
end)
