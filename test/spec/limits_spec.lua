-- Limits of an upstream: connections at most, a queue in order with a deadline, one count for all workers.
local h = require "test.support.harness"

-- A backend whose answers wait for b:let_go(); it knows how many requests it had at once.
local function held_backend()
  local gate = h.loop.signal()
  local self
  self = h.backend(h.each(function(request)
    self.under_way = self.under_way + 1
    self.most = math.max(self.most, self.under_way)
    h.loop.wait(gate, 20000, "the answer to be let go", function() return self.free > 0 end)
    self.free = self.free - 1
    self.under_way = self.under_way - 1
    return h.http1.response("200 OK", request.target)
  end))
  self.most, self.free, self.under_way = 0, 0, 0
  function self.let_go(_, count)
    self.free = self.free + count
    gate:fire()
  end
  return self
end

local function start(backend, limits, options)
  options = options or {}
  local lines = { 'local moongate = require "moongate"' }
  lines[#lines + 1] = ("moongate.settings { workers = %d }"):format(options.workers or 1)
  lines[#lines + 1] = 'moongate.listener { port = 0, address = "127.0.0.1" }'
  lines[#lines + 1] = ('moongate.upstream { name = "b", limits = %s, endpoints = { "%s" } }'):format(limits,
    table.concat(options.endpoints or { backend:address() }, '", "'))
  lines[#lines + 1] = 'moongate.route { path = "/", backends = "b" }'
  return h.gateway { config = table.concat(lines, "\n") .. "\n" }
end

local function ask(gateway, path)
  local client = gateway:connect()
  client:send(("GET %s HTTP/1.1\r\nHost: h.example\r\n\r\n"):format(path))
  return client
end

local function waiting(count)
  return function(metrics) return metrics.moongate_upstream_pending == count end
end

local function quiet(gateway, ...)
  for _, client in ipairs { ... } do client:close() end
  gateway:expect_quiet()
end

describe("limits", function()
  it("hold a queue in order, over one connection #threads", h.test(function()
    local backend = held_backend()
    local gateway = start(backend, "{ connections = 1, pending_timeout = 15 }")
    local clients = {}
    for i = 1, 8 do
      clients[i] = ask(gateway, "/" .. i)
      gateway:wait_metrics(i - 1 .. " waiting", waiting(i - 1))
    end
    backend:let_go(8)
    for i = 1, 8 do assert.equal("/" .. i, h.read_response(clients[i]).body) end
    for i = 1, 8 do assert.equal("/" .. i, backend.requests[i].target) end
    assert.equal(1, #backend.connections)
    quiet(gateway, unpack(clients))
  end))

  it("answer 503 when the deadline passes", h.test(function()
    local backend = held_backend()
    local gateway = start(backend, "{ connections = 1, pending_timeout = 0.3 }")
    local first = ask(gateway, "/first")
    backend:wait_requests(1)
    local response = h.takes(280, 600, function() return h.read_response(ask(gateway, "/second")) end)
    assert.equal(503, response.status)
    assert.is_not_nil(response.body:find "in time", response.body)
    backend:let_go(1)
    assert.equal(200, h.read_response(first).status)
    assert.equal(1, #backend.requests)
  end))

  it("answer 503 at once when the queue is full", h.test(function()
    local backend = held_backend()
    local gateway = start(backend, "{ connections = 1, pending = 1, pending_timeout = 15 }")
    local first, second = ask(gateway, "/1"), ask(gateway, "/2")
    gateway:wait_metrics("one waiting", waiting(1))
    local third = ask(gateway, "/3")
    local response = h.takes(0, 300, function() return h.read_response(third) end)
    assert.equal(503, response.status)
    assert.is_not_nil(response.body:find "too many", response.body)
    assert.equal(1, gateway:metrics().moongate_upstream_pending_refused_total)
    backend:let_go(2)
    assert.equal(200, h.read_response(first).status)
    assert.equal(200, h.read_response(second).status)
    quiet(gateway, first, second, third)
  end))

  it("without a queue refuse what is above them", h.test(function()
    local backend = held_backend()
    local gateway = start(backend, "{ connections = 2, pending = 0 }")
    local first, second = ask(gateway, "/1"), ask(gateway, "/2")
    backend:wait_requests(2)
    assert.equal(503, h.read_response(ask(gateway, "/3")).status)
    backend:let_go(2)
    assert.equal(200, h.read_response(first).status)
    assert.equal(200, h.read_response(second).status)
  end))

  it("are kept by several workers together, and links that free up serve any of them #threads", h.test(function()
    local backend = held_backend()
    local gateway = start(backend, "{ connections = 3, pending_timeout = 15 }", { workers = 4 })
    local clients = {}
    for i = 1, 60 do clients[i] = ask(gateway, "/" .. i) end
    gateway:wait_metrics("57 waiting", waiting(57), 10000)
    backend:wait_requests(3) -- sent, perhaps not read yet
    assert.equal(3, #backend.requests)
    assert.equal(3, gateway:metrics().moongate_upstream_connections_live)
    backend:let_go(60)
    for i = 1, 60 do assert.equal("/" .. i, h.read_response(clients[i], { ms = 10000 }).body) end
    assert.equal(3, backend.most)
    quiet(gateway, unpack(clients))
  end, 60000))

  it("an idle connection of one worker does not starve another #threads", h.test(function()
    local backend = h.backend()
    local gateway = start(backend, "{ connections = 1, pending_timeout = 10 }", { workers = 4 })
    for i = 1, 60 do -- each on a connection of its own: workers take turns
      assert.equal(200, gateway:get("/" .. i).status)
    end
    gateway:expect_quiet()
  end, 30000))

  it("a waiting client that goes away leaves the queue", h.test(function()
    local backend = held_backend()
    local gateway = start(backend, "{ connections = 1, pending_timeout = 15 }")
    local first = ask(gateway, "/1")
    backend:wait_requests(1)
    local second = ask(gateway, "/2")
    gateway:wait_metrics("one waiting", waiting(1))
    local third = ask(gateway, "/3")
    gateway:wait_metrics("two waiting", waiting(2))
    second:close()
    gateway:wait_metrics("one waiting", waiting(1))
    backend:let_go(2)
    assert.equal("/1", h.read_response(first).body)
    assert.equal("/3", h.read_response(third).body)
    quiet(gateway, first, third)
  end))

  it("a body is not read while its exchange waits", h.test(function()
    local backend = held_backend()
    local gateway = start(backend, "{ connections = 1, pending_timeout = 15 }")
    local first = ask(gateway, "/1")
    backend:wait_requests(1)
    local body = ("x"):rep(200000)
    local second = gateway:connect()
    second:send("POST /2 HTTP/1.1\r\nHost: h.example\r\nContent-Length: 200000\r\n\r\n" .. body)
    gateway:wait_metrics("one waiting", waiting(1))
    backend:let_go(2)
    assert.equal("/1", h.read_response(first).body)
    assert.equal("/2", h.read_response(second).body)
    assert.equal(body, backend.requests[2].body)
    quiet(gateway, first, second)
  end))

  it("an idle connection to one endpoint makes room for one to another", h.test(function()
    local a, b = h.backend(), h.backend()
    local gateway = start(nil, "{ connections = 1, pending = 0 }", { endpoints = { a:address(), b:address() } })
    for i = 1, 10 do assert.equal(200, gateway:get("/" .. i).status) end
    assert.equal(5, #a.requests)
    assert.equal(5, #b.requests)
    gateway:expect_quiet()
  end))

  it("a connect that fails gives its place back", h.test(function()
    local gateway = start(nil, "{ connections = 1, pending = 0 }",
      { endpoints = { "127.0.0.1:" .. h.dead_port() } })
    for _ = 1, 5 do assert.equal(502, gateway:get("/").status) end
    assert.equal(5, gateway:metrics().moongate_upstream_connect_failures_total)
  end))

  it("a tunnel counts for as long as it stands", h.test(function()
    local backend = h.backend(function(connection)
      if not connection:read_request() then return end
      connection:send "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n"
      connection:wait_end(20000)
    end)
    local gateway = start(backend, "{ connections = 1, pending = 0 }")
    local client = gateway:connect()
    local upgrade = "GET / HTTP/1.1\r\nHost: h.example\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n"
    client:send(upgrade)
    assert.equal(101, h.read_response(client).status)
    gateway:wait_metrics("a tunnel", function(m) return m.moongate_tunnels_live == 1 end)
    assert.equal(503, gateway:get("/").status)
    client:close()
    gateway:wait_metrics("no tunnel", function(m) return m.moongate_tunnels_live == 0 end)
    local again = gateway:connect()
    again:send(upgrade)
    assert.equal(101, h.read_response(again).status)
  end))

  it("a drain ends what waits in time #threads", h.test(function()
    local backend = held_backend()
    local gateway = start(backend, "{ connections = 1, pending_timeout = 15 }", { workers = 2 })
    local clients = {}
    for i = 1, 6 do clients[i] = ask(gateway, "/" .. i) end
    gateway:wait_metrics("five waiting", waiting(5))
    gateway:signal "sigterm"
    backend:let_go(6)
    for i = 1, 6 do assert.equal(200, h.read_response(clients[i]).status) end
    assert.equal(0, (gateway:wait_exit(5000)))
  end))

  it("need a count of connections", h.test(function()
    local path = h.write_file('local m = require "moongate"\n' ..
      'm.upstream { name = "b", endpoints = {}, limits = { pending = 3 } }\n')
    local result = h.exec { "check", path }
    assert.is_not_nil((result.stdout .. result.stderr):find("limits.connections: missing", 1, true))
  end))
end)
