-- Active health checks: endpoints that are down get no traffic, and get it again when they are up.
local h = require "test.support.harness"
local grpc = require "test.support.grpc"
local http2 = require "test.support.http2"
local tls = require "test.support.tls"

-- A backend that answers checks as `self.health` says (a function of the request that gives raw bytes), and names itself to others.
local function member(name, health)
  local self
  self = h.backend(h.each(function(request)
    local is_check = request.target == "/healthz" or request.target:find("/grpc.health", 1, true)
    if is_check then
      self.checks = (self.checks or 0) + 1
      self.check = request
      self.changed:fire()
      return self.health(request)
    end
    return h.http1.response("200 OK", name)
  end))
  self.health = health or h.http1.response and function() return h.http1.response("200 OK", "fine") end
  return self
end

local function bad() return h.http1.response("503 Service Unavailable", "not now") end
local function good() return h.http1.response("200 OK", "fine") end

local function script(members, health, more)
  local endpoints = {}
  for i, one in ipairs(members) do endpoints[i] = ("%q"):format(type(one) == "string" and one or one:address()) end
  return ([[
    moongate.upstream { name = "pool", endpoints = { %s }, health = { %s }%s }
    moongate.route { path = "/", backends = "pool" }
  ]]):format(table.concat(endpoints, ", "), health, more or "")
end

-- How often each name answers among so many requests; statuses of others.
local function tally(gateway, count)
  local seen = {}
  for _ = 1, count do
    local response = gateway:get "/"
    local key = response.status == 200 and response.body or response.status
    seen[key] = (seen[key] or 0) + 1
  end
  return seen
end

local DOWN = 'moongate_upstream_endpoints_down{upstream="pool"}'
local FAST = 'path = "/healthz", interval = 0.1, timeout = 0.1, healthy = 2, unhealthy = 2'

