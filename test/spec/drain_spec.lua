-- SIGTERM drains: what is in flight is finished, what is new is refused; a second signal stops at once.
local h = require "test.support.harness"

local GET = "GET / HTTP/1.1\r\nHost: h.example\r\n\r\n"

-- A backend whose first response waits until let_go.
local function held_backend(world)
  world.changed = h.loop.signal()
  function world.let_go()
    world.is_free = true
    world.changed:fire()
  end
  return h.backend(h.each(function()
    h.loop.wait(world.changed, 20000, "let_go", function() return world.is_free end)
    return h.http1.response("200 OK", "held")
  end))
end

describe("drain:", function()
  for _, signal in ipairs { "sigterm", "sigint" } do
    it(signal .. " with nothing in flight stops at once, with exit code 0", h.test(function()
      local gateway = h.gateway { backend = h.backend() }
      gateway:signal(signal)
      assert.equal(0, (gateway:wait_exit(2000)))
      assert.is_not_nil(gateway:log():find " info draining")
      assert.is_not_nil(gateway:log():find " info stopped")
    end))
  end

  it("finishes the exchange in flight, and says that it closes", h.test(function()
    local world = {}
    local backend = held_backend(world)
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect()
    client:send(GET)
    backend:wait_requests(1)
    gateway:signal()
    gateway:wait_draining()
    world.let_go()
    local response = h.read_response(client)
    assert.equal("held", response.body)
    assert.equal("close", response.headers.connection)
    assert.equal("eof", client:wait_end())
    client:close() -- else the gateway waits for what the client may have sent (linger)
    assert.equal(0, (gateway:wait_exit(2000)))
  end))

  it("finishes a long response", h.test(function()
    local body = h.http1.pattern(4194304, 3)
    local backend = h.backend(h.always(h.http1.response("200 OK", body)))
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect { is_paused = true, receive_buffer = 65536 }
    client:send(GET)
    backend:wait_requests(1)
    gateway:signal()
    gateway:wait_log " info draining"
    client:resume()
    assert.is_true(body == h.read_response(client, { ms = 10000 }).body)
    client:close()
    assert.equal(0, (gateway:wait_exit(2000)))
  end))

  it("closes idle connections at once", h.test(function()
    local world = {}
    local backend = held_backend(world)
    local gateway = h.gateway { backend = backend }
    local busy, idle = gateway:connect(), gateway:connect()
    world.is_free = true
    idle:send(GET)
    assert.equal(200, h.read_response(idle).status)
    world.is_free = false
    busy:send(GET)
    backend:wait_requests(2)
    gateway:signal()
    assert.equal("eof", idle:wait_end(1000))
    world.let_go()
    assert.equal(200, h.read_response(busy).status)
  end))

  it("refuses new connections", h.test(function()
    local world = {}
    local backend = held_backend(world)
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect()
    client:send(GET)
    backend:wait_requests(1)
    gateway:signal()
    gateway:wait_log " info draining"
    local late, err = h.connect(gateway.port)
    -- Where the socket was not closed yet, the connection is ended without an answer.
    if late then assert.equal("", (late:read_all(1000))) else assert.equal("ECONNREFUSED", err) end
    world.let_go()
    assert.equal(200, h.read_response(client).status)
  end))

  it("says so on /readyz, and still lives", h.test(function()
    local world = {}
    local backend = held_backend(world)
    local gateway = h.gateway { backend = backend }
    assert.equal(200, gateway:admin("/readyz").status)
    assert.equal(200, gateway:admin("/healthz").status)
    gateway:connect():send(GET)
    backend:wait_requests(1)
    gateway:signal()
    gateway:wait_log " info draining"
    assert.equal(503, gateway:admin("/readyz").status)
    assert.equal(200, gateway:admin("/healthz").status)
    world.let_go()
    gateway:wait_exit(3000)
  end))

  it("ends when its time is over, whatever is in flight", h.test(function()
    local backend = held_backend {}
    local gateway = h.gateway { backend = backend, settings = { timeouts = { drain = 0.4 } } }
    local client = gateway:connect()
    client:send(GET)
    backend:wait_requests(1)
    assert.equal(0, h.takes(350, 1500, function()
      gateway:signal()
      return (gateway:wait_exit(3000))
    end))
    client:wait_end()
  end))

  it("a second signal stops at once", h.test(function()
    local backend = held_backend {}
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect()
    client:send(GET)
    backend:wait_requests(1)
    gateway:signal()
    gateway:wait_log " info draining"
    gateway:signal()
    gateway:wait_exit(1000)
    client:wait_end()
    gateway.is_stopped = true -- another exit code than 0 is right here
    gateway:judge_log()
  end))

  it("ends a tunnel at the limit", h.test(function()
    local backend = h.backend(h.once "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
    local gateway = h.gateway { backend = backend, settings = { timeouts = { drain = 0.4 } } }
    local client = gateway:connect()
    client:send "GET / HTTP/1.1\r\nHost: h.example\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    assert.equal(101, h.read_response(client).status)
    gateway:signal()
    gateway:wait_exit(3000)
    assert.equal(0, gateway.code)
  end))
end)
