-- TLS routes: connections of listeners with protocol = "tls", parted by the name they ask for; passed through, or ended here.
local cjson = require "cjson.safe"
local h = require "test.support.harness"
local hello = require "test.support.hello"
local ports = require "test.support.ports"
local tls = require "test.support.tls"

if not h.has_binary() then
  describe("TLS routes", function() pending "no binary: set MOONGATE_BIN" end)
  return
end

local set, site, other

setup(function()
  set = tls.certs()
  if not set then return end
  site = set:issue { name = "site", sans = "DNS:site.example" }
  other = set:issue { name = "other", sans = "DNS:other.example,DNS:db.example" }
end)

teardown(function()
  if set then set:remove() end
end)

local function test(body) return tls.test(function() return set end, body) end

-- Says who it is, then gives back what comes, and ends when the client has.
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

-- A text with the port, endpoints by name, and `body`.
local function config(port, backends, body, settings)
  local out = { 'local m = require "moongate"', ("m.settings { workers = 1, %s }"):format(settings or "") }
  for name, backend in pairs(backends) do
    out[#out + 1] = ('m.upstream { name = "%s", endpoints = { "%s" } }'):format(name,
      type(backend) == "string" and backend or type(backend) == "number" and "127.0.0.1:" .. backend or backend:address())
  end
  return table.concat(out, "\n") .. "\n" .. body:gsub("PORT", tostring(port))
end

local function start(backends, body, settings)
  local port = ports.free()
  local gateway = h.gateway { config = config(port, backends, body, settings) }
  return gateway
end

local PASS = 'm.listener { port = PORT, address = "127.0.0.1", protocol = "tls", name = "in", tls = { mode = "passthrough" } }\n'

local function pair_of(pair) return ("{ { cert = %q, key = %q } }"):format(pair.cert, pair.key) end

local function reason(gateway, name, count)
  gateway:wait_metrics(name, function(metrics)
    return metrics[('moongate_connections_refused_total{reason="%s"}'):format(name)] == (count or 1)
  end)
  gateway:expect_quiet()
end

-- openssl's server, which turns every line around.
local function server(pair, args)
  local port = ports.free()
  local process = h.spawn("/bin/sh", { args = { "-c", ("exec openssl s_server -accept 127.0.0.1:%d -cert %s -key %s %s")
    :format(port, pair.cert, pair.key, args or "-rev") } })
  process:wait_output "ACCEPT"
  return port
end

local ALERT_NAME = "\21\3\1\0\2\2\112"
local ALERT_DECODE = "\21\3\1\0\2\2\50"

