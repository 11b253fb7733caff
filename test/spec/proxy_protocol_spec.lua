-- PROXY headers: of proxies in front of a listener, and for the endpoints of an upstream.
local h = require "test.support.harness"
local haproxy = require "test.support.haproxy"
local tls = require "test.support.tls"

if not h.has_binary() then
  describe("the PROXY protocol", function() pending "no binary: set MOONGATE_BIN" end)
  return
end

local GET = "GET %s HTTP/1.1\r\nHost: h.example\r\n\r\n"
local V1 = "PROXY TCP4 192.0.2.7 198.51.100.2 56324 443\r\n"
local SIGNATURE = "\r\n\r\n\0\r\nQUIT\n"
local BLOCK4 = "\192\0\2\7\198\51\100\2\220\4\1\187"
local V2 = SIGNATURE .. "\33\17\0\12" .. BLOCK4
local LOCAL = SIGNATURE .. "\32\0\0\0"

local function start(options)
  options = options or {}
  local backend = h.backend()
  local gateway = h.gateway {
    backend = backend, settings = options.settings,
    listener = { proxy_protocol = { trusted = options.trusted or { "127.0.0.1" } }, name = "front" },
  }
  return gateway, backend
end

local function refused(gateway, reason)
  return gateway:metrics()[('moongate_connections_refused_total{reason="%s"}'):format(reason)]
end

-- Sends bytes on a connection of its own, which must end without an answer: how. Who is not waited for may see a reset.
local function closes(gateway, bytes, shuts)
  local client = gateway:connect()
  if #bytes > 0 then client:send(bytes) end
  if shuts then client:shutdown() end
  local ending = client:wait_end()
  assert.equal("", client:read_all())
  client:close()
  return ending
end

