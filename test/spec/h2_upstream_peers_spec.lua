-- HTTP/2 to upstreams that are other people's programs, over TLS by ALPN and in clear, and the other things that go that way.
local cjson = require "cjson"
local h = require "test.support.harness"
local http2 = require "test.support.http2"
local loop = require "test.support.loop"
local ports = require "test.support.ports"
local tls = require "test.support.tls"

local set, pair

setup(function()
  set = tls.certs()
  if set then pair = set:issue { name = "good", sans = "DNS:localhost,IP:127.0.0.1" } end
end)

teardown(function()
  if set then set:remove() end
end)

local function has(program)
  local pipe = io.popen("command -v " .. program)
  local found = pipe:read "*l"
  pipe:close()
  return found ~= nil
end

-- A test with nghttpd and certificates; pending without.
local function test(body, ms)
  local own = getfenv(body)
  return h.test(setfenv(function()
    if not set then own.pending "there is no openssl" end
    if not has "nghttpd" then own.pending "there is no nghttpd (nghttp2-server)" end
    body()
  end, own), ms)
end

-- A directory with a file "big" of that many bytes.
local function root_of(len)
  local path, dir = h.write_file(("0123456789abcdef"):rep(len / 16), "big")
  return { dir = dir, path = path, close = function() os.remove(path) os.execute("rmdir " .. dir) end }
end

local function nghttpd(args)
  local port = ports.free()
  local process = h.spawn("/bin/sh", { args = { "-c", ("exec nghttpd --address=127.0.0.1 %d %s 2>&1"):format(port, args) } })
  for _ = 1, 500 do
    local probe = h.connect(port)
    if probe then
      probe:close()
      return port, process
    end
    loop.pass(20)
  end
  error("nghttpd does not listen: " .. process.output)
end

local function gateway_for(port, upstream, options)
  options = options or {}
  options.upstreams = { backend = "127.0.0.1:" .. port }
  options.upstream = upstream
  return h.gateway(options)
end

local function get(gateway, path)
  return gateway:request("GET " .. (path or "/big") .. " HTTP/1.1\r\nHost: localhost\r\n\r\n")
end