describe("health checks", function()
  it("leave out what is down from the first check on, and bring it back", h.test(function()
    local a, b = member("a"), member("b", bad)
    local gateway = h.script(script({ a, b }, FAST))
    gateway:wait_log("upstream \"pool\": " .. b:address() .. " is down: status 503", 5000)
    assert.same({ a = 6 }, tally(gateway, 6))
    local check = b.check
    assert.equal("GET", check.method)
    assert.equal("pool", check.headers.host)
    assert.truthy(check.headers["user-agent"]:find "^moongate/")
    b.health = good
    gateway:wait_log(b:address() .. " is up again", 5000)
    assert.same({ a = 3, b = 3 }, tally(gateway, 6))
    gateway:expect_quiet()
  end))

  it("turn a verdict only after so many in a row", h.test(function()
    local count = 0
    local a, b = member("a"), member "b"
    b.health = function()
      count = count + 1
      return (count % 3 == 0 or count > 9) and bad() or good() -- single failures, then only failures
    end
    local gateway = h.script(script({ a, b }, FAST))
    gateway:wait_log(b:address() .. " is down", 10000)
    assert.is_true(count >= 10, count) -- the ninth and the tenth
    assert.same({ a = 4 }, tally(gateway, 4))
  end, 20000))

  it("see refused connections, silence, and what is no HTTP", h.test(function()
    local silent = h.backend(function(connection) connection:wait_end(20000) end)
    local odd = h.backend(h.once "220 mail.example ESMTP\r\n")
    local dead = "127.0.0.1:" .. h.dead_port()
    local gateway = h.script(script({ silent, odd, dead }, FAST))
    gateway:wait_log(silent:address() .. " is down: no answer in time", 5000)
    gateway:wait_log(odd:address() .. " is down", 5000)
    gateway:wait_log(dead .. " is down: ", 5000)
    local response = gateway:get "/"
    assert.equal(503, response.status)
    assert.truthy(response.body:find("the upstream has no endpoint", 1, true))
    local metrics = gateway:metrics()
    assert.equal(3, metrics['moongate_upstream_endpoints_down{upstream="pool"}'])
    assert.is_true(metrics['moongate_upstream_health_failures_total{upstream="pool"}'] >= 3)
  end))

  it("read answers to their end, so that no server is reset", h.test(function()
    local ends, checks, ended = {}, 0, h.loop.signal()
    local backend = h.backend(function(connection)
      connection:read_head()
      connection:send(h.http1.response("200 OK", ("fine"):rep(8192))) -- longer than what one read takes
      ends[connection:wait_end(5000)] = true
      checks = checks + 1
      ended:fire()
    end)
    h.script(script({ backend }, FAST))
    h.loop.wait(ended, 5000, "three checks", function() return checks >= 3 end)
    assert.same({ eof = true }, ends)
  end))

  it("take the head's word where a body does not end", h.test(function()
    local checks, asked = 0, h.loop.signal()
    local backend = h.backend(function(connection)
      connection:read_head()
      checks = checks + 1
      asked:fire()
      connection:send "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
      connection:wait_end(20000)
    end)
    local gateway = h.script(script({ backend }, FAST))
    h.loop.wait(asked, 5000, "four checks", function() return checks >= 4 end)
    local metrics = gateway:metrics()
    assert.equal(0, metrics[DOWN])
    assert.equal(0, metrics['moongate_upstream_health_failures_total{upstream="pool"}'])
  end))

  it("survive a reload, and end with it where the checks are gone", h.test(function()
    local a, b = member("a"), member("b", bad)
    local gateway = h.script(script({ a, b }, FAST))
    gateway:wait_log(b:address() .. " is down", 5000)
    local before = b.checks
    gateway:reload_script(script({ a, b }, FAST, ", balance = \"least_request\""))
    assert.same({ a = 6 }, tally(gateway, 6))
    h.loop.wait(b.changed, 5000, "another check", function() return b.checks > before end)
    gateway:reload_script(script({ a, b }, FAST):gsub("health = {.-}", ""))
    assert.same({ a = 3, b = 3 }, tally(gateway, 6))
  end))

  it("are of every address of a host name", h.test(function()
    local a = member("a", bad)
    local gateway = h.script(script({ "localhost:" .. a.port }, FAST))
    gateway:wait_log("127.0.0.1:" .. a.port .. " is down: status 503", 5000)
    assert.equal(503, gateway:get("/").status)
    a.health = good
    gateway:wait_log("127.0.0.1:" .. a.port .. " is up again", 5000)
    assert.same({ a = 4 }, tally(gateway, 4))
  end))

  it("turn while all workers choose #threads", h.test(function()
    local a, b = member("a"), member("b", bad)
    local gateway = h.script(script({ a, b }, 'path = "/healthz", interval = 0.1, healthy = 1, unhealthy = 1'),
      { settings = { workers = 4 } })
    for _ = 1, 6 do
      gateway:wait_metrics("b down", function(metrics) return metrics[DOWN] == 1 end)
      b.health = good
      for _ = 1, 20 do assert.equal(200, gateway:get("/").status) end
      gateway:wait_metrics("b up", function(metrics) return metrics[DOWN] == 0 end)
      b.health = bad
      for _ = 1, 20 do assert.equal(200, gateway:get("/").status) end
    end
    gateway:expect_quiet()
  end, 30000))

  it("speak gRPC's health protocol", h.test(function()
    local function answer(status, trailers)
      return grpc.http1_answer({ "\8" .. string.char(status) }, trailers)
    end
    local a, b = member("a", function() return answer(1) end), member("b", function() return answer(2) end)
    local gateway = h.script(script({ a, b }, 'grpc = "shop.Orders", interval = 0.1'))
    gateway:wait_log(b:address() .. " is down: NOT_SERVING", 5000)
    assert.same({ a = 4 }, tally(gateway, 4))
    assert.equal("POST", b.check.method)
    assert.equal("/grpc.health.v1.Health/Check", b.check.target)
    assert.equal("application/grpc", b.check.headers["content-type"])
    assert.equal("trailers", b.check.headers.te)
    assert.equal(grpc.frame "\10\11shop.Orders", b.check.body)
    b.health = function() return answer(1) end
    gateway:wait_log(b:address() .. " is up again", 5000)
    a.health = function()
      return "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\ngrpc-status: 12\r\nContent-Length: 0\r\n\r\n"
    end
    gateway:wait_log(a:address() .. " is down: grpc%-status 12", 5000)
    b.health = function() return answer(1, "grpc-status: 5\r\n") end
    gateway:wait_log(b:address() .. " is down: grpc%-status 5", 5000)
  end, 20000))

  it("of HTTP/2 share a connection, whose end is not the endpoint's", h.test(function()
    local checks = 0
    local backend
    backend = h.backend(http2.each(function(server, request)
      checks = checks + 1
      assert.equal("/grpc.health.v1.Health/Check", request.request[":path"])
      assert.equal("trailers", request.request.te)
      assert.equal(grpc.frame "", request.body)
      server:respond(request.id, 200, { { "content-type", "application/grpc" } }, { open = true })
      server:data(request.id, grpc.frame "\8\1"):trail(request.id, { { "grpc-status", "0" } })
      if checks == 4 then server.stream:close() end
      backend.changed:fire()
    end))
    local gateway = h.script(script({ backend }, "grpc = true, interval = 0.1, unhealthy = 1", ', protocol = "http2"'))
    h.loop.wait(backend.changed, 5000, "eight checks", function() return checks >= 8 end)
    assert.equal(2, #backend.connections)
    assert.is_nil(gateway:log():find("is down", 1, true))
  end))

  it("of HTTP/2 keep their connection while answers are bad, and take another where none come", h.test(function()
    local checks, silent = 0, false
    local backend
    backend = h.backend(http2.each(function(server, request)
      checks = checks + 1
      backend.changed:fire()
      if silent then return end
      local status = checks % 3 == 0 and "503" or "200"
      server:respond(request.id, tonumber(status), { { "content-type", "application/grpc" } }, { open = true })
      server:data(request.id, grpc.frame "\8\2"):trail(request.id, { { "grpc-status", "0" } })
    end))
    local gateway = h.script(script({ backend }, "grpc = true, interval = 0.1, timeout = 0.1, unhealthy = 1", ', protocol = "http2"'))
    gateway:wait_log(backend:address() .. " is down: NOT_SERVING", 5000)
    h.loop.wait(backend.changed, 5000, "eight checks", function() return checks >= 8 end)
    assert.equal(1, #backend.connections)
    silent = true
    h.loop.wait(backend.changed, 5000, "three more", function() return checks >= 11 end)
    assert.is_true(#backend.connections >= 3)
    for i = 1, #backend.connections - 2 do backend.connections[i]:wait_end() end -- none idles
  end))

  it("are made over TLS, and believe whom the upstream believes", h.test(function()
    local set = tls.certs()
    if not set then return end
    local known = set:issue { name = "known", sans = "DNS:localhost,IP:127.0.0.1" }
    local elsewhere = set:authority "elsewhere" and set:issue { name = "stranger", ca = "elsewhere", sans = "IP:127.0.0.1" }
    local ports = {}
    for i, pair in ipairs { known, elsewhere } do
      ports[i] = h.dead_port()
      local process = h.spawn("/bin/sh", { args = { "-c", ("exec openssl s_server -accept 127.0.0.1:%d -cert %s -key %s -www")
        :format(ports[i], pair.cert, pair.key) } })
      process:wait_output "ACCEPT"
    end
    for _, protocol in ipairs { "http1", "auto" } do -- ALPN of the server has nothing to say to either
      local gateway = h.script(script({ "127.0.0.1:" .. ports[1], "127.0.0.1:" .. ports[2] },
        'path = "/", interval = 0.2', (', tls = { ca = %q }, protocol = %q'):format(set.ca, protocol)))
      gateway:wait_log("127.0.0.1:" .. ports[2] .. " is down", 5000)
      for _ = 1, 4 do assert.equal(200, gateway:get("/").status) end
      assert.is_nil(gateway:log():find("127.0.0.1:" .. ports[1] .. " is down", 1, true))
    end
    set:remove()
  end))

  it("are told when they are wrong", h.test(function()
    local function problem(health, more)
      local path = h.write_file(h.script_config(script({ "127.0.0.1:1" }, health, more), {}))
      return h.exec({ "check", path }).stderr
    end
    for _, row in ipairs {
      { "", "health: what is to be asked is missing" },
      { 'path = "/a", grpc = true', "either path or grpc" },
      { 'path = "a"', "health.path: not a path" },
      { 'path = "/a b"', "health.path: not a path" },
      { 'path = "/", interval = 1, timeout = 2', "health.timeout: a check would begin before" },
      { 'path = "/", host = "a b"', "health.host: not a host" },
      { 'path = "/", unhealthy = 0', "health.unhealthy" },
      { 'grpc = true', "not supported yet beside proxy_protocol", ', proxy_protocol = "v1"' },
    } do
      local text = problem(row[1], row[3])
      assert.truthy(text:find(row[2], 1, true), row[2] .. " in:\n" .. text)
    end
    local text = problem('path = "/"'):gsub("%s", "")
    assert.equal("", text)
  end))
end)
