-- Ports that tell protocols apart by the first bytes: TLS, HTTP/2, HTTP/1 and whatever else, servers that speak first included.
local h = require "test.support.harness"
local hello = require "test.support.hello"
local ports = require "test.support.ports"
local tls = require "test.support.tls"

if not h.has_binary() then
  describe("a port that detects", function() pending "no binary: set MOONGATE_BIN" end)
  return
end

local set, site

setup(function()
  set = tls.certs()
  if set then site = set:issue { name = "site", sans = "DNS:site.example" } end
end)

teardown(function()
  if set then set:remove() end
end)

local function test(body) return tls.test(function() return set end, body) end

-- Gives back what comes, with "raw:" before it.
local function raw(connection)
  while true do
    h.loop.wait(connection.changed, 20000, "bytes", function() return connection.pending > 0 or connection:has_ended() end)
    if connection.pending == 0 then break end
    connection:send("raw:" .. connection:take(connection.pending))
  end
  connection:flush()
end

-- Greets, and says over when it was heard.
local function mail(connection)
  connection:send "220 mail\r\n"
  local line = connection:read_until "\r\n"
  if line then connection:send("250 " .. line) end
  connection:read_all()
  connection:flush()
end

local LISTENERS = {
  web = 'm.listener { port = PORT, address = "127.0.0.1", name = "web", detect = true }\n',
  raw = 'm.listener { port = PORT, address = "127.0.0.1", name = "raw", protocol = "tcp", detect = true }\n' ..
    'm.route { listeners = { "raw" }, backends = "raw" }\n',
  pass = 'm.listener { port = PORT, address = "127.0.0.1", name = "pass", protocol = "tls", detect = true, ' ..
    'hostname = "*.example", tls = { mode = "passthrough" } }\nm.route { listeners = { "pass" }, backends = "raw" }\n',
}

