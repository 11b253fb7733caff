-- TCP routes: connections of a listener with protocol = "tcp", relayed to the endpoints of upstreams.
local cjson = require "cjson.safe"
local h = require "test.support.harness"

if not h.has_binary() then
  describe("TCP routes", function() pending "no binary: set MOONGATE_BIN" end)
  return
end

-- Says `greeting`, then gives back what comes, and ends when the client has.
local function echo(greeting)
  return function(connection)
    if greeting then connection:send(greeting) end
    while true do
      h.loop.wait(connection.changed, 20000, "bytes", function() return connection.pending > 0 or connection:has_ended() end)
      if connection.pending > 0 then
        connection:send(connection:take(connection.pending))
      elseif connection:has_ended() then
        break
      end
    end
    connection:flush()
  end
end

local function address_of(endpoint)
  return type(endpoint) == "string" and endpoint or endpoint:address()
end

-- options: upstreams = { name = { endpoint ... } }, extra = { name = keys of it }, backends, listener, route, settings: texts
local function config(options)
  local out = { 'local m = require "moongate"' }
  out[#out + 1] = ("m.settings { workers = %d, %s }"):format(options.workers or 1, options.settings or "")
  out[#out + 1] = ('m.listener { port = %s, address = "127.0.0.1", protocol = "tcp", name = "db", %s }')
    :format(options.port or 0, options.listener or "")
  for name, endpoints in pairs(options.upstreams) do
    local list = {}
    for i, endpoint in ipairs(endpoints) do list[i] = ('"%s"'):format(address_of(endpoint)) end
    out[#out + 1] = ('m.upstream { name = "%s", endpoints = { %s }, %s }'):format(name, table.concat(list, ", "),
      options.extra or "")
  end
  out[#out + 1] = ('m.route { listeners = { "db" }, backends = %s, %s }'):format(options.backends or '"b"', options.route or "")
  return table.concat(out, "\n") .. "\n"
end

local function start(options)
  return h.gateway { config = config(options) }
end

local function quiet(gateway)
  gateway:expect_quiet()
  assert.equal(0, gateway:metrics().moongate_tunnels_live)
end

describe("a TCP route", function()
  it("relays bytes both ways, whoever speaks first", h.test(function()
    local backend = h.backend(echo "220 hello\r\n")
    local gateway = start { upstreams = { b = { backend } } }
    local client = gateway:connect()
    assert.equal("220 hello\r\n", client:read(11))
    for _ = 1, 20 do
      client:send "ping"
      assert.equal("ping", client:read(4))
    end
    client:close()
    quiet(gateway)
  end))

  it("keeps half-closed connections open, from either side", h.test(function()
    local backend = h.backend(function(connection)
      local asked = connection:read_all()
      connection:send("you said " .. asked)
      connection:flush()
    end)
    local gateway = start { upstreams = { b = { backend } } }
    local client = gateway:connect()
    client:send "everything"
    client:shutdown() -- before the upstream is even connected
    assert.equal("you said everything", client:read_all())
    client:close()
    backend = h.backend(function(connection)
      connection:send "that is all"
      connection:shutdown()
      connection:read_all()
      backend.said = connection:bytes()
    end)
    gateway = start { upstreams = { b = { backend } } }
    client = gateway:connect()
    assert.equal("that is all", client:read_all())
    client:send "and yet"
    client:shutdown()
    quiet(gateway)
    assert.equal("and yet", backend.said)
  end))

  it("passes long streams unharmed in both directions at once, spliced or copied", h.test(function()
    local piece = {}
    for i = 1, 4096 do piece[i] = string.char(i * 7 % 256) end
    piece = table.concat(piece)
    local body = piece:rep(2048) -- 8 MiB
    for _, splice in ipairs { true, false } do
      local backend = h.backend(function(connection)
        connection:send(body)
        connection:flush(20000)
        connection:shutdown()
        connection:read_all(20000)
      end)
      local gateway = start { upstreams = { b = { backend } }, settings = "splice = " .. tostring(splice) }
      local client = gateway:connect()
      client:send(body)
      client:shutdown()
      assert.is_true(body == client:read_all(20000))
      backend:wait_connections(1)
      local connection = backend.connections[1]
      connection:wait_end(20000)
      assert.is_true(body == connection:bytes())
      client:close()
      quiet(gateway)
      local metrics = gateway:metrics()
      assert.equal(#body, metrics.moongate_relay_client_bytes_total)
      assert.equal(#body, metrics.moongate_relay_upstream_bytes_total)
      assert.equal(splice, metrics.moongate_spliced_bytes_total > #body)
      gateway:stop()
    end
  end, 60000))

  it("stops reading from a side whose peer takes nothing", h.test(function()
    local backend = h.backend(function(connection)
      connection:send(("x"):rep(64 * 1048576))
      h.loop.try_wait(connection.changed, 1500, function() return connection.sent > 0 end)
    end)
    local gateway = start { upstreams = { b = { backend } } }
    local client = gateway:connect { receive_buffer = 4096 }
    client:pause()
    h.pass(300)
    local before = gateway:metrics().moongate_relay_upstream_bytes_total
    h.pass(100)
    local metrics = gateway:metrics()
    assert.is_true(metrics.moongate_relay_upstream_bytes_total - before < 1048576)
    assert.is_true(metrics.moongate_buffer_bytes <= 131072)
    client:close()
  end))

  it("splits connections over backends by weight", h.test(function()
    local a, b = h.backend(echo "a"), h.backend(echo "b")
    local gateway = start { upstreams = { a = { a }, b = { b } }, backends = "{ a = 75, b = 25 }" }
    local count = { a = 0, b = 0 }
    for _ = 1, 80 do
      local client = gateway:connect()
      local who = client:read(1)
      count[who] = count[who] + 1
      client:close()
    end
    assert.is_true(math.abs(count.a - 60) <= 2, count.a .. " of 80")
  end))

  it("goes on with the next endpoint where one refuses or does not answer", h.test(function()
    local backend = h.backend(echo "hi")
    local dead, hole = "127.0.0.1:" .. h.dead_port(), "127.0.0.1:" .. h.black_hole()
    local gateway = start { upstreams = { b = { dead, hole, backend } }, settings = "timeouts = { connect = 0.3 }" }
    for _ = 1, 6 do
      local client = gateway:connect()
      assert.equal("hi", client:read(2))
      client:close()
    end
    assert.is_true(gateway:metrics().moongate_upstream_connect_failures_total >= 4)
    quiet(gateway)
  end))

  it("resets the client where nobody takes the connection, and counts it", h.test(function()
    local gateway = start { upstreams = { b = { "127.0.0.1:" .. h.dead_port() }, none = {} }, backends = "{ b = 1, none = 0 }" }
    local client, how = h.connect(gateway.port) -- the reset may come as soon as it stands
    assert.equal("ECONNRESET", client and client:wait_end() or how)
    local metrics = gateway:metrics()
    assert.equal(1, metrics.moongate_tcp_failures_total)
    assert.equal(1, metrics['moongate_requests_total{route="db",upstream="b",class="5xx"}'])
    quiet(gateway)
  end))

  it("ends connections that are silent for the route's time", h.test(function()
    local backend = h.backend(echo())
    local gateway = start { upstreams = { b = { backend } }, route = "timeouts = { idle = 0.4 }" }
    local client = gateway:connect()
    for _ = 1, 4 do
      client:send "x"
      assert.equal("x", client:read(1))
      h.pass(200)
    end
    h.takes(100, 1500, function() assert.equal("eof", client:wait_end()) end)
    quiet(gateway)
  end))

  it("waits at the limit of the upstream, for as long as it allows", h.test(function()
    local backend = h.backend(echo "hi")
    local gateway = start { upstreams = { b = { backend } }, extra = "limits = { connections = 1, pending_timeout = 3 }" }
    local first, second = gateway:connect(), gateway:connect()
    assert.equal("hi", first:read(2))
    assert.is_false(second:has_more(100))
    first:close()
    assert.equal("hi", second:read(2))
    local third = gateway:connect()
    h.takes(2900, 4500, function() assert.equal("ECONNRESET", third:wait_end()) end)
    assert.equal(1, gateway:metrics().moongate_upstream_pending_refused_total)
    second:close()
    quiet(gateway)
  end))

  it("passes a reset on, and a client that gives up while it connects leaves nothing", h.test(function()
    local backend = h.backend(echo "hi")
    local gateway = start { upstreams = { b = { backend } } }
    local client = gateway:connect()
    assert.equal("hi", client:read(2))
    client:reset()
    assert.equal("ECONNRESET", backend.connections[1]:wait_end())
    quiet(gateway)
    gateway = start { upstreams = { b = { "127.0.0.1:" .. h.black_hole() } } }
    client = gateway:connect()
    h.pass(50)
    local list = gateway:ask_json("/connections").connections
    assert.equal("connect", list[1].state)
    client:reset()
    quiet(gateway)
  end))

  it("is in the access log, the metrics and the list of connections", h.test(function()
    local backend = h.backend(echo "hello")
    local gateway = start { upstreams = { b = { backend } }, route = 'name = "database"',
      settings = 'access_log = { file = "stdout", fields = { "protocol", "route", "upstream", "endpoint", "request_bytes",' ..
        ' "response_bytes", "status", "complete", "method" } }' }
    local client = gateway:connect()
    client:send "123"
    assert.equal("hello123", client:read(8))
    local row = gateway:ask_json("/connections").connections[1]
    assert.equal("tcp", row.state)
    assert.equal("db", row.listener)
    assert.equal("database", row.route)
    assert.equal("b", row.upstream)
    assert.equal(backend:address(), row.endpoint)
    assert.equal("127.0.0.1:" .. client:local_port(), row.client)
    client:shutdown()
    client:wait_end()
    quiet(gateway)
    assert.equal(1, gateway:metrics()['moongate_requests_total{route="database",upstream="b",class="2xx"}'])
    gateway:stop()
    local line = cjson.decode(gateway.stdout)
    assert.equal("TCP", line.protocol)
    assert.equal("database", line.route)
    assert.equal("b", line.upstream)
    assert.equal(backend:address(), line.endpoint)
    assert.equal(3, line.request_bytes)
    assert.equal(8, line.response_bytes)
    assert.equal(cjson.null, line.status)
    assert.is_true(line.complete)
  end))

  it("keeps its connections over a reload, and sends new ones where the new configuration says", h.test(function()
    local a, b = h.backend(echo "a"), h.backend(echo "b")
    local port = h.dead_port()
    local gateway = start { upstreams = { b = { a } }, port = port }
    local old = gateway:connect()
    assert.equal("a", old:read(1))
    gateway:rewrite(config { upstreams = { b = { b } }, port = port })
    assert.equal(0, gateway:ask("reload").code)
    local new = gateway:connect()
    assert.equal("b", new:read(1))
    old:send "x"
    assert.equal("x", old:read(1))
    old:close()
    new:close()
    quiet(gateway)
  end))

  it("lets connections end by themselves while it drains, until the time is over", h.test(function()
    local backend = h.backend(echo "hi")
    local gateway = start { upstreams = { b = { backend } }, settings = "timeouts = { drain = 0.6 }" }
    local first, second = gateway:connect(), gateway:connect()
    first:read(2)
    second:read(2)
    gateway:signal "sigterm"
    gateway:wait_draining()
    first:send "x"
    assert.equal("x", first:read(1))
    first:shutdown()
    assert.equal("eof", first:wait_end())
    h.takes(100, 1500, function() second:wait_end() end)
    assert.equal(0, (gateway:wait_exit()))
  end))

  it("takes and gives PROXY headers", h.test(function()
    local backend = h.backend(function(connection)
      connection:send("got " .. connection:read_until "\r\n" .. connection:read(3))
    end)
    local gateway = start { upstreams = { b = { backend } }, extra = 'proxy_protocol = "v1"',
      listener = 'proxy_protocol = { trusted = { "127.0.0.1" } }' }
    local client = gateway:connect()
    client:send "PROXY TCP4 192.0.2.7 198.51.100.2 56324 443\r\nabc"
    assert.equal("got PROXY TCP4 192.0.2.7 198.51.100.2 56324 443\r\nabc", client:read_all())
    client:close()
    quiet(gateway)
  end))

  it("stands beside HTTP listeners", h.test(function()
    local gateway = h.gateway { config = [[
local m = require "moongate"
m.settings { workers = 1 }
m.listener { port = 0, address = "127.0.0.1" }
m.listener { port = 0, address = "127.0.0.1", protocol = "tcp", name = "raw" }
m.upstream { name = "echo", endpoints = { "builtin:echo" } }
m.upstream { name = "raw", endpoints = { "]] .. h.backend(echo "hi"):address() .. [[" } }
m.route { path = "/", backends = "echo" }
m.route { listeners = { "raw" }, backends = "raw" }
]] }
    assert.equal(200, gateway:get("/").status)
    local client = gateway:connect { port = gateway.ports[2] }
    assert.equal("hi", client:read(2))
    local answer = h.exec { "explain", "GET", "http://127.0.0.1:" .. gateway.ports[2] .. "/", "--control", gateway.control }
    assert.is_not_nil((answer.stdout .. answer.stderr):find "no listener")
  end))
end)

it("a route that a reload leaves as it is is checked against what its listener has become", h.test(function()
  local function text(protocol)
    return ([[
local m = require "moongate"
m.settings { workers = 1 }
m.listener { name = "a", port = 0, address = "127.0.0.1", protocol = "%s" }
m.upstream { name = "b", endpoints = { "127.0.0.1:1" } }
m.route { listeners = { "a" }, backends = "b", plugins = { { "request-headers", set = { x = "y" } } } }
]]):format(protocol)
  end
  local gateway = h.gateway { config = text "http" }
  gateway:expect_log "has no meaning without requests"
  gateway:expect_log "the new configuration is refused"
  gateway:rewrite(text "tcp")
  local answer = gateway:ask "reload"
  assert.equal(1, answer.code)
  assert.is_not_nil((answer.stdout .. answer.stderr):find "has no meaning without requests")
end))

describe("the check of TCP routes", function()
  local HEAD = 'local m = require "moongate"\nm.upstream { name = "b", endpoints = { "127.0.0.1:1" } }\n' ..
    'm.upstream { name = "e", endpoints = { "builtin:echo" } }\n'
  local DB = 'm.listener { port = 1, protocol = "tcp", name = "db" }\n'
  local WEB = 'm.listener { port = 2, name = "web" }\n'
  local function route(keys) return ("m.route { listeners = { \"db\" }, backends = \"b\", %s }\n"):format(keys or "") end

  it("accepts what has a meaning", h.test(function()
    for _, text in ipairs {
      DB .. route(), DB .. route "timeouts = { idle = 5 }",
      DB .. 'm.listener { port = 1, protocol = "udp", name = "dns" }\n' .. route() ..
        'm.route { listeners = { "dns" }, backends = "b" }\n',
      DB .. WEB .. route() .. 'm.route { path = "/", backends = "e" }\n',
      DB .. 'm.listener { port = 3, protocol = "tcp", name = "other" }\nm.route { listeners = { "db", "other" }, backends = "b" }\n',
    } do
      local result = h.exec { "check", (h.write_file(HEAD .. text)) }
      assert.equal(0, result.code, result.stderr)
    end
  end))

  it("names what is wrong, where, and what would be right", h.test(function()
    for text, wanted in pairs {
      [DB .. route 'path = "/x"'] = '5: route "/x": path: has no meaning for a listener with protocol "tcp".-remove it',
      [DB .. route 'hosts = { "a.b" }'] = 'hosts: has no meaning',
      [DB .. route 'plugins = { { "cors", origins = { "*" } } }'] = 'plugins%[1%]: has no meaning',
      [DB .. route 'access = function() end'] = 'access: has no meaning',
      [DB .. route 'retry = {}'] = 'retry: has no meaning',
      [DB .. route 'timeouts = { request = 1 }'] = 'timeouts: there are no requests.-idle',
      [DB .. route() .. route 'name = "x"'] = '6: route "x": listeners%[1%]: there is a route already for "db", in line 5',
      [DB .. WEB .. 'm.route { listeners = { "db", "web" }, backends = "b" }\n'] = 'listeners%[2%]: it has another protocol than "db"',
      [DB .. 'm.route { listeners = { "db" }, backends = "e" }\n'] = 'backends: built into the binary.-"e"',
      [DB] = '4: listener: name: no route names the listener "db"',
      [DB .. 'm.route { listeners = { "dbx" }, backends = "b" }\n'] = 'there is no listener "dbx".-did you mean "db"',
      ['m.listener { port = 1, protocol = "tcp" }\n'] = 'name: missing: only a route that names it',
      ['m.listener { port = 1, protocol = "tcp", name = "db", hostname = "a.b" }\n' .. route()] = 'hostname: has no meaning',
      [DB .. 'm.listener { port = 1, name = "web" }\n' .. route()] = 'protocol: the listener of line 4 has another on this port',
      [DB .. 'm.listener { port = 1, protocol = "tcp", name = "d2" }\n' .. route()] = 'port: 0.0.0.0:1 is taken by the listener of line 4',
      [DB .. 'm.listener { port = 1, protocol = "tcp", name = "d2", address = "127.0.0.1" }\n' .. route()] = 'take the same connections',
    } do
      local result = h.exec { "check", (h.write_file(HEAD .. text)) }
      assert.equal(1, result.code, text)
      assert.is_not_nil(result.stderr:find(wanted), text .. result.stderr)
    end
  end))
end)
