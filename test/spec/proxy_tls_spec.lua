-- PROXY headers together with TLS: in clear in front of the handshake, and what they say of TLS.
local h = require "test.support.harness"
local haproxy = require "test.support.haproxy"
local http2 = require "test.support.http2"
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

  it("go before TLS of TCP routes as well", test(function()
    local backend, probe, port = h.backend(), h.dead_port(), h.dead_port()
    if not haproxy.start(h, probe, ([[
frontend probe
  bind 127.0.0.1:%d
  http-request return status 200
frontend in
  bind 127.0.0.1:%d accept-proxy ssl crt %s
  http-request set-header X-Src %%[src]:%%[src_port]
  default_backend b
backend b
  server s %s
]]):format(probe, port, set:path "both.pem", backend:address())) then return pending "no haproxy" end
    local gateway = h.gateway { config = ([[
local moongate = require "moongate"
moongate.settings { workers = 1 }
moongate.listener { port = 0, address = "127.0.0.1", protocol = "tcp", name = "t" }
moongate.upstream { name = "b", endpoints = { "127.0.0.1:%d" }, proxy_protocol = "v2", tls = { ca = %q } }
moongate.route { listeners = { "t" }, backends = "b" }
]]):format(port, set.ca) }
    local client = gateway:connect { source = "127.0.0.11" }
    client:send(GET:format "/")
    assert.equal(200, h.read_response(client).status)
    assert.equal("127.0.0.11:" .. client:local_port(), backend.requests[1].headers["x-src"])
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

-- ---- what version 2 carries

local SIGNATURE = "\r\n\r\n\0\r\nQUIT\n"

local function u16(value) return string.char(math.floor(value / 256), value % 256) end

local function tlv(kind, value) return string.char(kind) .. u16(#value) .. value end

local function header(tlvs)
  local rest = "\192\0\2\7\198\51\100\2\220\4\1\187" .. (tlvs or "")
  return SIGNATURE .. "\33\17" .. u16(#rest) .. rest
end

-- The TLVs in bytes, by type.
local function read_tlvs(bytes)
  local out, at = {}, 1
  while at + 2 <= #bytes do
    local len = bytes:byte(at + 1) * 256 + bytes:byte(at + 2)
    out[bytes:byte(at)] = bytes:sub(at + 3, at + 2 + len)
    at = at + 3 + len
  end
  assert.equal(#bytes + 1, at)
  return out
end

-- A backend that expects a header of version 2 over IPv4: .tlvs lists what was in each.
local function reading_backend()
  local self
  self = h.backend(function(connection)
    local front = connection:read(16)
    if not front then return end
    local rest = connection:read(front:byte(15) * 256 + front:byte(16))
    self.tlvs[#self.tlvs + 1] = read_tlvs(rest:sub(13))
    while true do
      if not connection:read_request() then return end
      connection:send "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    end
  end)
  self.tlvs = {}
  return self
end

local function https(client)
  return { protocol = "https", tls = { certificates = { site }, client = client } }
end

describe("a PROXY header of version 2 for an upstream", function()
  it("tells of the client's TLS: host name, protocol, version, cipher", test(function()
    local backend = reading_backend()
    local gateway = start(backend:address(), 'proxy_protocol = "v2"', { listener = https() })
    assert.equal("ok", (tls.curl(gateway, set.ca, "localhost", "--tls-max 1.2 --http1.1")))
    assert.equal("ok", (tls.curl(gateway, set.ca, "localhost", "--http2")))
    local first, second = backend.tlvs[1], backend.tlvs[2]
    assert.equal("localhost", first[2])
    assert.equal("http/1.1", first[1])
    assert.equal("h2", second[1])
    assert.equal("\1\0\0\0\1", first[0x20]:sub(1, 5)) -- TLS, no certificate
    local within = read_tlvs(first[0x20]:sub(6))
    assert.equal("TLSv1.2", within[0x21])
    assert.truthy(within[0x23]:find "^ECDHE%-ECDSA%-")
    assert.is_nil(within[0x22])
    assert.equal("TLSv1.3", read_tlvs(second[0x20]:sub(6))[0x21])
    assert.is_nil(first[5])
    assert.is_nil(first[3])
  end))

  it("tells of the client's certificate once it is accepted", test(function()
    local backend = reading_backend()
    local gateway = start(backend:address(), 'proxy_protocol = "v2"',
      { listener = https { verify = "optional", ca = set.ca } })
    assert.equal("ok", (tls.curl(gateway, set.ca, "localhost", ("--cert %s --key %s"):format(me.cert, me.key))))
    assert.equal("ok", (tls.curl(gateway, set.ca, "localhost")))
    assert.equal("\7\0\0\0\0", backend.tlvs[1][0x20]:sub(1, 5))
    assert.equal("me", read_tlvs(backend.tlvs[1][0x20]:sub(6))[0x22])
    assert.equal("\1\0\0\0\1", backend.tlvs[2][0x20]:sub(1, 5))
  end))

  it("has the id of the exchange and a checksum where it is asked for", test(function()
    local backend = reading_backend()
    local gateway = start(backend:address(), 'proxy_protocol = { version = "v2", unique_id = true, crc32c = true }',
      { route = ', header_filter = function(exchange) exchange.response.headers["x-id"] = exchange.id end' })
    local response = gateway:get "/"
    assert.equal(response.headers["x-id"], backend.tlvs[1][5])
    assert.equal(4, #backend.tlvs[1][3])
  end))

  it("passes on what a header in front has said, but for what only its sender's host understands", test(function()
    local backend = reading_backend()
    local gateway = start(backend:address(), 'proxy_protocol = { version = "v2", unique_id = true }',
      { listener = { proxy_protocol = { trusted = { "127.0.0.1" } } } })
    local ssl = "\1\0\0\0\1" .. tlv(0x21, "TLSv1.3")
    local client = gateway:connect()
    client:send(header(tlv(2, "a.example") .. tlv(5, "id-1") .. tlv(4, "xx") .. tlv(0x20, ssl) .. tlv(0x30, "ns") ..
      tlv(0xea, "\1vpce-1") .. tlv(0xe3, "own")) .. GET:format "/")
    assert.equal(200, h.read_response(client).status)
    assert.same({ [2] = "a.example", [5] = "id-1", [0x20] = ssl, [0xea] = "\1vpce-1", [0xe3] = "own" }, backend.tlvs[1])
    client:close()
    -- the bound of a header: what does not fit is left out, the rest is there
    client = gateway:connect()
    client:send(header(tlv(0xe0, ("x"):rep(4000)) .. tlv(0xe1, "y")) .. GET:format "/")
    assert.equal(200, h.read_response(client).status)
    assert.equal("y", backend.tlvs[2][0xe1])
  end))

  it("names our own handshake, where there was one, in the place of an earlier one", test(function()
    local backend, port, probe = reading_backend(), h.dead_port(), h.dead_port()
    local listener = https()
    listener.proxy_protocol = { trusted = { "127.0.0.1" } }
    local gateway = start(backend:address(), 'proxy_protocol = "v2"', { listener = listener })
    if not haproxy.start(h, probe, ([[
listen probe
  bind 127.0.0.1:%d
  http-request return status 200
listen front
  mode tcp
  bind 127.0.0.1:%d
  server s 127.0.0.1:%d send-proxy-v2-ssl-cn proxy-v2-options authority
]]):format(probe, port, gateway.port)) then return pending "no haproxy" end
    assert.equal("ok", (tls.curl({ port = port }, set.ca, "localhost")))
    assert.equal("localhost", backend.tlvs[1][2])
    assert.equal("\1", backend.tlvs[1][0x20]:sub(1, 1))
  end))

  it("is understood by HAProxy", test(function()
    local backend, probe, port = h.backend(), h.dead_port(), h.dead_port()
    if not haproxy.start(h, probe, ([[
frontend probe
  bind 127.0.0.1:%d
  http-request return status 200
frontend in
  bind 127.0.0.1:%d accept-proxy
  http-request set-header X-Authority %%[fc_pp_authority]
  http-request set-header X-Unique %%[fc_pp_unique_id]
  http-request set-header X-Src %%[src]
  default_backend b
backend b
  server s %s
]]):format(probe, port, backend:address())) then return pending "no haproxy" end
    local gateway = start("127.0.0.1:" .. port, 'proxy_protocol = { version = "v2", unique_id = true, crc32c = true }', {
      listener = https(),
      route = ', header_filter = function(exchange) exchange.response.headers["x-id"] = exchange.id end',
    })
    local out = tls.curl(gateway, set.ca, "localhost", "-i --interface 127.0.0.6")
    local seen = backend.requests[1].headers
    assert.equal("localhost", seen["x-authority"])
    assert.equal(out:match "x%-id: (%x+)", seen["x-unique"])
    assert.equal("127.0.0.6", seen["x-src"])
  end))

  it("is described wrongly: the check says so", test(function()
    for text, wanted in pairs {
      ['{ version = "v1", crc32c = true }'] = 'proxy_protocol.crc32c: has no place in a header of version "v1"',
      ['{ version = "v1", unique_id = true }'] = 'proxy_protocol.unique_id: has no place in a header of version "v1"',
      ["{ crc32c = true }"] = "proxy_protocol.version: missing",
      ['{ version = "v3" }'] = 'proxy_protocol.version: found "v3"',
      ['"v3"'] = 'proxy_protocol: found "v3"',
      ['{ version = "v2", tlvs = true }'] = "proxy_protocol.tlvs: unknown key",
    } do
      local path = h.write_file(('require("moongate").upstream { name = "b", endpoints = { "127.0.0.1:1" }, proxy_protocol = %s }')
        :format(text))
      local result = h.exec { "check", path }
      assert.equal(1, result.code, text)
      assert.truthy(result.stderr:find(wanted, 1, true), result.stderr)
    end
  end))
end)

describe("a script", function()
  local function telling(listener)
    return h.gateway { config = ([[
local moongate, json, kept = require "moongate", require "moongate.json", nil
moongate.settings { workers = 1 }
moongate.listener %s
moongate.route { path = "/", access = function(exchange)
  local proxy, destination = exchange.request.proxy, exchange.request.destination
  if exchange.request.path == "/kept" then
    kept = kept or proxy
    local value, err = kept:tlv(2)
    exchange:respond(200, tostring(value) .. " " .. tostring(err))
  end
  local own = proxy and proxy:tlv(0xe3)
  if proxy then proxy.handle = nil end
  exchange:respond(200, json.encode { proxy = proxy, destination = destination, own = own })
end }
]]):format(h.literal(listener)) }
  end

  local function ask(gateway, front, path)
    local client = gateway:connect()
    client:send(front .. GET:format(path or "/"))
    local body = h.read_response(client).body
    client:close()
    return path and body or require("cjson").decode(body), client
  end

  it("sees what a PROXY header said", test(function()
    local gateway = telling { port = 0, address = "127.0.0.1", proxy_protocol = { trusted = { "127.0.0.1" } } }
    local ssl = "\7\0\0\0\0" .. tlv(0x21, "TLSv1.3") .. tlv(0x22, "me") .. tlv(0x23, "C") .. tlv(0x24, "S") .. tlv(0x25, "K")
    local said = ask(gateway, header(tlv(1, "h2") .. tlv(2, "a.example") .. tlv(5, "id-1") .. tlv(0x20, ssl) ..
      tlv(0x30, "ns") .. tlv(0xea, "\1vpce-1") .. tlv(0xe3, "own")))
    assert.equal("127.0.0.1", said.proxy.address)
    assert.is_number(said.proxy.port)
    said.proxy.port = nil
    assert.same({ address = "127.0.0.1", version = 2, alpn = "h2", authority = "a.example", unique_id = "id-1", netns = "ns",
      vpc_endpoint = "vpce-1", tls = { version = "TLSv1.3", cn = "me", cipher = "C", signature = "S", key = "K",
        certificate = true, verified = true } }, said.proxy)
    assert.equal("own", said.own)
    assert.same({ address = "198.51.100.2", port = 443 }, said.destination)
    said = ask(gateway, "PROXY TCP6 2001:db8::7 2001:db8::8 5 6\r\n")
    assert.equal(1, said.proxy.version)
    assert.is_nil(said.proxy.tls)
    assert.same({ address = "2001:db8::8", port = 6 }, said.destination)
    said = ask(gateway, header(tlv(0x20, "\0\0\0\0\1"))) -- the client spoke in plain
    assert.is_nil(said.proxy.tls)
    said = ask(gateway, "PROXY UNKNOWN\r\n")
    assert.is_nil(said.proxy)
    assert.same({ address = "127.0.0.1", port = gateway.port }, said.destination)
  end))

  it("sees it in every stream of HTTP/2", test(function()
    local gateway = telling { port = 0, address = "127.0.0.1", proxy_protocol = { trusted = { "127.0.0.1" } } }
    local stream = gateway:connect()
    stream:send(header(tlv(2, "a.example")))
    local client = http2.connect(stream)
    for id = 1, 5, 2 do client:request(id, { [":path"] = "/" }) end
    for id = 1, 5, 2 do
      assert.equal("a.example", require("cjson").decode(client:response(id).body).proxy.authority)
    end
  end))

  it("sees nothing where there was none, and nothing of an exchange that is over", test(function()
    local gateway = telling { port = 0, address = "127.0.0.1" }
    assert.same({ destination = { address = "127.0.0.1", port = gateway.port } }, ask(gateway, ""))
    gateway = telling { port = 0, address = "127.0.0.1", proxy_protocol = { trusted = { "127.0.0.1" } } }
    assert.equal("first nil", (ask(gateway, header(tlv(2, "first")), "/kept")))
    assert.equal("nil exchange ended", (ask(gateway, header(tlv(2, "second")), "/kept")))
  end))

  it("reads what HAProxy says", test(function()
    local probe, port = h.dead_port(), h.dead_port()
    local gateway = telling { port = 0, address = "127.0.0.1", proxy_protocol = { trusted = { "127.0.0.1" } } }
    if not haproxy.start(h, probe, ([[
listen probe
  bind 127.0.0.1:%d
  http-request return status 200
frontend front
  bind 127.0.0.1:%d ssl crt %s alpn http/1.1 ca-file %s verify optional
  unique-id-format id-%%pid
  default_backend b
backend b
  server s 127.0.0.1:%d send-proxy-v2 proxy-v2-options ssl,cert-cn,ssl-cipher,authority,unique-id,crc32c
]]):format(probe, port, set:path "both.pem", set.ca, gateway.port)) then return pending "no haproxy" end
    local out = tls.curl({ port = port }, set.ca, "localhost", ("--cert %s --key %s"):format(me.cert, me.key))
    local proxy = require("cjson").decode(out).proxy
    assert.equal("localhost", proxy.authority)
    assert.truthy(proxy.unique_id:find "^id%-%d+$")
    assert.same({ version = "TLSv1.3", cn = "me", cipher = "TLS_AES_256_GCM_SHA384", certificate = true, verified = true }, proxy.tls)
  end))
end)