local function start(kinds, backend, extra, settings)
  local out = { 'local m = require "moongate"', ("m.settings { workers = 1, %s }"):format(settings or ""),
    'm.upstream { name = "echo", endpoints = { "builtin:echo" } }',
    ('m.upstream { name = "raw", endpoints = { "%s" } }'):format(backend:address()), extra or "" }
  for _, kind in ipairs(kinds) do out[#out + 1] = LISTENERS[kind] end
  if kinds[1] == "web" then out[#out + 1] = 'm.route { listeners = { "web" }, backends = "echo" }' end
  return h.gateway { config = (table.concat(out, "\n"):gsub("PORT", tostring(ports.free()))) }
end

local function detected(gateway, protocol)
  return gateway:metrics()[('moongate_connections_detected_total{protocol="%s"}'):format(protocol)]
end

local function refused(gateway, why)
  return gateway:metrics()[('moongate_connections_refused_total{reason="%s"}'):format(why)]
end

local function ask(gateway, bytes, len)
  local client = gateway:connect()
  client:send(bytes)
  local text = client:read(len)
  client:close()
  return text
end

describe("a port that detects", function()
  it("tells all four apart", test(function()
    local https = ('m.listener { port = PORT, address = "127.0.0.1", name = "web-tls", protocol = "https", detect = true, ' ..
      'hostname = "site.example", tls = { certificates = { { cert = %q, key = %q } } } }\n' ..
      'm.route { listeners = { "web-tls" }, path = "/", backends = "echo" }\n'):format(site.cert, site.key)
    local gateway = start({ "web", "raw", "pass" }, h.backend(raw), https)
    for _ = 1, 2 do
      assert.equal(200, gateway:get("/").status)
      local output = tls.run("curl -sS --max-time 10 --http2-prior-knowledge -w '%%{http_version} %%{http_code}' " ..
        "http://127.0.0.1:%d/ -o /dev/null", gateway.port)
      assert.equal("2 200", output)
      local code
      output, code = tls.curl(gateway, set.ca, "site.example", "-w '%{http_code}' -o /dev/null")
      assert.equal(0, code)
      assert.equal("200", output)
      local bytes = hello.new { sni = "db.example" }
      assert.equal("raw:" .. bytes, ask(gateway, bytes, 4 + #bytes))
      assert.equal("raw:*1\r\n", ask(gateway, "*1\r\n", 8))
    end
    gateway:expect_quiet()
    assert.equal(2, detected(gateway, "http1"))
    assert.equal(2, detected(gateway, "h2"))
    assert.equal(4, detected(gateway, "tls"))
    assert.equal(2, detected(gateway, "opaque"))
    assert.equal(0, detected(gateway, "silent"))
  end))

  it("decides as late as it must and no later", h.test(function()
    local gateway = start({ "web", "raw" }, h.backend(raw))
    local client = gateway:connect() -- a request by hand: silence behind a first byte is no silence
    client:send "G"
    h.pass(250)
    client:send "ET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert.truthy(client:read_all():find "^HTTP/1.1 200")
    client:close()
    assert.equal("raw:HELO x\r\n", ask(gateway, "HELO x\r\n", 12))
    assert.equal("raw:\0", ask(gateway, "\0", 5))
    client = gateway:connect() -- it may become a request, until it ends
    client:send "GE"
    client:shutdown()
    assert.equal("raw:GE", client:read_all())
    client:close()
    -- TLS that nobody here reads is bytes like others
    local bytes = hello.new { sni = "x.example" }
    assert.equal("raw:" .. bytes, ask(gateway, bytes, 4 + #bytes))
    gateway:expect_quiet()
  end))

  it("opens the upstream for who is silent, and does not wait long again", h.test(function()
    local gateway = start({ "web", "raw" }, h.backend(mail))
    local client = gateway:connect()
    h.takes(90, 400, function() assert.equal("220 mail\r\n", client:read(10)) end)
    client:send "HELO me\r\n"
    assert.equal("250 HELO me\r\n", client:read(13))
    client:close()
    for _ = 1, 3 do
      client = gateway:connect()
      local start_ms = h.now_ms()
      assert.equal("220 mail\r\n", client:read(10))
      assert.is_true(h.now_ms() - start_ms < 90 * h.loop.scale)
      client:close()
    end
    assert.equal(200, gateway:get("/").status) -- who speaks is heard, also there
    gateway:expect_quiet()
    assert.equal(4, detected(gateway, "silent"))
    assert.equal(1, detected(gateway, "http1"))
  end))

  it("waits again once a silent client was the first to speak", h.test(function()
    local greets = true
    local backend = h.backend(function(connection)
      if greets then return mail(connection) end
      raw(connection)
    end)
    local gateway = start({ "web", "raw" }, backend)
    local client = gateway:connect()
    assert.equal("220 mail\r\n", client:read(10))
    client:close()
    greets = false
    client = gateway:connect()
    h.loop.wait(backend.changed, 5000, "the upstream to be opened", function() return #backend.connections == 2 end)
    client:send "GET / HTTP/1.1\r\n" -- too late: the connection is the upstream's
    assert.equal("raw:GET / HTTP/1.1\r\n", client:read(20))
    client:close()
    greets = true
    client = gateway:connect()
    h.takes(90, 400, function() assert.equal("220 mail\r\n", client:read(10)) end)
    client:close()
    gateway:expect_quiet()
  end))

  it("remembers who spoke first by destination, where it is told", h.test(function()
    local greets = true
    local backend = h.backend(function(connection)
      if greets then return mail(connection) end
      raw(connection)
    end)
    local gateway = start({}, backend, [[
m.listener { port = PORT, address = "127.0.0.1", name = "web", detect = true, proxy_protocol = { trusted = { "127.0.0.1" } } }
m.listener { port = PORT, address = "127.0.0.1", name = "raw", protocol = "tcp", detect = true,
  proxy_protocol = { trusted = { "127.0.0.1" } } }
m.route { listeners = { "raw" }, backends = "raw" }
m.route { listeners = { "web" }, backends = "echo" }
]])
    local function greeted(to, min_ms, max_ms)
      local client = gateway:connect()
      client:send(("PROXY TCP4 192.0.2.7 %s 56324 %d\r\n"):format(to:match "(.*):(.*)"))
      h.takes(min_ms, max_ms, function() assert.equal("220 mail\r\n", client:read(10)) end)
      client:close()
    end
    local function long(to) greeted(to, 90, 400) end
    local function short(to) greeted(to, 0, 90) end
    long "198.51.100.1:25"
    short "198.51.100.1:25"
    long "198.51.100.2:25"
    long "198.51.100.2:26"
    short "198.51.100.1:25"
    short "198.51.100.2:25"
    greets = false -- one of them has changed its mind
    local client = gateway:connect()
    client:send "PROXY TCP4 192.0.2.7 198.51.100.1 56324 25\r\n"
    h.loop.wait(backend.changed, 5000, "the upstream to be opened", function() return #backend.connections == 7 end)
    client:send "GET / HTTP/1.1\r\n" -- too late: the connection is the upstream's
    assert.equal("raw:GET / HTTP/1.1\r\n", client:read(20))
    client:close()
    greets = true
    long "198.51.100.1:25"
    short "198.51.100.1:25"
    short "198.51.100.2:25"
    gateway:expect_quiet()
  end))

  it("notices an end that came before it looked", h.test(function()
    local gateway = start({}, h.backend(raw), [[
m.listener { port = PORT, address = "127.0.0.1", name = "web", detect = true, proxy_protocol = { trusted = { "127.0.0.1" } } }
m.listener { port = PORT, address = "127.0.0.1", name = "raw", protocol = "tcp", detect = true,
  proxy_protocol = { trusted = { "127.0.0.1" } } }
m.route { listeners = { "raw" }, backends = "raw" }
m.route { listeners = { "web" }, backends = "echo" }
]])
    for bytes, wanted in pairs { [""] = "", GE = "raw:GE", ["\22\3"] = "raw:\22\3" } do
      local client = gateway:connect()
      gateway:frozen(function()
        client:send("PROXY TCP4 192.0.2.7 198.51.100.2 56324 25\r\n" .. bytes)
        client:shutdown()
      end)
      h.takes(0, 90, function() assert.equal(wanted, client:read_all()) end)
      assert.is_nil(client.failure)
      client:close()
    end
    gateway:expect_quiet()
  end))

  it("passes on the end of a client that has said nothing", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_all()
      connection:send "bye"
      connection:flush()
    end)
    local gateway = start({ "web", "raw" }, backend)
    local client = gateway:connect()
    client:shutdown()
    assert.equal("bye", client:read_all())
    client:close()
    gateway:expect_quiet()
  end))

  it("refuses what nobody there takes, and counts why", h.test(function()
    local gateway = start({ "web", "pass" }, h.backend(raw), nil, "timeouts = { request_head = 1 }")
    local client = gateway:connect()
    client:send "\0\1\2"
    assert.truthy(client:read_all():find "^HTTP/1.1 400") -- TLS is spoken there, too
    client:close()
    gateway:wait_metrics("plaintext", function(metrics)
      return metrics['moongate_tls_handshake_failures_total{reason="plaintext"}'] == 1
    end)
    client = gateway:connect()
    client:send(hello.new { sni = "x.org" })
    assert.equal("\21\3\1\0\2\2\112", client:read_all())
    client:close()
    assert.equal(1, refused(gateway, "hello_name"))
    client = gateway:connect()
    client:send "\22\3\1\0\4\2\0\0\0"
    assert.equal("\21\3\1\0\2\2\50", client:read_all())
    client:close()
    assert.equal(1, refused(gateway, "hello_malformed"))
    client = gateway:connect() -- silence is for nobody: there is a deadline
    h.takes(900, 1500, function() client:wait_end() end)
    assert.is_nil(client.failure)
    assert.equal(1, refused(gateway, "first_bytes"))
    gateway:expect_quiet()
  end))

  it("refuses opaque bytes where there are requests alone", h.test(function()
    local port = ports.free()
    local gateway = h.gateway { config = ([[
local m = require "moongate"
m.settings { workers = 1 }
m.listener { port = %d, address = "127.0.0.1", detect = true }
m.upstream { name = "echo", endpoints = { "builtin:echo" } }
m.route { path = "/", backends = "echo" }
]]):format(port) }
    assert.equal(200, gateway:get("/").status)
    local client = gateway:connect()
    client:send(hello.new { sni = "x.org" })
    assert.equal("", client:read_all())
    assert.is_nil(client.failure)
    client:close()
    assert.equal(1, gateway:metrics().moongate_tls_on_plain_total)
    gateway:expect_quiet()
  end))

  it("keeps its connections over a reload that takes a protocol away", h.test(function()
    local backend = h.backend(raw)
    local gateway = start({ "web", "raw" }, backend)
    local client, early = gateway:connect(), gateway:connect()
    client:send "*1"
    assert.equal("raw:*1", client:read(6))
    early:send "G"
    early:flush()
    local file = assert(io.open(gateway.path))
    local text = file:read "*a"
    file:close()
    gateway:rewrite((text:gsub('m.listener { port = %d+, address = "127.0.0.1", name = "raw".-\n.-\n', "")))
    assert.equal(0, gateway:ask("reload").code)
    client:send "*2"
    assert.equal("raw:*2", client:read(6))
    early:send "ET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert.truthy(early:read_all():find "^HTTP/1.1 200")
    client:close()
    early:close()
    assert.equal(200, gateway:get("/").status)
    gateway:expect_quiet()
  end))

  it("is not kept from ending by clients that have said nothing", h.test(function()
    local gateway = start({ "web", "pass" }, h.backend(raw))
    local client, busy = gateway:connect(), gateway:connect()
    busy:send "G"
    busy:flush()
    gateway:wait_metrics("both", function(metrics) return metrics.moongate_connections_live == 2 end)
    gateway:signal "sigterm"
    assert.equal("", client:read_all())
    assert.is_nil(client.failure)
    busy:send "ET / HTTP/1.1\r\nHost: x\r\n\r\n"
    assert.truthy(busy:read_all():find "^HTTP/1.1 200")
    assert.equal(0, gateway:wait_exit(5000))
  end))

  it("has limits for clients before it knows what they speak", h.test(function()
    local gateway = start({ "limited" }, h.backend(raw), ([[
m.listener { port = PORT, address = "127.0.0.1", name = "web", detect = true, limits = { per_client = 1 } }
m.listener { port = PORT, address = "127.0.0.1", name = "raw", protocol = "tcp", detect = true, limits = { per_client = 1 } }
m.route { listeners = { "raw" }, backends = "raw" }
m.route { listeners = { "web" }, backends = "echo" }
]]))
    local first = gateway:connect()
    first:send "G"
    first:flush()
    gateway:wait_metrics("the first", function(metrics) return metrics.moongate_connections_live == 1 end)
    local second = gateway:connect()
    assert.equal("", second:read_all())
    assert.equal(1, refused(gateway, "client_limit"))
    first:close()
    gateway:expect_quiet()
  end))
end)

describe("the check of ports that detect", function()
  local HEAD = 'local m = require "moongate"\nm.upstream { name = "b", endpoints = { "127.0.0.1:1" } }\n'
  local WEB = 'm.listener { port = 1, detect = true }\nm.route { path = "/", backends = "b" }\n'
  local function tcp(keys) return ('m.listener { port = 1, protocol = "tcp", name = "raw", %s }\n'):format(keys or "") end
  local ROUTE = 'm.route { listeners = { "raw" }, backends = "b" }\n'

  it("takes listeners of several protocols on one port, one of each for one host", h.test(function()
    local result = h.exec { "check", (h.write_file(HEAD .. WEB .. tcp "detect = true" .. ROUTE)) }
    assert.equal(0, result.code, result.stderr)
    for text, wanted in pairs {
      [WEB .. tcp() .. ROUTE] = 'detect: the listener of line 3 has another on this port',
      [WEB .. tcp "detect = true" .. tcp('detect = true'):gsub('"raw"', '"x"') .. ROUTE ..
        'm.route { listeners = { "x" }, backends = "b" }\n'] = 'port: 0.0.0.0:1 is taken by the listener of line 5',
      [WEB .. 'm.listener { port = 1, detect = true }\n'] = 'port: 0.0.0.0:1 is taken by the listener of line 3',
      ['m.listener { port = 1, protocol = "udp", name = "raw", detect = true }\n' .. ROUTE] =
        'detect: has no meaning with "udp".-it is for connections',
      ['m.listener { port = 1, detect = 5 }\n'] = 'detect: .-true or false',
    } do
      result = h.exec { "check", (h.write_file(HEAD .. text)) }
      assert.equal(1, result.code, text)
      assert.truthy(result.stderr:find(wanted), text .. "\n" .. result.stderr .. "\nwanted: " .. wanted)
    end
  end))
end)