describe("http/2 to others' programs", function()
  it("is agreed on with TLS", test(function()
    local root = root_of(320000)
    local port = nghttpd(("%s %s -d %s"):format(pair.key, pair.cert, root.dir))
    for _, protocol in ipairs { "http2", "auto" } do
      local gateway = gateway_for(port, { protocol = protocol, tls = { ca = set.ca } })
      local client = http2.connect(gateway:connect(), { settings = http2.setting(4, 1048576) })
      client:window(0, 1048576):request(1, { [":path"] = "/big", [":authority"] = "localhost" })
      local response = client:response(1)
      assert.equal(200, response.status)
      assert.equal(320000, #response.body)
      assert.is_truthy(response.headers.server:find("nghttpd", 1, true))
      for _ = 1, 3 do assert.equal(320000, #get(gateway).body) end
      local metrics = gateway:metrics()
      assert.equal(1, metrics.moongate_upstream_connects_total)
      assert.equal(4, metrics.moongate_upstream_streams_total)
      client.stream:close()
      gateway:expect_quiet()
    end
    root.close()
  end))

  it("is not spoken by who does not choose it", test(function()
    local port = ports.free()
    local process = h.spawn("/bin/sh", { args = { "-c", ("exec openssl s_server -accept 127.0.0.1:%d -cert %s -key %s -www %s")
      :format(port, pair.cert, pair.key, "-alpn http/1.1") } })
    process:wait_output "ACCEPT"
    local strict = gateway_for(port, { protocol = "http2", tls = { ca = set.ca } })
    local response = get(strict, "/")
    assert.equal(502, response.status)
    strict:expect_log "no application protocol"
    local auto = gateway_for(port, { protocol = "auto", tls = { ca = set.ca } })
    for _ = 1, 3 do
      response = get(auto, "/")
      assert.equal(200, response.status)
      assert.is_truthy(response.body:find("s_server", 1, true))
    end
    assert.equal(1, auto:metrics().moongate_upstream_streams_refused_total) -- guessed wrongly once
    auto:expect_quiet()
  end))

  it("is not spoken by any of many endpoints, which costs no request", test(function()
    local endpoints = {}
    for i = 1, 4 do
      local port = ports.free()
      local process = h.spawn("/bin/sh", { args = { "-c", ("exec openssl s_server -accept 127.0.0.1:%d -cert %s -key %s -www %s")
        :format(port, pair.cert, pair.key, "-alpn http/1.1") } })
      process:wait_output "ACCEPT"
      endpoints[i] = "127.0.0.1:" .. port
    end
    local gateway = h.gateway { upstreams = { backend = endpoints }, upstream = { protocol = "auto", tls = { ca = set.ca } } }
    for _ = 1, 8 do assert.equal(200, get(gateway, "/").status) end
    assert.equal(4, gateway:metrics().moongate_upstream_streams_refused_total) -- each endpoint guessed wrongly once
    local calling = h.gateway { is_test = true, upstreams = { backend = endpoints },
      upstream = { protocol = "auto", tls = { ca = set.ca } },
      routes = { { path = "/", backends = "backend", plugins = { { "test-call", upstream = "backend", url = "/" } } } } }
    for _ = 1, 2 do
      local call = assert(cjson.decode(get(calling, "/").body)).calls[1]
      assert.equal(200, call.status)
    end
    gateway:expect_quiet()
  end))

  it("is not spoken by who gets a long upload first", test(function()
    local process = h.spawn("/usr/bin/python3", { args = { "-u", "-c", [[
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        text = str(len(self.rfile.read(int(self.headers["Content-Length"])))).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
context.set_alpn_protocols(["http/1.1"])
server.socket = context.wrap_socket(server.socket, server_side=True)
print("port", server.server_address[1], flush=True)
server.serve_forever()
]], pair.cert, pair.key } })
    local gateway = gateway_for(process:wait_output "port (%d+)", { protocol = "auto", tls = { ca = set.ca } })
    local response = gateway:request("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n" .. ("x"):rep(300000))
    assert.equal(200, response.status)
    assert.equal("300000", response.body)
    assert.equal(1, gateway:metrics().moongate_upstream_streams_refused_total)
    gateway:expect_quiet()
  end))

  it("is not spoken by who knows no ALPN", test(function()
    local port = ports.free()
    local process = h.spawn("/bin/sh", { args = { "-c", ("exec openssl s_server -accept 127.0.0.1:%d -cert %s -key %s -www")
      :format(port, pair.cert, pair.key) } })
    process:wait_output "ACCEPT"
    local response = get(gateway_for(port, { protocol = "http2", tls = { ca = set.ca } }), "/")
    assert.equal(502, response.status)
    assert.is_truthy(response.body:find("does not speak HTTP/2", 1, true))
    assert.equal(200, get(gateway_for(port, { protocol = "auto", tls = { ca = set.ca } }), "/").status)
  end))

  it("takes uploads and gives trailers", test(function()
    local port = nghttpd "--no-tls --echo-upload --trailer 'x-sum: 7'"
    local gateway = gateway_for(port, { protocol = "http2" })
    local body = ("0123456789abcdef"):rep(40000)
    local response = gateway:request(("POST /x HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: TE\r\nContent-Length: %d\r\n\r\n")
      :format(#body) .. body)
    assert.equal(body, response.body)
    assert.equal("7", response.trailers["x-sum"])
    gateway:expect_quiet()
  end))

  it("survives the death of a backend in the middle of streams", test(function()
    local root = root_of(8000000)
    local port, process = nghttpd(("--no-tls -d %s"):format(root.dir))
    local gateway = gateway_for(port, { protocol = "http2" })
    local clients = {}
    for i = 1, 10 do
      clients[i] = gateway:connect { limit = 65536 }
      clients[i].limit = 65536
      clients[i]:send "GET /big HTTP/1.1\r\nHost: h\r\n\r\n"
    end
    for i = 1, 10 do clients[i]:wait_total(65536) end
    process:signal "sigkill"
    process:wait_exit()
    for i = 1, 10 do
      clients[i].limit = nil
      clients[i]:resume()
      clients[i]:wait_end()
      assert.is_true(clients[i].total < 8000000)
    end
    assert.equal(502, get(gateway).status)
    gateway:expect_quiet()
    root.close()
  end))

  it("loses nothing while configurations come and go under load", test(function()
    local root = root_of(1600)
    local port = nghttpd(("--no-tls -d %s"):format(root.dir))
    local options = { upstreams = { backend = "127.0.0.1:" .. port }, upstream = { protocol = "http2" }, settings = { workers = 2 } }
    local gateway = h.gateway(options)
    local load = h.spawn("/bin/sh", { args = { "-c",
      ("exec h2load -n 20000 -c 8 -m 10 http://127.0.0.1:%d/big 2>&1"):format(gateway.port) } })
    local reloads = 0
    while load.code == nil and reloads < 200 do
      options.routes = { { path = "/", backends = "backend" }, { path = "/n" .. reloads, backends = "backend" } }
      gateway:rewrite(options)
      assert.equal(0, gateway:ask("reload").code)
      reloads = reloads + 1
    end
    load:wait_exit(60000)
    assert.is_truthy(load.output:find("20000 succeeded, 0 failed, 0 errored, 0 timeout", 1, true), load.output)
    assert.is_true(reloads > 1)
    assert.is_true(gateway:metrics().moongate_upstream_connects_total <= 8, "shared connections")
    gateway:expect_quiet()
  end, 120000))

  it("keeps to a limit of connections that workers share", test(function()
    local root = root_of(1600)
    local port = nghttpd(("--no-tls -d %s"):format(root.dir))
    local gateway = h.gateway { upstreams = { backend = "127.0.0.1:" .. port }, settings = { workers = 2 }, upstream = {
      protocol = "http2", limits = { connections = 1, streams = 3, pending = 100, pending_timeout = 20 } } }
    local output = tls.run("h2load -n 4000 -c 6 -m 5 http://127.0.0.1:%d/big 2>&1", gateway.port)
    assert.is_truthy(output:find("4000 succeeded, 0 failed, 0 errored, 0 timeout", 1, true), output)
    gateway:expect_quiet()
    root.close()
  end, 60000))

  it("is spoken for calls, too", h.test(function()
    local backend = h.backend(http2.each(function(server, request)
      server:respond(request.id, 200, { { "x-path", request.request[":path"] } }, { open = true })
        :data(request.id, "got " .. request.body, true)
    end))
    local gateway = h.script([[
      moongate.route { path = "/", access = function(exchange)
        local response = assert(moongate.http.request { upstream = "backend", url = "/call", method = "POST", body = "abc" })
        exchange:respond(response.status, response.body, { ["x-path"] = response.headers["x-path"] })
      end }
    ]], { backend = backend, upstream = { protocol = "http2" } })
    local response = get(gateway, "/")
    assert.equal("got abc", response.body)
    assert.equal("/call", response.headers["x-path"])
  end))

  it("is spoken between gateways, by clients of either protocol, tunnels beside it", test(function()
    local backend = h.backend(function(connection)
      while true do
        local request = connection:read_request()
        if not request then return end
        if request.headers.upgrade then
          connection:send "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
          while not connection:has_ended() do
            local bytes = connection:read(1, 60000)
            if bytes then connection:send(bytes) end
          end
          return
        end
        connection:send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" ..
          h.http1.chunked(request.body or "", 1000, "X-Sum: 5\r\n"))
      end
    end)
    local inner = tls.serve({ certificates = { pair } }, { backend = backend, settings = { via = true } })
    local outer = gateway_for(inner.port, { protocol = "auto", tls = { ca = set.ca, sni = "localhost" } }, { settings = { via = true } })
    local body = ("0123456789"):rep(10000)
    local response = outer:request(("POST / HTTP/1.1\r\nHost: localhost\r\nTE: trailers\r\nConnection: TE\r\n" ..
      "Content-Length: %d\r\n\r\n%s"):format(#body, body))
    assert.equal(200, response.status)
    assert.equal(body, response.body)
    assert.equal("5", response.trailers["x-sum"])
    assert.equal("1.1 moongate, 2.0 moongate", response.headers.via)
    local client = http2.connect(outer:connect(), { settings = http2.setting(4, 1048576) })
    client:window(0, 1048576)
    client:request(1, { [":method"] = "POST", [":authority"] = "localhost" }, nil, { open = true }):data(1, "abc", true)
    response = client:response(1)
    assert.equal("abc", response.body)
    assert.equal("5", response.trailers["x-sum"])
    local stream = outer:connect()
    stream:send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n" ..
      "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    assert.equal(101, h.read_response(stream).status)
    stream:send "ping"
    assert.equal("ping", stream:read(4))
    stream:close()
    client.stream:close()
    outer:expect_quiet()
  end))

  it("stands behind a PROXY header for one client each", h.test(function()
    local headers = {}
    local serve = http2.each(function(server, request)
      server:respond(request.id, 200, nil, { open = true }):data(request.id, "ok", true)
    end)
    local backend = h.backend(function(connection, index)
      headers[index] = connection:read_until("\r\n", 60000)
      if headers[index] then serve(connection, index) end
    end)
    local gateway = gateway_for(backend.port, { protocol = "http2", proxy_protocol = "v1" })
    local clients = {}
    for i = 1, 2 do
      clients[i] = http2.connect(gateway:connect())
      for k = 0, 9 do clients[i]:request(k * 2 + 1) end
      for k = 0, 9 do assert.equal("ok", clients[i]:response(k * 2 + 1).body) end
      assert.equal(clients[i].stream:local_port(), tonumber(headers[i]:match "^PROXY TCP4 127.0.0.1 127.0.0.1 (%d+) "))
    end
    assert.equal(2, #backend.connections)
    clients[1].stream:close()
    assert.equal("eof", backend.connections[1]:wait_end())
    clients[2].stream:close()
    gateway:expect_quiet()
  end))

  it("is balanced by streams", h.test(function()
    local backends, held = {}, {}
    for i = 1, 2 do
      backends[i] = h.backend(http2.each(function(server, request)
        held[#held + 1] = { server, request, i }
      end))
    end
    local gateway = h.gateway { upstreams = { backend = { backends[1]:address(), backends[2]:address() } },
      upstream = { protocol = "http2", balance = "least_request" } }
    local client = http2.connect(gateway:connect())
    for round = 0, 2 do
      for i = 0, 9 do client:request((round * 10 + i) * 2 + 1) end
      gateway:wait_metrics("ten", function() return #held == 10 end)
      local counts = { 0, 0 }
      for _, one in ipairs(held) do counts[one[3]] = counts[one[3]] + 1 end
      assert.same({ 5, 5 }, counts)
      for _, one in ipairs(held) do one[1]:respond(one[2].id, 204) end
      for i = 0, 9 do assert.equal(204, client:response((round * 10 + i) * 2 + 1).status) end
      held = {}
    end
    client.stream:close()
    gateway:expect_quiet()
  end))

  it("is told apart from what cannot be", h.test(function()
    local function refused(upstream, pattern)
      local path, dir = h.write_file(h.gateway_config { upstreams = { backend = upstream.endpoints }, upstream = upstream.keys })
      local result = h.exec { "check", path }
      os.remove(path)
      os.execute("rmdir " .. dir)
      assert.is_true(result.code ~= 0)
      assert.is_truthy(result.stderr:find(pattern), result.stderr)
    end
    refused({ endpoints = "127.0.0.1:1", keys = { protocol = "auto" } }, 'protocol: cannot be "auto".*say "http2"')
    refused({ endpoints = "127.0.0.1:1", keys = { protocol = "h2" } }, 'protocol.*"http2"')
    refused({ endpoints = "builtin:echo", keys = { protocol = "http2" } }, "protocol: cannot be.*built%-in")
    refused({ endpoints = "127.0.0.1:1", keys = { limits = { streams = 0 } } }, "limits.streams.*1 to 10000")
    refused({ endpoints = "127.0.0.1:1", keys = { limits = { pending = 5 } } }, "limits.connections.*missing")
  end))
end)
