-- Timeouts and retries of a route.
local h = require "test.support.harness"

local OK = h.http1.response("200 OK", "fine")
local BUSY = h.http1.response("503 Service Unavailable", "busy")

-- A backend that plays one step for each request: a response, "reset", "silence" or "end".
local function player(...)
  local steps, at = { ... }, 0
  return h.backend(function(connection)
    while connection:read_request() do
      at = at + 1
      local step = steps[math.min(at, #steps)]
      if step == "silence" then
        connection:wait_end(20000)
        return
      elseif step == "end" then
        return
      elseif step == "reset" then
        connection:reset()
        return
      end
      connection:send(step)
    end
  end)
end

local function start(backend, route, settings)
  route.path, route.backends = "/", "backend"
  return h.gateway { upstreams = { backend = backend }, routes = { route }, settings = settings }
end

local function post(gateway, body)
  return gateway:request(("POST / HTTP/1.1\r\nHost: h.example\r\nContent-Length: %d\r\n\r\n%s"):format(#body, body))
end

describe("timeouts of a route:", function()
  it("request ends a silent exchange with a 504", h.test(function()
    local backend = player "silence"
    local gateway = start(backend, { timeouts = { request = 0.3 } })
    local response = h.takes(280, 600, function() return gateway:get "/" end)
    assert.equal(504, response.status)
    backend.connections[1]:wait_end()
    gateway:expect_quiet()
  end))

  it("request breaks off a response that has begun", h.test(function()
    local backend = h.backend(h.once "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun")
    local gateway = start(backend, { timeouts = { request = 0.3 } })
    local client = gateway:connect()
    client:send "GET / HTTP/1.1\r\nHost: h.example\r\n\r\n"
    local bytes = h.takes(250, 700, function() return (client:read_all()) end)
    assert.is_not_nil(bytes:find "200 OK.*begun$", bytes)
    gateway:expect_quiet()
  end))

  it("request counts the upload", h.test(function()
    local gateway = start(player(OK), { timeouts = { request = 0.3 } })
    local client = gateway:connect()
    client:send "POST / HTTP/1.1\r\nHost: h.example\r\nContent-Length: 10\r\n\r\nabc"
    assert.equal(504, h.takes(250, 700, function() return h.read_response(client) end).status)
  end))

  it("request bounds all attempts together", h.test(function()
    local gateway = start(player "silence",
      { timeouts = { request = 0.5, response = 0.2 }, retry = { attempts = 9, on = { "timeout" }, backoff = 0 } })
    assert.equal(504, h.takes(450, 800, function() return gateway:get "/" end).status)
  end))

  it("response ends an attempt with a 504", h.test(function()
    local gateway = start(player "silence", { timeouts = { response = 0.2 } })
    assert.equal(504, h.takes(180, 500, function() return gateway:get "/" end).status)
    gateway:expect_quiet()
  end))

  it("response is no bound for a body that goes on", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_request()
      connection:send "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"
      for i = 1, 6 do
        h.pass(60)
        connection:send(tostring(i))
      end
      connection:wait_end(20000)
    end)
    local gateway = start(backend, { timeouts = { response = 0.2 } })
    assert.equal("123456", gateway:get("/").body)
  end))

  it("response may be longer than what the settings say", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_request()
      h.pass(500)
      connection:send(OK)
      connection:wait_end(20000)
    end)
    local gateway = start(backend, { timeouts = { response = 5 } }, { timeouts = { response = 0.2 } })
    assert.equal(200, gateway:get("/").status)
  end))

  it("a tunnel outlives request", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_request()
      connection:send "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n"
      h.pass(500)
      connection:send "late"
    end)
    local gateway = start(backend, { timeouts = { request = 0.2 } })
    local client = gateway:connect()
    client:send "GET / HTTP/1.1\r\nHost: h.example\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n"
    assert.equal(101, h.read_response(client).status)
    assert.equal("late", (client:read_all()))
  end))
end)