describe("a PROXY header before requests", function()
  it("says who the client is, in both versions, on kept connections and pipelined", h.test(function()
    local gateway, backend = start { settings = { access_log = { file = "stdout", fields = { "client", "port" } } } }
    for i, header in ipairs { V1, V2, SIGNATURE .. "\33\17\0\17" .. BLOCK4 .. "\1\0\2h2" } do
      local client = gateway:connect()
      client:send(header .. GET:format "/a" .. GET:format "/b")
      assert.equal(200, h.read_response(client).status)
      assert.equal(200, h.read_response(client).status)
      client:send(GET:format "/c")
      assert.equal(200, h.read_response(client).status)
      for k = 3 * i - 2, 3 * i do
        assert.equal("192.0.2.7", backend.requests[k].headers["x-forwarded-for"])
      end
      client:close()
    end
    gateway:expect_quiet()
    gateway:stop()
    local _, count = gateway.stdout:gsub('{"client":"192.0.2.7","port":56324}', "")
    assert.equal(9, count)
  end))

  it("may say IPv6, and that it speaks for itself", h.test(function()
    local gateway, backend = start()
    local rows = {
      { "PROXY TCP6 2001:db8::7 ::1 5 6\r\n", "2001:db8::7" },
      { SIGNATURE .. "\33\33\0\36" .. ("\32\1\13\184" .. ("\0"):rep(11) .. "\9") .. ("\0"):rep(16) .. "\0\5\0\6",
        "2001:db8::9" },
      { "PROXY UNKNOWN\r\n", "127.0.0.1" }, { LOCAL, "127.0.0.1" },
      { SIGNATURE .. "\32\17\0\12" .. BLOCK4, "127.0.0.1" }, -- LOCAL: the addresses are to be ignored
      { SIGNATURE .. "\33\49\0\216" .. ("\0"):rep(216), "127.0.0.1" }, -- unix sockets
    }
    for i, row in ipairs(rows) do
      local client = gateway:connect()
      client:send(row[1] .. GET:format "/")
      assert.equal(200, h.read_response(client).status)
      assert.equal(row[2], backend.requests[i].headers["x-forwarded-for"])
      client:close()
    end
    gateway:expect_quiet()
  end))

  it("may come byte by byte", h.test(function()
    local gateway, backend = start()
    for _, header in ipairs { V1, V2 } do
      local client = gateway:connect()
      local pieces = {}
      for byte in (header .. "GET /"):gmatch "." do pieces[#pieces + 1] = byte end
      client:send_pieces(pieces)
      client:send " HTTP/1.1\r\nHost: h.example\r\n\r\n"
      assert.equal(200, h.read_response(client).status)
      client:close()
    end
    assert.equal("192.0.2.7", backend.requests[2].headers["x-forwarded-for"])
  end))

  it("is what the list of connections goes by", h.test(function()
    local gateway = start()
    local client = gateway:connect()
    client:send(V1 .. GET:format "/")
    h.read_response(client)
    local row = gateway:ask_json("/connections").connections[1]
    assert.equal("192.0.2.7:56324", row.client)
  end))

  it("must be there, whole, well-formed and in time, and each failure is counted", h.test(function()
    local gateway, backend = start { settings = { timeouts = { request_head = 0.3 } } }
    for _, bytes in ipairs {
      GET:format "/", "PROXY TCP4 192.0.2.7 198.51.100.2 56324\r\n" .. GET:format "/", "PROXY " .. ("x"):rep(120),
      SIGNATURE .. "\49\17\0\12" .. BLOCK4, SIGNATURE .. "\33\17\255\255" .. BLOCK4,
      SIGNATURE .. "\33\17\0\19" .. BLOCK4 .. "\3\0\4abcd", -- a wrong checksum
      SIGNATURE .. "\33\17\0\19" .. BLOCK4 .. "\32\0\4\1\0\0\0",         -- TLS without its front
      SIGNATURE .. "\33\17\0\23" .. BLOCK4 .. "\32\0\8\1\0\0\0\0\34\0\9", -- a TLV in it that does not fit
      SIGNATURE .. "\33\17\0\144" .. BLOCK4 .. "\5\0\129" .. ("i"):rep(129), -- an id beyond its bound
      SIGNATURE .. "\33\17\0\14" .. BLOCK4 .. "\1\0", -- half a TLV
    } do
      assert.equal("eof", closes(gateway, bytes))
    end
    assert.equal(10, refused(gateway, "proxy_malformed"))
    local client = gateway:connect() -- what is more than can be thrown away in one go may end by a reset
    client:send(("x"):rep(100000))
    assert.equal("", client:read_all())
    assert.equal(11, refused(gateway, "proxy_malformed"))
    closes(gateway, "PROXY TCP4 192.0.2.7", true)
    closes(gateway, V2:sub(1, 20), true)
    closes(gateway, "", true)
    assert.equal(3, refused(gateway, "proxy_cut"))
    h.takes(290, 1500, function() closes(gateway, "") end)
    h.takes(290, 1500, function() closes(gateway, V2:sub(1, 27)) end)
    assert.equal(2, refused(gateway, "proxy_timeout"))
    assert.equal(0, #backend.requests)
    gateway:expect_quiet()
  end))

  it("is taken from trusted networks alone: others are not served at all", h.test(function()
    local gateway, backend = start { trusted = { "10.0.0.0/8", "127.0.0.2/31" } }
    closes(gateway, V1 .. GET:format "/")
    closes(gateway, GET:format "/")
    closes(gateway, "")
    assert.equal(3, refused(gateway, "proxy_untrusted"))
    local client = gateway:connect { source = "127.0.0.3" }
    client:send(V1 .. GET:format "/")
    assert.equal(200, h.read_response(client).status)
    assert.equal("192.0.2.7", backend.requests[1].headers["x-forwarded-for"])
  end))

  it("is asked for by every protocol alike: nothing of the others passes to a backend", h.test(function()
    local set = tls.certs()
    local listeners = {
      { protocol = "tcp", extra = 'm.route { listeners = { "front" }, backends = "b" }' },
      set and { protocol = "https", extra = 'm.route { path = "/", backends = "b" }',
        tls = { certificates = { set:issue { name = "site" } } } },
    }
    for _, kind in ipairs(listeners) do
      for _, trusted in ipairs { "127.0.0.1", "10.0.0.0/8" } do
        local backend = h.backend()
        local listener = { port = 0, address = "127.0.0.1", name = "front", protocol = kind.protocol, tls = kind.tls,
          proxy_protocol = { trusted = { trusted } } }
        local gateway = h.gateway { config = ('local m = require "moongate"\nm.settings { workers = 1 }\nm.listener %s\n' ..
          'm.upstream { name = "b", endpoints = { "%s" } }\n%s\n'):format(h.literal(listener), backend:address(), kind.extra) }
        for _, bytes in ipairs { GET:format "/", "\22\3\1\0\5hello", V1:sub(1, -3) .. "\n", SIGNATURE .. "\49\17\0\12" .. BLOCK4 } do
          local ending = closes(gateway, bytes)
          if trusted == "127.0.0.1" then assert.equal("eof", ending) end
        end
        assert.equal(4, refused(gateway, trusted == "127.0.0.1" and "proxy_malformed" or "proxy_untrusted"))
        assert.equal(0, #backend.connections)
        gateway:expect_quiet()
      end
    end
    if set then set:remove() end
  end))

  it("may be under way when the gateway drains or stops", h.test(function()
    local gateway = start { settings = { timeouts = { drain = 0.3 } } }
    local client = gateway:connect()
    client:send(V1:sub(1, 10))
    h.pass(20)
    gateway:signal "sigterm"
    h.takes(0, 2000, function() client:wait_end() end)
  end))

  it("is understood as HAProxy writes it", h.test(function()
    local gateway, backend = start()
    local ports = { h.dead_port(), h.dead_port() }
    local lines = ""
    for i, option in ipairs { "send-proxy", "send-proxy-v2 proxy-v2-options crc32c,unique-id" } do
      lines = lines .. ("frontend f%d\n  bind 127.0.0.1:%d\n  unique-id-format %%Ts\n  default_backend b%d\n" ..
        "backend b%d\n  server s 127.0.0.1:%d %s\n"):format(i, ports[i], i, i, gateway.port, option)
    end
    if not haproxy.start(h, ports[1], lines) then return pending "no haproxy" end
    for i, port in ipairs(ports) do
      local client = gateway:connect { port = port, source = "127.0.0." .. (4 + i) }
      client:send(GET:format "/")
      assert.equal(200, h.read_response(client).status)
      assert.equal("127.0.0." .. (4 + i), backend.requests[i].headers["x-forwarded-for"])
      client:close()
    end
  end))
end)

describe("the check of proxy_protocol", function()
  local function check(text)
    local path = h.write_file('local m = require "moongate"\nm.upstream { name = "b", endpoints = { "builtin:echo" } }\n' ..
      'm.route { path = "/", backends = "b" }\n' .. text)
    return h.exec { "check", path }
  end

  it("names what is wrong", h.test(function()
    for text, wanted in pairs {
      ['m.listener { port = 1, proxy_protocol = { trusted = { "10.0.0.1/8" } } }'] = "proxy_protocol.trusted%[1%].-not a network",
      ['m.listener { port = 1, proxy_protocol = { trusted = {} } }'] = "proxy_protocol.trusted.-nobody may connect",
      ['m.listener { port = 1, proxy_protocol = {} }'] = "proxy_protocol.trusted.-missing",
      ['m.listener { port = 1, proxy_protocol = true }'] = "proxy_protocol.-expected { trusted",
      ['m.listener { port = 1, hostname = "a.b", proxy_protocol = { trusted = { "::1" } } }\nm.listener { port = 1 }'] =
        "proxy_protocol.-has another on this port",
    } do
      local result = check(text)
      assert.equal(1, result.code, text)
      assert.is_not_nil(result.stderr:find(wanted), result.stderr)
    end
  end))
end)

-- A backend that expects a PROXY header of version 1 or 2 on each connection: .headers lists them.
local function proxied_backend(version)
  local self
  self = h.backend(function(connection)
    local header
    if version == "v1" then
      header = connection:read_until "\r\n"
    else
      header = connection:read(16)
      header = header and header .. connection:read(header:byte(15) * 256 + header:byte(16))
    end
    if not header then return end
    self.headers[#self.headers + 1] = header
    while true do
      local request = connection:read_request()
      if not request then return end
      connection:send(("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d"):format(#self.headers))
    end
  end)
  self.headers = {}
  return self
end

local function start_out(version, backend, options)
  options = options or {}
  return h.gateway { config = ([[
local m = require "moongate"
m.settings { workers = 1, timeouts = { upstream_idle = %s } }
m.listener { port = 0, address = "127.0.0.1"%s }
m.upstream { name = "b", endpoints = { "%s" }, proxy_protocol = "%s"%s }
m.route { path = "/", backends = "b" }
]]):format(options.idle or 60, options.listener or "", backend:address(), version, options.upstream or "") }
end

describe("PROXY headers for an upstream", function()
  it("name the client, and the link serves that client connection alone", h.test(function()
    for _, version in ipairs { "v1", "v2" } do
      local backend = proxied_backend(version)
      local gateway = start_out(version, backend)
      local clients = {}
      for i = 1, 3 do
        local client = gateway:connect { source = "127.0.0." .. (1 + i) }
        clients[i] = client
        for _ = 1, 3 do
          client:send(GET:format "/")
          local response = h.read_response(client)
          assert.equal(200, response.status)
          assert.equal(tostring(i), response.body) -- no further connection was made
        end
        local header = backend.headers[i]
        if version == "v1" then
          assert.equal(("PROXY TCP4 127.0.0.%d 127.0.0.1 %d %d\r\n"):format(1 + i, client:local_port(), gateway.port), header)
        else
          assert.equal(SIGNATURE .. "\33\17\0\12\127\0\0" .. string.char(1 + i) .. "\127\0\0\1", header:sub(1, 24))
          assert.equal(client:local_port(), header:byte(25) * 256 + header:byte(26))
        end
      end
      clients[2]:send(GET:format "/")
      h.read_response(clients[2])
      assert.equal(3, #backend.headers)
      assert.equal(3, gateway:metrics().moongate_upstream_idle)
      clients[2]:close() -- its link goes with it
      gateway:wait_metrics("two links", function(m) return m.moongate_upstream_connections_live == 2 end)
      clients[1]:close()
      clients[3]:close()
      gateway:wait_metrics("no link", function(m) return m.moongate_upstream_connections_live == 0 end)
      gateway:expect_quiet()
    end
  end))

  it("pass on what a header in front has said", h.test(function()
    local backend = proxied_backend "v1"
    local gateway = start_out("v1", backend, { listener = ', proxy_protocol = { trusted = { "127.0.0.1" } }' })
    for _, header in ipairs { V2, "PROXY UNKNOWN\r\n" } do
      local client = gateway:connect()
      client:send(header .. GET:format "/")
      assert.equal(200, h.read_response(client).status)
      client:close()
    end
    assert.equal("PROXY TCP4 192.0.2.7 198.51.100.2 56324 443\r\n", backend.headers[1])
    assert.is_not_nil(backend.headers[2]:find "^PROXY TCP4 127%.0%.0%.1 127%.0%.0%.1 ")
  end))

  it("keep within the limits of the upstream", h.test(function()
    local backend = proxied_backend "v2"
    local gateway = start_out("v2", backend, { upstream = ", limits = { connections = 1, pending_timeout = 5 }" })
    local clients = { gateway:connect(), gateway:connect(), gateway:connect() }
    for _ = 1, 2 do
      for _, client in ipairs(clients) do client:send(GET:format "/") end
      for _, client in ipairs(clients) do assert.equal(200, h.read_response(client).status) end
    end
    assert.is_true(gateway:metrics().moongate_upstream_connections_live <= 1)
    assert.is_true(#backend.headers >= 3)
    for _, client in ipairs(clients) do client:close() end
    gateway:wait_metrics("no link", function(m) return m.moongate_upstream_connections_live == 0 end)
  end))

  it("are understood by HAProxy", h.test(function()
    local backend, probe, port = h.backend(), h.dead_port(), h.dead_port()
    if not haproxy.start(h, probe, ([[
frontend probe
  bind 127.0.0.1:%d
  http-request return status 200
frontend in
  bind 127.0.0.1:%d accept-proxy
  http-request set-header X-Src %%[src]:%%[src_port]
  default_backend b
backend b
  server s %s
]]):format(probe, port, backend:address())) then return pending "no haproxy" end
    for _, version in ipairs { "v1", "v2" } do
      local gateway = start_out(version, { address = function() return "127.0.0.1:" .. port end })
      local client = gateway:connect { source = "127.0.0.9" }
      client:send(GET:format "/")
      assert.equal(200, h.read_response(client).status)
      assert.equal("127.0.0.9:" .. client:local_port(), backend.requests[#backend.requests].headers["x-src"])
      client:close()
      gateway:stop()
    end
  end))
end)
