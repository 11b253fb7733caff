-- Host names as endpoints: resolved, kept fresh, kept when the resolver fails, never in anybody's way.
local h = require "test.support.harness"

-- Backends on one port of several loopback addresses.
local function backends(count)
  local first = h.backend(nil, { host = "127.0.0.2" })
  local out = { first }
  for i = 2, count do out[i] = h.backend(nil, { host = "127.0.0." .. i + 1, port = first.port }) end
  return unpack(out)
end

-- A gateway whose upstream is that name; options: resolver (text behind servers), workers, more (endpoints).
local function start(server, name, port, options)
  options = options or {}
  return h.gateway { config = ([[
local moongate = require "moongate"
moongate.settings { workers = %d, resolver = { servers = { "127.0.0.1:%d" }, %s } }
moongate.listener { port = 0, address = "127.0.0.1" }
moongate.upstream { name = "b", endpoints = { "%s:%d" %s } }
moongate.route { path = "/", backends = "b" }
]]):format(options.workers or 1, server.port, options.resolver or "", name, port, options.more or "") }
end

-- Asks until wanted(status, body) is true; how long that took, and how many answers were not 200.
local function wait_answer(gateway, ms, wanted)
  local before, bad = h.now_ms(), 0
  while true do
    local response = gateway:get "/"
    if wanted(response.status, response.body) then return h.now_ms() - before, bad end
    if response.status ~= 200 then bad = bad + 1 end
    if h.now_ms() - before > ms * h.loop.scale then error("still " .. response.status .. " " .. response.body, 2) end
    h.pass(10)
  end
end

local function is_ok(status) return status == 200 end