describe("retry of a route:", function()
  it("sends again after a listed status", h.test(function()
    local backend = player(BUSY, BUSY, OK)
    local gateway = start(backend, { retry = { attempts = 2, on = { "503" } } })
    assert.equal("fine", gateway:get("/").body)
    assert.equal(3, #backend.requests)
    assert.equal(2, gateway:metrics().moongate_upstream_retries_total)
    gateway:expect_quiet()
  end))

  it("hands on the last response when the attempts are used up", h.test(function()
    local backend = player(BUSY)
    local gateway = start(backend, { retry = { attempts = 2, on = { "503" } } })
    local response = gateway:get "/"
    assert.equal(503, response.status)
    assert.equal("busy", response.body)
    assert.equal(3, #backend.requests)
  end))

  it("leaves other statuses alone", h.test(function()
    local backend = player(BUSY)
    local gateway = start(backend, { retry = { attempts = 2, on = { "502", "connect" } } })
    assert.equal(503, gateway:get("/").status)
    assert.equal(1, #backend.requests)
  end))

  it("sends the body again", h.test(function()
    local backend = player(BUSY, OK)
    local gateway = start(backend, { retry = { attempts = 1, on = { "503" } } })
    local body = ("b"):rep(40000)
    assert.equal(200, post(gateway, body).status)
    assert.equal(body, backend.requests[2].body)
    gateway:expect_quiet()
  end))

  it("does not send again what it has not kept", h.test(function()
    local backend = player(BUSY, OK)
    local gateway = start(backend, { retry = { attempts = 1, on = { "503" } } })
    assert.equal(503, post(gateway, ("b"):rep(300000)).status)
    assert.equal(1, #backend.requests)
  end))

  it("a reset is followed by another attempt, of idempotent methods only", h.test(function()
    for _, ending in ipairs { "reset", "end" } do
      local backend = player(ending, OK)
      local gateway = start(backend, { retry = { attempts = 1, on = { "reset" } } })
      assert.equal(200, gateway:get("/").status)
      local other = player(ending, OK)
      local strict = start(other, { retry = { attempts = 1, on = { "reset" } } })
      assert.equal(503, post(strict, "x").status)
      assert.equal(1, #other.requests)
    end
  end))

  it("a time-out is followed by another attempt", h.test(function()
    local backend = player("silence", OK)
    local gateway = start(backend, { timeouts = { response = 0.2 }, retry = { attempts = 1, on = { "timeout" } } })
    assert.equal(200, h.takes(180, 700, function() return gateway:get "/" end).status)
    gateway:expect_quiet()
  end))

  it("a refused connection is tried again, until the attempts are used up", h.test(function()
    local gateway = start({ "127.0.0.1:" .. h.dead_port() }, { retry = { attempts = 3, on = { "connect" }, backoff = 0.02 } })
    assert.equal(503, h.takes(60, 1000, function() return gateway:get "/" end).status)
    assert.equal(4, gateway:metrics().moongate_upstream_connects_total)
  end))

  it("a backend that comes back within the pauses is reached, whatever the method", h.test(function()
    local port = h.dead_port()
    local gateway = start({ "127.0.0.1:" .. port }, { retry = { attempts = 5, on = { "connect" }, backoff = 0.1 } })
    local client = gateway:connect()
    client:send "POST / HTTP/1.1\r\nHost: h.example\r\nContent-Length: 1\r\n\r\nx"
    gateway:wait_metrics("a retry", function(m) return m.moongate_upstream_retries_total >= 1 end)
    local backend = h.backend(nil, { port = port })
    assert.equal(200, h.read_response(client).status)
    assert.equal("x", backend.requests[1].body)
  end))

  for what, route in pairs { ["on its own"] = {}, ["by a retry"] = { attempts = 1, on = { "connect" }, backoff = 0 } } do
    it("a dead endpoint costs its neighbour no connections, where a request goes on " .. what, h.test(function()
      local alive = h.backend()
      local gateway = h.gateway {
        upstreams = { b = { "127.0.0.1:" .. h.dead_port(), alive } },
        routes = { { path = "/", backends = "b", retry = route.attempts and route or nil } },
      }
      for _ = 1, 20 do assert.equal(200, gateway:get("/").status) end
      assert.equal(20, #alive.requests)
      assert.equal(1, #alive.connections)
      gateway:expect_quiet()
    end))
  end

  it("a client that leaves in a pause ends it", h.test(function()
    local gateway = start({ "127.0.0.1:" .. h.dead_port() }, { retry = { attempts = 3, on = { "connect" }, backoff = 10 } })
    local client = gateway:connect()
    client:send "GET / HTTP/1.1\r\nHost: h.example\r\n\r\n"
    gateway:wait_metrics("a retry", function(m) return m.moongate_upstream_retries_total == 1 end)
    client:close()
    gateway:expect_quiet()
  end))

  it("conditions are checked", h.test(function()
    for _, word in ipairs { "600", "50x", "conect", "399" } do
      local path = h.write_file(h.config { upstreams = { backend = { "127.0.0.1:1" } },
        routes = { { path = "/", backends = "backend", retry = { on = { "connect", word } } } } })
      local result = h.exec { "check", path }
      assert.is_not_nil((result.stdout .. result.stderr):find("retry.on[2]: found", 1, true))
    end
  end))
end)
