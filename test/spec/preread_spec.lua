-- The phase preread: a function looks at a connection of a TCP or TLS route before a byte of it is taken.
local h = require "test.support.harness"
local hello = require "test.support.hello"
local ports = require "test.support.ports"
local tls = require "test.support.tls"

if not h.has_binary() then
  describe("preread", function() pending "no binary: set MOONGATE_BIN" end)
  return
end

local function echo(name)
  return function(connection)
    if name then connection:send(name) end
    while true do
      h.loop.wait(connection.changed, 20000, "bytes", function() return connection.pending > 0 or connection:has_ended() end)
      if connection.pending == 0 then break end
      connection:send(connection:take(connection.pending))
    end
    connection:flush()
  end
end

local TCP = 'm.listener { port = PORT, address = "127.0.0.1", protocol = "tcp", name = "in" }\n'
local PASS = 'm.listener { port = PORT, address = "127.0.0.1", protocol = "tls", name = "in", tls = { mode = "passthrough" } }\n'

local function config(port, listener, backends, body, keys)
  local out = { 'local m = require "moongate"', "m.settings { workers = 1 }" }
  for name, backend in pairs(backends) do
    out[#out + 1] = ('m.upstream { name = "%s", endpoints = { "%s" } }'):format(name,
      type(backend) == "string" and backend or backend:address())
  end
  out[#out + 1] = listener
  out[#out + 1] = ('m.route { name = "r", listeners = { "in" }, backends = "a", %s preread = function(connection)\n%s\nend }')
    :format(keys or "", body)
  return (table.concat(out, "\n"):gsub("PORT", tostring(port)))
end

local function start(...)
  return h.gateway { config = config(ports.free(), ...) }
end

local function refused(gateway)
  return gateway:metrics()['moongate_connections_refused_total{reason="preread"}']
end

describe("preread", function()
  it("chooses the upstream, leaves it to the route, or refuses", h.test(function()
    local gateway = start(TCP, { a = h.backend(echo "a:"), b = h.backend(echo "b:") }, [[
      local first = connection:peek(1, 5)
      if first == "b" then return "b" end
      if first == "x" then return false end
    ]])
    for bytes, wanted in pairs { ["back"] = "b:back", ["any"] = "a:any", ["x"] = "" } do
      local client = gateway:connect()
      client:send(bytes)
      client:shutdown()
      assert.equal(wanted, client:read_all())
      assert.is_nil(client.failure)
      client:close()
    end
    gateway:expect_quiet()
    assert.equal(1, refused(gateway))
    assert.equal(0, gateway:metrics().moongate_coroutines_live)
  end))

  it("sees whose connection it is and what it asks for", h.test(function()
    local gateway = start(PASS, { a = h.backend(echo "a:") }, [[
      m.log.info("seen", { address = connection.client.address, port = connection.client.port, sni = connection.sni or "none",
        alpn = table.concat(connection.alpn, "+"), listener = connection.listener, route = connection.route,
        tls = tostring(connection.tls), number = connection.number, first = connection:peek(3):byte(1) })
    ]])
    local bytes = hello.new { sni = "DB.example", alpn = { "\26\26", "h2", "postgresql" } }
    local client = gateway:connect()
    client:send(bytes)
    assert.equal("a:" .. bytes, client:read(2 + #bytes))
    gateway:wait_log "seen"
    for _, text in ipairs { "address=127.0.0.1", "port=" .. client:local_port(), "sni=db.example", "alpn=\"?h2%+postgresql",
      "listener=in", "route=r", "tls=true", "number=%d", "first=22" } do
      assert.truthy(gateway:log():find(text), text .. " in " .. gateway:log())
    end
    client:close()
    client = gateway:connect()
    client:send(hello.new {})
    gateway:wait_log "sni=none"
    client:close()
    gateway:expect_quiet()
  end))

  it("sees where the client meant to go", h.test(function()
    local body = 'm.log.info(("meant for %s:%d"):format(connection.destination.address, connection.destination.port))'
    local gateway = start(TCP, { a = h.backend(echo "a:") }, body)
    local client = gateway:connect()
    assert.equal("a:", client:read(2))
    gateway:wait_log("meant for 127.0.0.1:" .. gateway.port)
    client:close()
    gateway:stop()
    gateway = start((TCP:gsub("name =", 'proxy_protocol = { trusted = { "127.0.0.1" } }, name =')), { a = h.backend(echo "a:") }, body)
    for header, wanted in pairs {
      ["PROXY TCP4 192.0.2.7 198.51.100.2 56324 443\r\n"] = "198.51.100.2:443",
      ["PROXY TCP6 2001:db8::7 ::ffff:198.51.100.3 5 6\r\n"] = "198.51.100.3:6",
      ["PROXY UNKNOWN\r\n"] = "127.0.0.1:" .. gateway.port,
    } do
      client = gateway:connect()
      client:send(header)
      assert.equal("a:", client:read(2))
      gateway:wait_log("meant for " .. wanted)
      client:close()
    end
    gateway:expect_quiet()
  end))

  it("waits: for bytes, for time, for calls of its own, while nothing is lost", h.test(function()
    local judge = h.backend()
    local gateway = start(TCP, { a = h.backend(echo "a:"), b = h.backend(echo "b:"), judge = judge }, ([[
      local line = connection:peek(4, 10)
      m.sleep(0.05)
      local answer = m.http.request { url = "http://%s/" .. line }
      if answer and answer.body:find "move" then return "b" end
    ]]):format(judge:address()))
    for bytes, wanted in pairs { move = "b:", stay = "a:" } do
      local client = gateway:connect()
      client:send_pieces({ bytes:sub(1, 1), bytes:sub(2, 2), bytes:sub(3, 3), bytes:sub(4) .. ("x"):rep(100000) }, 20)
      client:shutdown()
      assert.equal(wanted .. bytes .. ("x"):rep(100000), client:read_all())
      client:close()
    end
    gateway:expect_quiet()
  end))

  it("gives what is there when the time is over, or the client has ended", h.test(function()
    local gateway = start(TCP, { a = h.backend(echo "a:"), b = h.backend(echo "b:") }, [[
      local bytes = connection:peek(10, 0.2)
      m.log.info("peeked " .. #bytes)
      if bytes == "" then return "b" end
    ]])
    local client = gateway:connect()
    h.takes(150, 600, function() assert.equal("b:", client:read(2)) end)
    client:close()
    client = gateway:connect()
    client:send "abc"
    h.takes(150, 600, function() assert.equal("a:abc", client:read(5)) end)
    client:close()
    client = gateway:connect()
    client:send "abcd"
    client:shutdown()
    h.takes(0, 140, function() assert.equal("a:abcd", client:read_all()) end)
    client:close()
    gateway:expect_quiet()
    gateway:wait_log "peeked 3"
    gateway:wait_log "peeked 4"
  end))

  it("ends with its client", h.test(function()
    local gateway = start(TCP, { a = h.backend(echo "a:") }, "m.sleep(60)")
    local client = gateway:connect()
    gateway:wait_metrics("it waits", function(metrics) return metrics.moongate_coroutines_live == 1 end)
    client:reset()
    gateway:expect_quiet()
    assert.equal(0, gateway:metrics().moongate_coroutines_live)
  end))

  it("is told of an end that came while the ClientHello was looked at", h.test(function()
    local gateway = start(PASS, { a = h.backend(echo "a:") }, [[
      m.sleep(0.1)
      connection:peek(16384, 20)
    ]])
    local bytes, client = hello.new { sni = "x.example" }, gateway:connect()
    gateway:frozen(function()
      client:send(bytes)
      client:shutdown()
    end)
    h.takes(90, 1000, function() assert.equal("a:" .. bytes, client:read_all()) end)
    client:close()
    gateway:expect_quiet()
  end))

  it("has a time, all functions together, and what it waits for is dropped", h.test(function()
    local slow = h.backend(function(connection) connection:read_all() end)
    local port = ports.free()
    local text = config(port, TCP, { a = h.backend(echo "a:"), slow = slow }, ([[
      local first = connection:peek(1, 20)
      if first == "s" then m.sleep(60) end
      if first == "c" then m.http.request { url = "http://%s/" } end
      if first == "l" then while true do connection:peek(16384, 0.01) end end
    ]]):format(slow:address())):gsub("workers = 1", "workers = 1, timeouts = { preread = 0.5 }")
    local gateway = h.gateway { config = text }
    for count, bytes in ipairs { "", "s", "c", "l" } do
      local client = gateway:connect()
      if bytes ~= "" then client:send(bytes) end
      h.takes(450, 1200, function() assert.equal("", client:read_all()) end)
      assert.is_nil(client.failure) -- an end in good order
      client:close()
      gateway:expect_quiet()
      local metrics = gateway:metrics()
      assert.equal(count, metrics['moongate_connections_refused_total{reason="preread_timeout"}'])
      assert.equal(0, metrics.moongate_coroutines_live)
    end
    local client = gateway:connect() -- once it is relayed the time has no meaning
    client:send "x"
    assert.equal("a:x", client:read(3))
    h.pass(700)
    client:send "y"
    assert.equal("y", client:read(1))
    client:close()
    gateway:expect_quiet()
    assert.equal(0, refused(gateway))
  end))

  it("closes what it fails for, and says why", h.test(function()
    local gateway = start(TCP, { a = h.backend(echo "a:"), e = "builtin:echo" }, [[
      local first = connection:peek(1, 5)
      if first == "e" then error "no such thing" end
      if first == "n" then return 5 end
      if first == "u" then return "nowhere" end
      if first == "b" then return "e" end
      if first == "p" then connection:peek(0) end
      if first == "t" then
        local other
        m.spawn(function() other = select(2, pcall(connection.peek, connection, 1)) end)
        m.sleep(0.02)
        error(other)
      end
    ]])
    for bytes, wanted in pairs {
      e = "script: preread failed: .*no such thing", n = "preread returns nil", p = "takes a count from 1 to 16384, got 0",
      u = 'preread of route "r" has chosen the upstream "nowhere", which is not there', b = false,
      t = "connection:peek can be used in preread, not in its tasks",
    } do
      if wanted then gateway:expect_log(wanted) end
      local client = gateway:connect()
      client:send(bytes)
      client:read_all()
      client:close()
      if wanted then gateway:wait_log(wanted) end
    end
    gateway:expect_quiet()
    assert.equal(6, gateway:metrics().moongate_tcp_failures_total)
  end))

  it("belongs to its connection", h.test(function()
    local gateway = start(TCP, { a = h.backend(echo "a:") }, [[
      kept = kept or connection
      if connection.number ~= kept.number then
        local ok, why = pcall(kept.peek, kept)
        m.log.info("kept: " .. tostring(why))
      end
    ]])
    for _ = 1, 2 do
      local client = gateway:connect()
      assert.equal("a:", client:read(2))
      client:close()
    end
    gateway:expect_quiet()
    if not gateway:log():find "kept: " then return end
    assert.truthy(gateway:log():find "this is another connection's")
  end))

  it("looks into TLS that ends here", tls.test(function() return tls.certs() end, function()
    local set = tls.certs()
    local site = set:issue { name = "site", sans = "DNS:site.example" }
    local gateway = start(('m.listener { port = PORT, address = "127.0.0.1", protocol = "tls", name = "in", tls = { certificates = ' ..
      '{ { cert = %q, key = %q } } } }\n'):format(site.cert, site.key), { a = h.backend(echo "a:"), b = h.backend(echo "b:") }, [[
      if connection.sni ~= "site.example" then return false end
      if connection:peek(5, 5) == "hello" then return "b" end
    ]])
    local output = tls.s_client(gateway, "-servername site.example", "sleep 0.5; echo hello; sleep 1")
    assert.truthy(output:find "b:hello\n", output)
    output = tls.s_client(gateway, "-servername site.example", "echo other; sleep 1")
    assert.truthy(output:find "a:other\n", output)
    output = tls.s_client(gateway, "-servername other.example", "echo hello; sleep 1")
    assert.is_nil(output:find "[ab]:hello")
    gateway:expect_quiet()
    assert.equal(1, refused(gateway))
    set:remove()
  end))

  it("sees the client's certificate, where TLS ends here", tls.test(function() return tls.certs() end, function()
    local set = tls.certs()
    local site = set:issue { name = "site", sans = "DNS:site.example" }
    local own = set:issue { name = "alice", sans = "DNS:a.example,email:a@example" }
    local gateway = start(('m.listener { port = PORT, address = "127.0.0.1", protocol = "tls", name = "in", tls = { certificates = ' ..
      '{ { cert = %q, key = %q } }, client = { ca = %q, verify = "optional" } } }\n'):format(site.cert, site.key, set.ca),
      { a = h.backend(echo "a:"), b = h.backend(echo "b:") }, [[
      local own = connection.client.certificate
      if not own then return nil end
      m.log.info(("shown %s %s %d %d"):format(own.subject, table.concat(own.sans, "+"), #own.fingerprint, #own.serial))
      return "b"
    ]])
    local output = tls.s_client(gateway, ("-servername site.example -cert %s -key %s"):format(own.cert, own.key), "echo x; sleep 1")
    assert.truthy(output:find "b:x\n", output)
    gateway:wait_log "shown CN=alice DNS:a.example%+email:a@example 64 %d+"
    output = tls.s_client(gateway, "-servername site.example", "echo x; sleep 1")
    assert.truthy(output:find "a:x\n", output)
    gateway:expect_quiet()
    set:remove()
  end))

  it("goes on over a reload, in its own generation", h.test(function()
    local port = ports.free()
    local backends = { a = h.backend(echo "a:"), b = h.backend(echo "b:") }
    local gateway = h.gateway { config = config(port, TCP, backends, 'connection:peek(1, 20) return "b"') }
    local client = gateway:connect()
    gateway:wait_metrics("it waits", function(metrics) return metrics.moongate_coroutines_live == 1 end)
    gateway:rewrite(config(port, TCP, backends, "return nil"))
    assert.equal(0, gateway:ask("reload").code)
    local new = gateway:connect()
    assert.equal("a:", new:read(2))
    h.pass(300)
    client:send "x"
    assert.equal("b:x", client:read(3))
    client:close()
    new:close()
    gateway:expect_quiet()
  end))

  it("may be a plugin's, before the route's own", h.test(function()
    local text = config(ports.free(), TCP, { a = h.backend(echo "a:"), b = h.backend(echo "b:"), c = h.backend(echo "c:") }, [[
      if connection:peek(1, 5) == "c" then return "c" end
    ]], 'plugins = { { "by-byte", byte = "b", upstream = "b" } },')
    local path, dir = h.write_file(text)
    os.execute("mkdir -p " .. dir .. "/plugins/by-byte")
    local function write(name, source)
      local file = assert(io.open(dir .. "/plugins/by-byte/" .. name, "w"))
      file:write(source)
      file:close()
    end
    write("handler.lua", [[
      return { version = "1", api = 1, preread = function(connection, conf)
        local first = connection:peek(1, 5)
        if first == conf.byte then return conf.upstream end
        if first == "x" then return false end
      end, certificate = function() end }
    ]])
    write("schema.lua", 'return { byte = { type = "string" }, upstream = { type = "string" } }')
    local gateway = h.gateway { file = path }
    for bytes, wanted in pairs { b = "b:b", c = "c:c", d = "a:d", x = "" } do
      local client = gateway:connect()
      client:send(bytes)
      client:shutdown()
      assert.equal(wanted, client:read_all())
      client:close()
    end
    gateway:expect_quiet()
  end))
end)

describe("the check of preread", function()
  it("names where it has no meaning", h.test(function()
    local HEAD = 'local m = require "moongate"\nm.upstream { name = "b", endpoints = { "127.0.0.1:1" } }\n'
    local function on(protocol, keys)
      return ('m.listener { port = 1, protocol = "%s", name = "in" }\nm.route { listeners = { "in" }, backends = "b", %s }\n')
        :format(protocol, keys)
    end
    for text, wanted in pairs {
      ['m.listener { port = 1 }\nm.route { path = "/", backends = "b", preread = function() end }\n'] =
        '4: route "/": preread: it is for listeners with protocol "tcp" or "tls"',
      [on("udp", "preread = function() end")] =
        'preread: has no meaning for a listener with protocol "udp"',
      [on("tcp", 'plugins = { { "cors", origins = { "*" } } }')] =
        'plugins%[1%]: has no meaning without requests, it has no preread: "cors"',
      [on("tcp", "preread = 5")] =
        'preread: .*a function',
    } do
      local result = h.exec { "check", (h.write_file(HEAD .. text)) }
      assert.equal(1, result.code, text)
      assert.truthy(result.stderr:find(wanted), text .. "\n" .. result.stderr .. "\nwanted: " .. wanted)
    end
  end))
end)