-- Waits until a request arrives at this backend.
local function wait_backend(gateway, backend, ms)
  local count = #backend.requests
  return wait_answer(gateway, ms, function() return #backend.requests > count end)
end

local function needs_dnsmasq(body, ms)
  return h.test(function()
    local probe = h.dnsmasq { ["probe.test"] = { "127.0.0.1" } }
    if not probe then return getfenv(body).pending "dnsmasq is not installed" end
    probe:stop()
    body()
  end, ms)
end

describe("host names, with dnsmasq:", function()
  it("stand for all their addresses", needs_dnsmasq(function()
    local a, b, c = backends(3)
    local server = h.dnsmasq { ["users.test"] = { "127.0.0.2", "127.0.0.3", "127.0.0.4" } }
    local gateway = start(server, "users.test.", a.port)
    for _ = 1, 30 do assert.equal(200, gateway:get("/").status) end -- from the first on
    for _, backend in ipairs { a, b, c } do assert.is_true(#backend.requests >= 9, #backend.requests) end
  end))

  it("a change is picked up within the TTL and a second #threads", needs_dnsmasq(function()
    local a, b = backends(2)
    local server = h.dnsmasq({ ["users.test"] = { "127.0.0.2" } }, { ttl = 1 })
    local gateway = start(server, "users.test.", a.port, { workers = 3 })
    wait_answer(gateway, 2000, is_ok)
    server:set { ["users.test"] = { "127.0.0.3" } }
    local took, bad = wait_backend(gateway, b, 2000)
    assert.is_true(took <= 2000 * h.loop.scale, took .. " ms")
    assert.equal(0, bad)
    local count = #a.requests
    h.pass(50)
    for _ = 1, 12 do assert.equal(200, gateway:get("/").status) end
    assert.equal(count, #a.requests)
    server:set { ["users.test"] = { "127.0.0.2", "127.0.0.3" } }
    wait_backend(gateway, a, 2000)
  end, 30000))

  it("serve from what is known while the resolver is down, and follow it when it is back", needs_dnsmasq(function()
    local a, b = backends(2)
    local server = h.dnsmasq { ["users.test"] = { "127.0.0.2" } }
    local gateway = start(server, "users.test.", a.port, { resolver = "timeout = 0.2" })
    wait_answer(gateway, 2000, is_ok)
    server:stop()
    gateway:wait_log 'warn cannot resolve "users.test.": .*; its last addresses serve'
    local before = h.now_ms()
    while h.now_ms() - before < 3000 do
      assert.equal(200, gateway:get("/").status)
      h.pass(20)
    end
    server:write { ["users.test"] = { "127.0.0.3" } }
    server:start()
    local _, bad = wait_backend(gateway, b, 8000)
    assert.equal(0, bad)
    gateway:wait_log '"users.test." is resolved again'
  end, 40000))

  it("a dead resolver does not keep the gateway from starting; others serve", needs_dnsmasq(function()
    local a = backends(1)
    local server = h.dnsmasq { ["users.test"] = { "127.0.0.2" } }
    server:stop()
    local gateway = h.gateway { config = ([[
local moongate = require "moongate"
moongate.settings { workers = 2, resolver = { servers = { "127.0.0.1:%d" }, timeout = 0.2 } }
moongate.listener { port = 0, address = "127.0.0.1" }
moongate.upstream { name = "named", endpoints = { "users.test.:%d" } }
moongate.upstream { name = "plain", endpoints = { "127.0.0.2:%d" } }
moongate.route { path = "/", backends = "named" }
moongate.route { path = "/plain", backends = "plain" }
]]):format(server.port, a.port, a.port) }
    gateway:wait_log 'cannot resolve "users.test.": .*; it has no address yet'
    for _ = 1, 10 do
      assert.equal(503, gateway:get("/").status)
      assert.equal(200, gateway:get("/plain").status)
    end
    server:start()
    wait_answer(gateway, 8000, is_ok)
  end, 40000))

  it("a name that is taken away ends in 503s, and comes back", needs_dnsmasq(function()
    local a = backends(1)
    local server = h.dnsmasq { ["users.test"] = { "127.0.0.2" } }
    local gateway = start(server, "users.test.", a.port, { resolver = "negative = 0.2" })
    wait_answer(gateway, 2000, is_ok)
    server:set { ["other.test"] = { "127.0.0.2" } }
    wait_answer(gateway, 4000, function(status) return status == 503 end)
    server:set { ["users.test"] = { "127.0.0.2" } }
    wait_answer(gateway, 2000, is_ok)
  end, 30000))

  it("stand beside addresses, and 4096 addresses are no harm", needs_dnsmasq(function()
    local a = backends(1)
    local many = {}
    for i = 0, 4095 do many[i + 1] = ("127.1.%d.%d"):format(i / 256, i % 256) end
    local server = h.dnsmasq({ ["many.test"] = many }, { ttl = 60 })
    local gateway = h.gateway { config = ([[
local moongate = require "moongate"
moongate.settings { workers = 2, resolver = { servers = { "127.0.0.1:%d" } } }
moongate.listener { port = 0, address = "127.0.0.1" }
moongate.upstream { name = "b", endpoints = { { "many.test.:%d", weight = 0 }, "127.0.0.2:%d" } }
moongate.route { path = "/", backends = "b" }
]]):format(server.port, a.port, a.port) }
    gateway:wait_log('"many.test." has %d+ addresses', 5000)
    local count = tonumber(gateway:log():match 'has (%d+) addresses')
    assert.is_true(count > 1000, count)
    h.takes(0, 2000, function()
      for _ = 1, 20 do assert.equal(200, gateway:get("/").status) end
    end)
  end, 30000))
end)

describe("host names, with a bad server:", function()
  local good = { addresses = { "127.0.0.2" }, ttl = 1 }

  -- bad(query) -> what the server answers from the second round on; nil: nothing.
  local function keeps_serving(name, bad)
    it(name .. " leaves what is known", h.test(function()
      local a = backends(1)
      local server = h.name_server(function(query) return h.dns_reply(query, good) end)
      local gateway = start(server, "users.test.", a.port, { resolver = "timeout = 0.2" })
      wait_answer(gateway, 2000, is_ok)
      server.script = bad
      local before = h.now_ms()
      while h.now_ms() - before < 3500 do
        assert.equal(200, gateway:get("/").status)
        h.pass(25)
      end
      assert.is_true(#server.queries >= 4, #server.queries)
    end, 30000))
  end

  keeps_serving("SERVFAIL", function(query) return h.dns_reply(query, { code = 2 }) end)
  keeps_serving("REFUSED", function(query) return h.dns_reply(query, { code = 5 }) end)
  keeps_serving("silence", function() end)
  keeps_serving("garbage", function(query) return query.id .. ("\255"):rep(200) end)
  keeps_serving("a loop of compression", function(query)
    return query.id .. "\132\128\0\1\0\1\0\0\0\0" .. query.question .. "\192" ..
      string.char(12 + #query.question) .. "\0\1\0\1\0\0\0\1\0\4\127\0\0\9"
  end)
  keeps_serving("an answer cut short", function(query) return h.dns_reply(query, good):sub(1, -3) end)
  keeps_serving("an empty datagram", function() return "" end)
  keeps_serving("truncation without TCP", function(query)
    return h.dns_reply(query, { addresses = { "127.0.0.9" }, truncated = true })
  end)
  keeps_serving("another id", function(query)
    return h.dns_reply(query, { addresses = { "127.0.0.9" }, id = query.id == "xx" and "yy" or "xx" })
  end)
  keeps_serving("an answer to another question", function(query)
    return h.dns_reply({ id = query.id, type = query.type, question = "\3foo\4test\0\0\1\0\1" },
      { addresses = { "127.0.0.9" } })
  end)

  it("half an answer is taken, the other half stays", h.test(function()
    local a, b = backends(2)
    local server = h.name_server(function(query) return h.dns_reply(query, good) end)
    local gateway = start(server, "users.test.", a.port, { resolver = "timeout = 0.2" })
    wait_answer(gateway, 2000, is_ok)
    server.script = function(query)
      if query.type == "A" then return h.dns_reply(query, { addresses = { "127.0.0.3" }, ttl = 1 }) end
    end
    local _, bad = wait_backend(gateway, b, 6000)
    assert.equal(0, bad)
  end, 30000))

  it("an answer of more than 512 bytes needs no TCP", h.test(function()
    local a = backends(1)
    local many = {}
    for i = 1, 60 do many[i] = "127.0.2." .. i end
    local server = h.name_server(function(query) return h.dns_reply(query, { addresses = many, ttl = 60 }) end)
    local gateway = start(server, "users.test.", a.port)
    gateway:wait_log '"users.test." has 60 addresses now'
  end))

  it("a server that knows no EDNS is asked without", h.test(function()
    local a = backends(1)
    local server = h.name_server(function(query)
      return h.dns_reply(query, query.has_edns and { code = 1 } or { addresses = { "127.0.0.2" }, ttl = 60 })
    end)
    local gateway = start(server, "users.test.", a.port)
    wait_answer(gateway, 2000, is_ok)
  end))

  it("a connection to an endpoint that is gone ends: at once where it idles, after its exchange else", h.test(function()
    local slow = h.backend(function(connection)
      for request in function() return connection:read_request() end do
        if request.target == "/slow" then h.loop.pass(2500) end
        connection:send(h.http1.response("200 OK", "first"))
      end
    end, { host = "127.0.0.2" })
    local other = h.backend(nil, { host = "127.0.0.3", port = slow.port })
    local addresses = { "127.0.0.2" }
    local server = h.name_server(function(query) return h.dns_reply(query, { addresses = addresses, ttl = 1 }) end)
    local gateway = start(server, "users.test.", slow.port)
    local client = gateway:connect()
    wait_answer(gateway, 2000, is_ok)
    client:send "GET /slow HTTP/1.1\r\nHost: h.example\r\n\r\n"
    slow:wait_requests(2)
    local idle = gateway:connect()
    idle:send "GET / HTTP/1.1\r\nHost: h.example\r\n\r\n"
    assert.equal("first", h.read_response(idle).body)
    addresses = { "127.0.0.3" }
    wait_backend(gateway, other, 4000)
    assert.equal("first", h.read_response(client).body)
    assert.is_true(#slow.connections >= 2)
    for _, connection in ipairs(slow.connections) do assert.equal("eof", connection:wait_end(1000)) end
    client:close()
    idle:close()
    gateway:expect_quiet()
  end, 20000))

  it("a TTL of 0 is a second, not a storm", h.test(function()
    local a = backends(1)
    local server = h.name_server(function(query)
      return h.dns_reply(query, { addresses = { "127.0.0.2" }, ttl = 0 })
    end)
    local gateway = start(server, "users.test.", a.port)
    wait_answer(gateway, 2000, is_ok)
    local count = #server.queries
    h.pass(2500)
    assert.is_true(#server.queries - count >= 2 and #server.queries - count <= 8, #server.queries - count)
    assert.equal(200, gateway:get("/").status)
  end, 30000))

  it("a long TTL is kept to", h.test(function()
    local a = backends(1)
    local server = h.name_server(function(query)
      return h.dns_reply(query, { addresses = { "127.0.0.2" }, ttl = 300 })
    end)
    local gateway = start(server, "users.test.", a.port)
    wait_answer(gateway, 2000, is_ok)
    local count = #server.queries
    h.pass(2500)
    assert.equal(count, #server.queries)
  end, 30000))

  it("stale = seconds sets an end to what is known", h.test(function()
    local a = backends(1)
    local server = h.name_server(function(query) return h.dns_reply(query, good) end)
    local gateway = start(server, "users.test.", a.port, { resolver = "timeout = 0.2, stale = 1.5" })
    wait_answer(gateway, 2000, is_ok)
    server.script = function() end
    wait_answer(gateway, 12000, function(status) return status == 503 end)
    server.script = function(query) return h.dns_reply(query, good) end
    wait_answer(gateway, 12000, is_ok)
  end, 40000))

  it("a slow resolver holds nobody up", h.test(function()
    local a = backends(1)
    local server = h.name_server(function() end)
    local gateway = start(server, "users.test.", a.port, { more = (', "127.0.0.2:%d"'):format(a.port) })
    for _ = 1, 50 do
      assert.equal(200, h.takes(0, 200, function() return gateway:get "/" end).status)
    end
    assert.equal(200, h.takes(0, 200, function() return gateway:admin "/healthz" end).status)
  end))

  it("a second server is asked when the first is dead", h.test(function()
    local a = backends(1)
    local server = h.name_server(function(query) return h.dns_reply(query, good) end)
    local gateway = h.gateway { config = ([[
local moongate = require "moongate"
moongate.settings { workers = 1, resolver = { servers = { "127.0.0.1:%d", "127.0.0.1:%d" }, timeout = 0.2 } }
moongate.listener { port = 0, address = "127.0.0.1" }
moongate.upstream { name = "b", endpoints = { "users.test.:%d" } }
moongate.route { path = "/", backends = "b" }
]]):format(h.dead_port(), server.port, a.port) }
    wait_answer(gateway, 3000, is_ok)
  end))

  it("/etc/hosts is asked first", h.test(function()
    local a = h.backend()
    local server = h.name_server(function() end)
    local gateway = start(server, "localhost", a.port)
    wait_answer(gateway, 2000, is_ok)
    assert.equal(0, #server.queries)
  end))

  it("the gateway leaves in time with questions open", h.test(function()
    local a = backends(1)
    local server = h.name_server(function() end)
    local gateway = start(server, "users.test.", a.port)
    h.loop.wait(server.changed, 3000, "a question", function() return #server.queries > 0 end)
    gateway:signal()
    assert.equal(0, (gateway:wait_exit(1000)))
  end))
end)

describe("host names:", function()
  it("are checked", h.test(function()
    for _, text in ipairs { "users.internal", "users.internal:0", "users.internal:99999", "us ers:80", ".users:80",
      "users..x:80", "1.2.3:80", ("x"):rep(64) .. ":80", "users.internal:80x", ":80", "user/s:80" } do
      local path = h.write_file(('local m = require "moongate"\nm.upstream { name = "b", endpoints = { %q } }\n'):format(text))
      local result = h.exec { "check", path }
      assert.equal(1, result.code, text)
      assert.is_not_nil((result.stdout .. result.stderr):find("endpoints[1]: not an address", 1, true), text)
    end
    for _, text in ipairs { "users:80", "users_1.internal:8000", "a-b.c.d.:1", "1a:65535", "[::1]:80" } do
      local path = h.write_file(('local m = require "moongate"\nm.listener { port = 0 }\n' ..
        'm.upstream { name = "b", endpoints = { %q } }\n'):format(text))
      local result = h.exec { "check", path }
      assert.equal(0, result.code, text .. result.stdout .. result.stderr)
    end
  end, 60000))

  it("a server of names is an address", h.test(function()
    local path = h.write_file('local m = require "moongate"\nm.settings { resolver = { servers = { "dns.internal" } } }\n')
    local result = h.exec { "check", path }
    assert.is_not_nil((result.stdout .. result.stderr):find("resolver.servers[1]: not an address", 1, true))
  end))
end)