describe("TLS passed through", function()
  it("reaches the endpoint that has the name, with its own certificate", test(function()
    local a, b = server(site), server(other)
    local gateway = start({ a = a, b = b }, PASS .. [[
m.route { listeners = { "in" }, hosts = { "site.example" }, backends = "a" }
m.route { listeners = { "in" }, hosts = { "*.example" }, backends = "b" }
]])
    for name, subject in pairs { ["site.example"] = "site", ["other.example"] = "other", ["SITE.example"] = "site" } do
      local output = tls.s_client(gateway, ("-servername %s -CAfile %s"):format(name, set.ca), "echo hello; sleep 1")
      assert.truthy(output:find("subject=CN = " .. subject, 1, true), output)
      assert.truthy(output:find "Verify return code: 0", output)
      assert.truthy(output:find "olleh", output)
    end
    gateway:expect_quiet()
    assert.is_nil(gateway:metrics().moongate_tls_handshakes_total ~= 0 or nil)
  end))

  it("prefers exact names, then longer wildcards, then the route without hosts; no route is an alert", h.test(function()
    local names = { "exact", "deep", "wide", "rest" }
    local backends = {}
    for _, name in ipairs(names) do backends[name] = h.backend(echo(name)) end
    local routes = [[
m.route { listeners = { "in" }, hosts = { "a.b.example" }, backends = "exact" }
m.route { listeners = { "in" }, hosts = { "*.b.example" }, backends = "deep" }
m.route { listeners = { "in" }, hosts = { "*.example" }, backends = "wide" }
]]
    local gateway = start(backends, PASS .. routes .. 'm.route { listeners = { "in" }, backends = "rest" }\n')
    local function who(gw, sni)
      local client = gw:connect()
      client:send(hello.new { sni = sni })
      local text = client:read(4) or client:peek()
      client:close()
      return text
    end
    assert.equal("exac", who(gateway, "a.b.example"))
    assert.equal("exac", who(gateway, "A.B.example."))
    assert.equal("deep", who(gateway, "x.b.example"))
    assert.equal("deep", who(gateway, "x.y.b.example"))
    assert.equal("wide", who(gateway, "b.example"))
    assert.equal("rest", who(gateway, "example"))
    assert.equal("rest", who(gateway, nil))
    gateway:expect_quiet()
    gateway = start({ exact = backends.exact, deep = backends.deep, wide = backends.wide }, PASS .. routes)
    for count, sni in ipairs { "example", "elsewhere", false } do
      local client = gateway:connect()
      client:send(hello.new { sni = sni or nil })
      assert.equal(ALERT_NAME, client:read_all())
      assert.is_nil(client.failure)
      client:close()
      reason(gateway, "hello_name", count)
    end
  end))

  it("passes every byte, the ClientHello first, and keeps half-closed connections open", h.test(function()
    local backend = h.backend(function(connection)
      local asked = connection:read_all()
      connection:send("you said " .. #asked)
      connection:flush()
    end)
    local gateway = start({ b = backend }, PASS .. 'm.route { listeners = { "in" }, backends = "b" }\n')
    for _, record in ipairs { 16384, 100, 1 } do
      local bytes = hello.new { sni = "x.example", record = record }
      local client = gateway:connect()
      client:send(bytes .. ("x"):rep(300000))
      client:shutdown()
      assert.equal("you said " .. #bytes + 300000, client:read_all())
      assert.is_true(backend.connections[#backend.connections]:bytes():sub(1, #bytes) == bytes)
      client:close()
    end
    gateway:expect_quiet()
    assert.is_true(gateway:metrics().moongate_spliced_bytes_total > 0)
  end))

  it("takes a ClientHello byte by byte, and refuses one that does not come in time", h.test(function()
    local backend = h.backend(echo "hi")
    local gateway = start({ b = backend }, PASS .. 'm.route { listeners = { "in" }, backends = "b" }\n',
      "timeouts = { handshake = 1 }")
    local bytes, pieces = hello.new { sni = "x.example" }, {}
    for i = 1, #bytes do pieces[i] = bytes:sub(i, i) end
    local client = gateway:connect()
    client:send_pieces(pieces)
    assert.equal("hi" .. bytes, client:read(2 + #bytes))
    client:close()
    client = gateway:connect()
    h.takes(900, 1500, function()
      for i = 1, 20 do
        client:send(bytes:sub(i, i))
        h.pass(50)
      end
      client:wait_end()
    end)
    assert.is_nil(client.failure)
    reason(gateway, "hello_timeout")
    client = gateway:connect()
    h.takes(900, 1500, function() client:wait_end() end)
    reason(gateway, "hello_timeout", 2)
  end))

  it("closes what is no good ClientHello cleanly, and counts why", h.test(function()
    local backend = h.backend(echo "hi")
    local gateway = start({ b = backend }, PASS .. 'm.route { listeners = { "in" }, backends = "b" }\n')
    local good = hello.new { sni = "x.example" }
    local function try(bytes, wanted, why, count, ends)
      local client = gateway:connect()
      client:send(bytes)
      if ends then client:shutdown() end
      assert.equal(wanted, client:read_all())
      assert.is_nil(client.failure)
      client:close()
      reason(gateway, why, count)
    end
    try(good:sub(1, 40), "", "hello_cut", 1, true)
    try("", "", "hello_cut", 2, true)
    try(hello.new { sni = "x.example", padding = 16384 }, ALERT_DECODE, "hello_oversize", 1)
    try(hello.new { sni = "x.example", padding = 9000, record = 3 }, ALERT_DECODE, "hello_oversize", 2)
    try(hello.new { sni = ("x"):rep(256) }, ALERT_DECODE, "hello_malformed", 1)
    try(hello.new { sni = "a b" }, ALERT_DECODE, "hello_malformed", 2)
    try(hello.new { raw = "\0\0" }, ALERT_DECODE, "hello_malformed", 3)
    try("\22\3\1\0\4\2\0\0\0", ALERT_DECODE, "hello_malformed", 4) -- a ServerHello
    local client = gateway:connect()
    client:send(good:sub(1, 40)):flush()
    client:reset()
    reason(gateway, "hello_cut", 3)
    assert.equal(0, #backend.connections)
  end))

  it("notices an end that came with the ClientHello, behind a PROXY header", h.test(function()
    local backend = h.backend(function(connection)
      local asked = connection:read_all()
      connection:send("you said " .. #asked)
      connection:flush()
    end)
    local gateway = start({ b = backend }, (PASS:gsub("tls =", 'proxy_protocol = { trusted = { "127.0.0.1" } }, tls =')) ..
      'm.route { listeners = { "in" }, backends = "b" }\n')
    local header, good = "PROXY TCP4 192.0.2.7 198.51.100.2 56324 443\r\n", hello.new { sni = "x.example" }
    local function ask(bytes)
      local client, text = gateway:connect(), nil
      gateway:frozen(function()
        client:send(header .. bytes)
        client:shutdown()
      end)
      h.takes(0, 1000, function() text = client:read_all() end)
      assert.is_nil(client.failure)
      client:close()
      return text
    end
    assert.equal("you said " .. #good, ask(good)) -- which is passed on: half closed
    assert.equal("you said " .. #good + 100000, ask(good .. ("x"):rep(100000)))
    assert.equal("", ask(good:sub(1, 40)))
    reason(gateway, "hello_cut")
    assert.equal("", ask "")
    reason(gateway, "hello_cut", 2)
    local client = gateway:connect()
    client:send(header .. good:sub(1, 40)):flush()
    client:reset()
    h.takes(0, 1000, function() gateway:expect_quiet() end)
    assert.equal(2, #backend.connections)
  end))

  it("tells who speaks without TLS, in words of HTTP", h.test(function()
    local gateway = start({ b = h.backend(echo "hi") }, PASS .. 'm.route { listeners = { "in" }, backends = "b" }\n')
    local response = gateway:get "/"
    assert.equal(400, response.status)
    assert.truthy(response.body:find "This port speaks TLS")
    local client = gateway:connect()
    client:send "\0\1garbage"
    assert.truthy(client:read_all():find "^HTTP/1.1 400")
    client:close()
    gateway:expect_quiet()
    assert.equal(2, gateway:metrics()['moongate_tls_handshake_failures_total{reason="plaintext"}'])
  end))

  it("lives through reloads, and new connections go where the new configuration says", h.test(function()
    local old, new = h.backend(echo "old"), h.backend(echo "new")
    local port = ports.free()
    local function text(backend)
      return config(port, { b = backend }, PASS .. 'm.route { listeners = { "in" }, hosts = { "*.example" }, backends = "b" }\n')
    end
    local gateway = h.gateway { config = text(old) }
    local client = gateway:connect()
    local bytes = hello.new { sni = "x.example" }
    client:send(bytes)
    assert.equal("old" .. bytes, client:read(3 + #bytes))
    local half = gateway:connect() -- before its ClientHello is whole
    half:send(bytes:sub(1, 20)):flush()
    gateway:rewrite(text(new))
    assert.equal(0, gateway:ask("reload").code)
    half:send(bytes:sub(21))
    assert.equal("new" .. bytes, half:read(3 + #bytes))
    client:send "still here"
    assert.equal("still here", client:read(10))
    client:close()
    half:close()
    gateway:expect_quiet()
  end))

  it("has limits for clients and an idle timeout, and is listed and logged", h.test(function()
    local gateway = start({ b = h.backend(echo "hi") },
      (PASS:gsub("tls =", "limits = { per_client = 2 }, tls =")) ..
      'm.route { name = "pass", listeners = { "in" }, hosts = { "x.example" }, backends = "b", timeouts = { idle = 0.5 } }\n',
      'access_log = { file = "stdout", fields = { "protocol", "scheme", "route", "upstream", "status" } }')
    local first, second = gateway:connect(), gateway:connect()
    first:send(hello.new { sni = "x.example" })
    assert.equal("hi", first:read(2))
    local third = gateway:connect()
    assert.equal("", third:read_all())
    assert.equal(1, gateway:metrics()['moongate_connections_refused_total{reason="client_limit"}'])
    local rows = gateway:ask_json("/connections").connections
    assert.equal("tls", rows[1].state)
    assert.equal("pass", rows[1].route)
    second:close()
    h.takes(200, 1200, function() first:wait_end() end)
    gateway:expect_quiet()
    gateway:stop()
    local line = cjson.decode(gateway.stdout:match "[^\n]+")
    assert.equal("TLS", line.protocol)
    assert.equal("tls", line.scheme)
    assert.equal("pass", line.route)
    assert.equal("b", line.upstream)
  end))

  it("stands behind a PROXY header", h.test(function()
    local gateway = start({ b = h.backend(echo "hi") },
      (PASS:gsub("tls =", 'proxy_protocol = { trusted = { "127.0.0.1" } }, tls =')) ..
      'm.route { listeners = { "in" }, hosts = { "x.example" }, backends = "b" }\n')
    local bytes = hello.new { sni = "x.example" }
    for _, together in ipairs { true, false } do
      local client = gateway:connect()
      client:send "PROXY TCP4 192.0.2.1 198.51.100.2 5000 443\r\n"
      if not together then
        client:flush()
        h.pass(20)
      end
      client:send(bytes)
      assert.equal("hi" .. bytes, client:read(2 + #bytes))
      client:close()
    end
    gateway:expect_quiet()
  end))
end)

describe("TLS ended before a TCP route", function()
  local function ended(listener, route)
    return ('m.listener { port = PORT, address = "127.0.0.1", protocol = "tls", name = "in", tls = { certificates = %s %s } }\n')
      :format(pair_of(site), listener or "") .. (route or 'm.route { listeners = { "in" }, backends = "b" }\n')
  end

  it("gives the endpoint what was encrypted", test(function()
    local gateway = start({ b = h.backend(echo "220 hello\n") }, ended())
    local output = tls.s_client(gateway, "-servername site.example -CAfile " .. set.ca, "sleep 1; echo over; sleep 1")
    assert.truthy(output:find "Verify return code: 0", output)
    assert.truthy(output:find "220 hello", output)
    assert.truthy(output:find "over", output)
    gateway:expect_quiet()
    assert.equal(1, gateway:metrics().moongate_tls_handshakes_total)
  end))

  it("agrees on no protocol, whatever the client offers", test(function()
    local gateway = start({ b = h.backend(echo "hi\n") }, ended())
    local output = tls.s_client(gateway, "-alpn postgresql,h2", "sleep 1")
    assert.truthy(output:find "No ALPN negotiated", output)
    assert.truthy(output:find "hi\n", output)
  end))

  it("keeps half-closed connections open, by close_notify", test(function()
    local backend = h.backend(function(connection)
      local asked = connection:read_all()
      connection:send(("you said %d "):format(#asked) .. ("y"):rep(200000))
      connection:flush(20000)
    end)
    local gateway = start({ b = backend }, ended())
    local script = [[
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
raw = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
ins, outs = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = context.wrap_bio(ins, outs, server_hostname="site.example")
def push():
    if outs.pending: raw.sendall(outs.read())
def pull():
    got = raw.recv(65536)
    if got: ins.write(got)
    else: ins.write_eof()
def drive(step):
    while True:
        try:
            result = step()
            push()
            return result
        except ssl.SSLWantReadError:
            push()
            pull()
drive(tls.do_handshake)
for _ in range(100):
    tls.write(b"x" * 1000)
push()
try:
    tls.unwrap() # our close_notify
except ssl.SSLWantReadError:
    pass
push()
total = b""
while True:
    try:
        got = tls.read(65536)
        if not got: break
        total += got
    except ssl.SSLWantReadError:
        pull()
    except ssl.SSLZeroReturnError:
        print("closed in good order"); break
print(total[:15], len(total))
]]
    local path = h.write_file(script, "client.py")
    local output = tls.run("python3 %s %d %s 2>&1", path, gateway.port, set.ca)
    assert.truthy(output:find("b'you said 100000' 200016", 1, true), output)
    assert.truthy(output:find "closed in good order", output)
    backend:wait_connections(1)
    h.loop.wait(backend.connections[1].changed, 5000, "the end", function() return backend.connections[1]:has_ended() end)
    assert.equal(100000, #backend.connections[1]:bytes())
    gateway:expect_quiet()
  end))

  it("tells the endpoint of a client that was cut off", test(function()
    local backend = h.backend(function(connection) connection:read_all() end)
    local gateway = start({ b = backend }, ended())
    tls.run("(echo hello; sleep 3) | timeout -s KILL 2 openssl s_client -connect 127.0.0.1:%d -quiet 2>&1; true", gateway.port)
    gateway:expect_quiet()
    assert.equal("hello\n", backend.connections[1]:bytes())
    assert.equal("ECONNRESET", backend.connections[1].failure)
  end))

  it("answers plain HTTP with a hint, and counts bad handshakes", test(function()
    local gateway = start({ b = h.backend(echo "hi") }, ended())
    assert.equal(400, gateway:get("/").status)
    local output = tls.s_client(gateway, "-tls1_1 -cipher ALL:@SECLEVEL=0")
    assert.truthy(output:find "alert", output)
    gateway:expect_quiet()
    local metrics = gateway:metrics()
    assert.equal(1, metrics['moongate_tls_handshake_failures_total{reason="plaintext"}'])
    assert.equal(1, metrics['moongate_tls_handshake_failures_total{reason="protocol"}'])
  end))

  it("asks clients for certificates as HTTPS does", test(function()
    local me = set:issue { name = "me", sans = "DNS:me.example" }
    local gateway = start({ b = h.backend(echo "hi\n") }, ended((", client = { ca = %q }"):format(set.ca)))
    local output = tls.s_client(gateway, "-servername site.example", "sleep 1")
    assert.truthy(output:find "certificate required" or output:find "alert", output)
    assert.is_nil(output:find "hi\n")
    output = tls.s_client(gateway, ("-servername site.example -cert %s -key %s"):format(me.cert, me.key), "sleep 1")
    assert.truthy(output:find "hi\n", output)
    gateway:expect_quiet()
    assert.equal(1, gateway:metrics()['moongate_tls_handshake_failures_total{reason="certificate"}'])
  end))

  it("encrypts again where the upstream wants it", test(function()
    local port = ports.free()
    local inner = server(other)
    local gateway = h.gateway { config = (([[
local m = require "moongate"
m.settings { workers = 1 }
m.upstream { name = "b", endpoints = { "127.0.0.1:INNER" }, tls = { verify = false } }
]] .. ended()):gsub("PORT", tostring(port)):gsub("INNER", tostring(inner))) }
    local output = tls.s_client(gateway, "-servername site.example", "echo hello; sleep 1")
    assert.truthy(output:find "subject=CN = site", output)
    assert.truthy(output:find "olleh", output)
    gateway:expect_quiet()
  end))
end)

describe("one port of TLS", function()
  it("passes some names through, ends others, and has HTTPS for more", test(function()
    local inner = server(other)
    local gateway = start({ pass = inner, raw = h.backend(echo "raw\n"), echo = "builtin:echo" }, ([[
m.listener { port = PORT, address = "127.0.0.1", protocol = "tls", name = "pass", hostname = "other.example", tls = { mode = "passthrough" } }
m.listener { port = PORT, address = "127.0.0.1", protocol = "tls", name = "ended", hostname = "db.example", tls = { certificates = %s } }
m.listener { port = PORT, address = "127.0.0.1", protocol = "https", name = "web", hostname = "site.example", tls = { certificates = %s } }
m.route { listeners = { "pass" }, backends = "pass" }
m.route { listeners = { "ended" }, hosts = { "db.example" }, backends = "raw" }
m.route { path = "/", backends = "echo" }
]]):format(pair_of(other), pair_of(site)))
    for _ = 1, 2 do
      local output = tls.s_client(gateway, "-servername other.example", "echo hello; sleep 1")
      assert.truthy(output:find "olleh", output)
      output = tls.s_client(gateway, "-servername db.example", "sleep 1")
      assert.truthy(output:find "subject=CN = other", output)
      assert.truthy(output:find "raw\n", output)
      local code
      output, code = tls.curl(gateway, set.ca, "site.example", "-w '%{http_version} %{http_code}'")
      assert.equal(0, code, output)
      assert.truthy(output:find "2 200", output)
      output = tls.s_client(gateway, "-servername else.example")
      assert.truthy(output:find "unrecognized name", output)
    end
    reason(gateway, "hello_name", 2)
    -- a request on the connection of HTTPS for a name that TLS listeners have needs another connection
    for host, status in pairs { ["other.example"] = "421", ["Db.example"] = "421", ["else.example"] = "404" } do
      assert.equal(status, (tls.curl(gateway, set.ca, "site.example", "-o /dev/null -w '%{http_code}' -H 'Host: " .. host .. "'")))
    end
    assert.equal(400, gateway:get("/").status)
    gateway:expect_quiet()
  end))
end)

describe("the check of TLS routes", function()
  local HEAD = 'local m = require "moongate"\nm.upstream { name = "b", endpoints = { "127.0.0.1:1" } }\n'
  local IN = 'm.listener { port = 1, protocol = "tls", name = "in", hostname = "*.example", tls = { mode = "passthrough" } }\n'
  local function route(keys) return ('m.route { listeners = { "in" }, backends = "b", %s }\n'):format(keys or "") end

  it("accepts what has a meaning", h.test(function()
    for _, text in ipairs {
      IN .. route(), IN .. route 'hosts = { "a.example", "*.b.example" }', IN .. route 'hosts = { "a.example" }' .. route(),
      IN .. route 'hosts = { "*.org", "a.example" }',
    } do
      local result = h.exec { "check", (h.write_file(HEAD .. text)) }
      assert.equal(0, result.code, result.stderr)
    end
  end))

  it("names what is wrong, where, and what would be right", h.test(function()
    for text, wanted in pairs {
      [IN .. route 'path = "/x"'] = '4: route "/x": path: has no meaning for a listener with protocol "tls"',
      [IN .. route 'hosts = { "a.org" }'] = 'hosts: none of these is for the listener "in"',
      [IN .. route 'hosts = { "a:80" }'] = 'hosts%[1%]: not a host to match: "a:80"',
      [IN .. route 'hosts = {}'] = 'hosts: takes no connection',
      [IN .. route 'hosts = { "a.example" }' .. route 'name = "x", hosts = { "A.example" }'] =
        'hosts: there is a route already for "a.example", in line 4',
      [IN .. route() .. route 'name = "x"'] = 'listeners%[1%]: there is a route already for every name of "in", in line 4',
      [IN] = '3: listener: name: no route names the listener "in"',
      ['m.listener { port = 1, protocol = "tls", name = "in" }\n' .. route()] = 'tls: missing: protocol = "tls" needs a mode',
      ['m.listener { port = 1, protocol = "tls", tls = { mode = "passthrough" } }\n'] = 'name: missing',
      ['m.listener { port = 1, protocol = "tls", name = "in", tls = {} }\n' .. route()] = 'tls: no certificates',
      ['m.listener { port = 1, protocol = "tls", name = "in", tls = { mode = "pass" } }\n' .. route()] = 'tls.mode',
      ['m.listener { port = 1, protocol = "tls", name = "in", tls = { mode = "passthrough", tickets = true } }\n' .. route()] =
        'tls.tickets: has no meaning with mode "passthrough"',
      ['m.listener { port = 1, protocol = "https", tls = { mode = "passthrough" } }\n' .. route()] =
        'tls.mode: requests are read here: TLS cannot pass',
      [IN .. 'm.listener { port = 1, name = "web" }\n' .. route()] =
        'protocol: the listener of line 3 has another on this port.-unless all of them have detect = true',
      [IN .. 'm.listener { port = 1, protocol = "tls", name = "d", hostname = "*.example", tls = { mode = "passthrough" } }\n' ..
        route()] = 'hostname: the listener of line 3 has "%*.example" on 0.0.0.0:1 already',
    } do
      local result = h.exec { "check", (h.write_file(HEAD .. text)) }
      assert.equal(1, result.code, text)
      assert.truthy(result.stderr:find(wanted), text .. "\n" .. result.stderr .. "\nwanted: " .. wanted)
    end
  end))
end)
