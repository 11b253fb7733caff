-- What a listener asks before any request: limits of connections, and unix sockets as addresses.
local uv = require "luv"
local h = require "test.support.harness"
local tls = require "test.support.tls"

if not h.has_binary() then
  describe("limits of listeners", function() pending "no binary: set MOONGATE_BIN" end)
  return
end

local GET = "GET / HTTP/1.1\r\nHost: h.example\r\n%s\r\n"

local function start(listener, options)
  options = options or {}
  return h.gateway { config = ([[
local m = require "moongate"
m.settings { workers = %d, %s }
m.listener { address = "127.0.0.1", port = 0, name = "l", %s }
m.upstream { name = "b", endpoints = { "builtin:echo" } }
m.route { path = "/", backends = "b" }
]]):format(options.workers or 1, options.settings or "", listener) }
end

local function answers(client)
  client:send(GET:format "")
  local response = h.read_response(client)
  return response and response.status
end

local function refused(gateway, reason)
  return gateway:metrics()[('moongate_connections_refused_total{reason="%s"}'):format(reason)]
end

describe("the limits of a listener", function()
  it("bound its connections, over all workers #threads", h.test(function()
    local gateway = start("limits = { connections = 4 }", { workers = 2 })
    local clients = {}
    for i = 1, 4 do
      clients[i] = gateway:connect()
      assert.equal(200, answers(clients[i]))
    end
    for i = 1, 3 do
      local over = gateway:connect()
      assert.equal("eof", over:wait_end())
      assert.equal(i, refused(gateway, "listener_limit"))
    end
    clients[1]:close()
    gateway:wait_metrics("three", function(m) return m.moongate_connections_live == 3 end)
    assert.equal(200, answers(gateway:connect()))
  end))

  it("bound the connections of each client address #threads", h.test(function()
    local gateway = start("limits = { per_client = 2 }", { workers = 2 })
    local function from(source) return gateway:connect { source = source } end
    local one, two = from "127.0.0.2", from "127.0.0.2"
    assert.equal(200, answers(one))
    assert.equal(200, answers(two))
    assert.equal("eof", from("127.0.0.2"):wait_end())
    assert.equal(200, answers(from "127.0.0.3"))
    assert.equal(1, refused(gateway, "client_limit"))
    one:close()
    gateway:wait_metrics("two", function(m) return m.moongate_connections_live == 2 end)
    assert.equal(200, answers(from "127.0.0.2"))
    assert.equal("eof", from("127.0.0.2"):wait_end())
  end))

  it("bound the handshakes that are under way, and not the connections that have done theirs #threads", h.test(function()
    local set = tls.certs()
    if not set then return pending "there is no openssl" end
    local site = set:issue { name = "site", sans = "DNS:localhost" }
    local function serve(limits)
      local gateway = start(('protocol = "https", tls = { certificates = { { cert = %q, key = %q } } }, limits = %s')
        :format(site.cert, site.key, limits), { workers = 2, settings = "timeouts = { handshake = 60 }" })
      return gateway, function() return (tls.curl(gateway, set.ca, "localhost", "-o /dev/null -w '%{http_code}'")) end
    end
    local gateway, ask = serve "{ handshakes = 3 }"
    local slow = {}
    for i = 1, 2 do
      slow[i] = gateway:connect()
      slow[i]:send "\22\3\1" -- and never the rest
    end
    gateway:wait_metrics("two", function(m) return m.moongate_connections_live == 2 end)
    h.spawn("/bin/sh", { args = { "-c", ("sleep 30 | openssl s_client -quiet -connect 127.0.0.1:%d 2>&1"):format(gateway.port) } })
    gateway:wait_metrics("one that is done", function(m) return m.moongate_tls_handshakes_total == 1 end)
    assert.equal("200", ask()) -- those that are done do not count
    slow[3] = gateway:connect()
    gateway:wait_metrics("the third", function(m) return m.moongate_connections_live == 4 end)
    assert.equal("eof", gateway:connect():wait_end())
    assert.equal(1, refused(gateway, "handshake_limit"))
    slow[1]:close()
    gateway:wait_metrics("it is gone", function(m) return m.moongate_connections_live == 3 end)
    assert.equal("200", ask())

    gateway, ask = serve "{ handshakes_per_client = 1 }"
    slow[4] = gateway:connect { source = "127.0.0.2" }
    gateway:wait_metrics("one", function(m) return m.moongate_connections_live == 1 end)
    assert.equal("eof", gateway:connect({ source = "127.0.0.2" }):wait_end())
    assert.equal(1, refused(gateway, "client_handshake_limit"))
    assert.equal("200", ask()) -- of another client
    slow[4]:send "GET / HTTP/1.1\r\n\r\n" -- a handshake that fails is over, too
    slow[4]:close()
    gateway:wait_metrics("none", function(m) return m.moongate_connections_live == 0 end)
    slow[5] = gateway:connect { source = "127.0.0.2" }
    assert.is_false(slow[5]:has_more(100))
    assert.equal(1, refused(gateway, "client_handshake_limit"))
    set:remove()
  end), 60000)

  it("of handshakes have no meaning without TLS: the check says so", h.test(function()
    local path = h.write_file 'require("moongate").listener { port = 1, limits = { handshakes = 3 } }'
    local result = h.exec { "check", path }
    assert.equal(1, result.code)
    assert.truthy(result.stderr:find('limits.handshakes: has no meaning with protocol "http"', 1, true), result.stderr)
  end))

  it("take the addresses of one IPv6 network for one client, and IPv4 within IPv6 for itself", h.test(function()
    local gateway = start 'limits = { per_client = 1 }, proxy_protocol = { trusted = { "127.0.0.1" } }'
    local kept = {}
    local function is_served(source)
      local client = gateway:connect()
      kept[#kept + 1] = client
      client:send(("PROXY TCP6 %s ::1 1 2\r\n"):format(source) .. GET:format "")
      local response = h.read_response(client)
      return response ~= nil
    end
    assert.is_true(is_served "2001:db8::1")
    assert.is_false(is_served "2001:db8::2")
    assert.is_false(is_served "2001:db8::ffff:ffff:ffff:ffff")
    assert.is_true(is_served "2001:db8:0:1::1")
    assert.is_true(is_served "::ffff:192.0.2.1")
    assert.is_true(is_served "::ffff:192.0.2.2")
    assert.equal(2, refused(gateway, "client_limit"))
  end))

  it("go by the client that a PROXY header names", h.test(function()
    local gateway = start 'limits = { per_client = 1 }, proxy_protocol = { trusted = { "127.0.0.1" } }'
    local clients = {}
    for i = 1, 2 do
      clients[i] = gateway:connect()
      clients[i]:send(("PROXY TCP4 192.0.2.%d 127.0.0.1 1 2\r\n"):format(i))
      assert.equal(200, answers(clients[i]))
    end
    local over = gateway:connect()
    over:send("PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n" .. GET:format "")
    assert.equal("", over:read_all())
    clients[1]:close()
    gateway:wait_metrics("one", function(m) return m.moongate_connections_live == 1 end)
    over = gateway:connect()
    over:send "PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n"
    assert.equal(200, answers(over))
  end))
end)

-- A connection to a unix socket, as h.stream gives it.
local function connect_unix(path)
  local pipe, outcome, done = uv.new_pipe(false), nil, h.loop.signal()
  pipe:connect(path, function(err)
    outcome = err or "connected"
    done:fire()
  end)
  h.loop.wait(done, 5000, "a connection to " .. path, function() return outcome ~= nil end)
  assert(outcome == "connected", outcome)
  return h.stream.wrap(pipe)
end

describe("a unix socket", function()
  local function path_of()
    return ("%s/moongate-spec-%d-%d.traffic"):format(uv.os_tmpdir(), uv.os_getpid(), uv.hrtime())
  end

  it("is an address of a listener, for all workers, and is gone at the end", h.test(function()
    local path = path_of()
    local backend = h.backend()
    local gateway = h.gateway { config = ([[
local m = require "moongate"
m.settings { workers = 2, access_log = { file = "stdout", fields = { "client", "status" } } }
m.listener { address = { "unix:%s", "127.0.0.1" }, port = 0, name = "both", mode = "0660" }
m.upstream { name = "b", endpoints = { "%s" } }
m.route { path = "/", backends = "b" }
]]):format(path, backend:address()) }
    gateway:wait_log("listening on unix:" .. path:gsub("%p", "%%%0"))
    assert.equal(tonumber("660", 8), uv.fs_stat(path).mode % 512)
    for _ = 1, 10 do
      local client = connect_unix(path)
      client:send(GET:format "X-Forwarded-For: 203.0.113.1\r\n")
      assert.equal(200, h.read_response(client).status)
      client:close()
    end
    for i = 1, 10 do assert.is_nil(backend.requests[i].headers["x-forwarded-for"]) end
    local list = gateway:ask_json("/status").ports
    assert.equal("unix:" .. path, list[1])
    gateway:stop()
    assert.is_nil((uv.fs_stat(path)))
    assert.is_not_nil(gateway.stdout:find('{"client":null,"status":200}', 1, true))
  end))

  it("is kept over a reload, removed with its listener, and refused while another gateway serves it", h.test(function()
    local path = path_of()
    local function text(address)
      return ([[
local m = require "moongate"
m.settings { workers = 1 }
m.listener { address = { %s }, port = 0 }
m.upstream { name = "b", endpoints = { "builtin:echo" } }
m.route { path = "/", backends = "b" }
]]):format(address)
    end
    local gateway = h.gateway { config = text('"127.0.0.1", "unix:' .. path .. '"') }
    local client = connect_unix(path)
    client:send(GET:format "")
    assert.equal(200, h.read_response(client).status)
    gateway:rewrite(text('"127.0.0.1", "unix:' .. path .. '"') .. "-- again\n")
    assert.equal(0, gateway:ask("reload").code)
    client:send(GET:format "")
    assert.equal(200, h.read_response(client).status)
    local other = h.exec { "run", (h.write_file(text('"unix:' .. path .. '"'))), "--control", path .. ".c" }
    assert.equal(1, other.code)
    assert.is_not_nil(other.stderr:find "cannot listen on unix:", other.stderr)
    gateway:rewrite(text '"127.0.0.1"')
    assert.equal(0, gateway:ask("reload").code)
    assert.is_nil((uv.fs_stat(path)))
    client:close()
  end))

  it("takes a mode that a reload has changed", h.test(function()
    local path = path_of()
    local function text(mode)
      return ([[
local m = require "moongate"
m.settings { workers = 2 }
m.listener { address = { "unix:%s", "127.0.0.1" }, port = 0, mode = "%s" }
m.upstream { name = "b", endpoints = { "builtin:echo" } }
m.route { path = "/", backends = "b" }
]]):format(path, mode)
    end
    local gateway = h.gateway { config = text "0666" }
    gateway:wait_log("listening on unix:" .. path:gsub("%p", "%%%0"))
    assert.equal(tonumber("666", 8), uv.fs_stat(path).mode % 512)
    gateway:rewrite(text "0600")
    assert.equal(0, gateway:ask("reload").code)
    assert.equal(tonumber("600", 8), uv.fs_stat(path).mode % 512)
    gateway:expect_log "."
    gateway:rewrite((text "0660"):gsub("port = 0", "prot = 0"))
    assert.equal(1, gateway:ask("reload").code)
    assert.equal(tonumber("600", 8), uv.fs_stat(path).mode % 512)
  end))

  it("may have PROXY headers from whoever may open it, and TCP routes", h.test(function()
    local path = path_of()
    local backend = h.backend(function(connection)
      connection:send(connection:read(3))
      connection:flush()
    end)
    local gateway = h.gateway { config = ([[
local m = require "moongate"
m.settings { workers = 1 }
m.listener { address = "unix:%s", protocol = "tcp", name = "raw", proxy_protocol = { trusted = { "unix:" } } }
m.upstream { name = "b", endpoints = { "%s" } }
m.route { listeners = { "raw" }, backends = "b" }
]]):format(path, backend:address()), is_admin = true }
    local client = connect_unix(path)
    client:send "PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\nabc"
    assert.equal("abc", client:read(3))
    client:close()
    gateway:expect_quiet()
  end))

  it("may have TLS", h.test(function()
    local set = tls.certs()
    if not set then return pending "there is no openssl" end
    local site = set:issue { name = "site", sans = "DNS:localhost" }
    local path = set:path "site.sock"
    h.gateway { config = ([[
local m = require "moongate"
m.settings { workers = 1 }
m.listener { address = "unix:%s", protocol = "https", tls = { certificates = { { cert = %q, key = %q } } },
  limits = { handshakes = 2, handshakes_per_client = 2 } }
m.upstream { name = "b", endpoints = { "builtin:echo" } }
m.route { path = "/", backends = "b" }
]]):format(path, site.cert, site.key) }
    for _ = 1, 3 do
      assert.equal("200", (tls.run("curl -sS --max-time 5 --cacert %s --unix-socket %s https://localhost/ -o /dev/null -w '%%{http_code}'",
        set.ca, path)))
    end
    set:remove()
  end))

  it("has a path that is checked", h.test(function()
    local HEAD = 'local m = require "moongate"\nm.upstream { name = "b", endpoints = { "builtin:echo" } }\n' ..
      'm.route { path = "/", backends = "b" }\n'
    for text, wanted in pairs {
      ['m.listener { address = "unix:relative" }'] = "address: not a path for a socket",
      ['m.listener { address = "unix:/' .. ("x"):rep(120) .. '" }'] = "address: not a path for a socket",
      ['m.listener { address = "unix:/a", mode = "0999" }'] = "mode: not a mode",
      ['m.listener { address = "unix:/a" }\nm.listener { address = "unix:/a" }'] = "address: unix:/a is taken by the listener of line 4",
      ['m.listener { address = "127.0.0.1" }'] = "port: missing",
      ['m.listener { port = 1, limits = { connections = 0 } }'] = "limits.connections: found 0",
    } do
      local result = h.exec { "check", (h.write_file(HEAD .. text)) }
      assert.equal(1, result.code, text)
      assert.is_not_nil(result.stderr:find(wanted), text .. "\n" .. result.stderr)
    end
  end))
end)
