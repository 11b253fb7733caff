-- PROXY headers: of proxies in front of a listener, and for the endpoints of an upstream.
local h = require "test.support.harness"
local haproxy = require "test.support.haproxy"

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

-- Sends bytes on a connection of its own, which must end without an answer.
local function closes(gateway, bytes, shuts)
  local client = gateway:connect()
  if #bytes > 0 then client:send(bytes) end
  if shuts then client:shutdown() end
  local answer = client:read_all()
  assert.equal("", answer)
  client:close()
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
      ("x"):rep(100000),
    } do
      closes(gateway, bytes)
    end
    assert.equal(7, refused(gateway, "proxy_malformed"))
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
      lines = lines .. ("frontend f%d\n  bind 127.0.0.1:%d\n  unique-id-format %%Ts\n  default_backend b%d\nbackend b%d\n  server s 127.0.0.1:%d %s\n")
        :format(i, ports[i], i, i, gateway.port, option)
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
        "proxy_protocol.-same port, has another",
    } do
      local result = check(text)
      assert.equal(1, result.code, text)
      assert.is_not_nil(result.stderr:find(wanted), result.stderr)
    end
  end))
end)
