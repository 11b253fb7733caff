-- Deadlines: each fires in its time, answers what it should, and harms nobody else.
local h = require "test.support.harness"

describe("timeouts:", function()
  it("a head that does not come whole is a 408", h.test(function()
    local gateway = h.gateway { backend = h.backend(), settings = { timeouts = { request_head = 0.3 } } }
    local client = gateway:connect()
    local response = h.takes(280, 700, function()
      client:send "GET / HTTP/1.1\r\nHos"
      return h.read_response(client)
    end)
    assert.equal(408, response.status)
    assert.equal("close", response.headers.connection)
    client:wait_end()
  end))

  it("a head that drips in does not move its deadline", h.test(function()
    local gateway = h.gateway { backend = h.backend(), settings = { timeouts = { request_head = 0.3 } } }
    local client = gateway:connect()
    h.takes(250, 900, function()
      client:send "GET / HTTP/1.1\r\nX: "
      while not client:has_ended() and client.pending == 0 do
        client:send "y"
        h.pass(30)
      end
    end)
    local response = h.read_response(client)
    if response then assert.equal(408, response.status) end
  end))

  it("an idle connection is closed without a word", h.test(function()
    local gateway = h.gateway { backend = h.backend(), settings = { timeouts = { idle = 0.3 } } }
    local client = gateway:connect()
    client:send "GET / HTTP/1.1\r\nHost: h.example\r\n\r\n"
    assert.equal(200, h.read_response(client).status)
    assert.equal("", h.takes(280, 700, function() return (client:read_all()) end))
    gateway:expect_quiet()
  end))

  it("a connection that never says anything is closed", h.test(function()
    local gateway = h.gateway { backend = h.backend(), settings = { timeouts = { idle = 0.4, request_head = 0.4 } } }
    local client = gateway:connect()
    h.takes(300, 900, function() client:wait_end() end)
  end))

  it("a body that stalls is a 408", h.test(function()
    local backend = h.backend(h.once())
    local gateway = h.gateway { backend = backend, settings = { timeouts = { body = 0.3 } } }
    local client = gateway:connect()
    client:send "POST / HTTP/1.1\r\nHost: h.example\r\nContent-Length: 10\r\n\r\nhello"
    local response = h.takes(250, 800, function() return h.read_response(client) end)
    assert.equal(408, response.status)
    client:wait_end()
    backend.connections[1]:wait_end()
    gateway:expect_quiet()
  end))

  it("a connect without an answer is a 504", h.test(function()
    local gateway = h.gateway {
      upstreams = { backend = { "127.0.0.1:" .. h.black_hole() } }, settings = { timeouts = { connect = 0.3 } },
    }
    local response = h.takes(250, 400, function() return gateway:get "/" end)
    assert.equal(504, response.status)
  end))

  it("a response that does not come is a 504, and the backend's connection is closed", h.test(function()
    local backend = h.backend(h.once())
    local gateway = h.gateway { backend = backend, settings = { timeouts = { response = 0.3 } } }
    local response = h.takes(280, 450, function() return gateway:get "/" end)
    assert.equal(504, response.status)
    backend.connections[1]:wait_end()
    gateway:expect_quiet()
  end))

  -- Two upstreams, of which the second has times of its own.
  local OWN = [[
    local moongate = require "moongate"
    moongate.settings { workers = 1, timeouts = { connect = 20, response = 20 } }
    moongate.listener { port = 0, address = "127.0.0.1" }
    moongate.upstream { name = "mute", endpoints = { "127.0.0.1:%d" }, timeouts = { response = 0.3 } }
    moongate.upstream { name = "deaf", endpoints = { "127.0.0.1:%d" }, timeouts = { connect = 0.3 } }
    moongate.upstream { name = "late", endpoints = { "127.0.0.1:%d" } }
    moongate.route { path = "/mute", backends = "mute" }
    moongate.route { path = "/patient", backends = "mute", timeouts = { response = 1 } }
    moongate.route { path = "/deaf", backends = "deaf" }
    moongate.route { path = "/late", backends = "late" }
  ]]

  it("an upstream has its own, where it says so", h.test(function()
    local mute = h.backend(h.once())
    local late = h.backend(h.each(function()
      h.pass(600)
      return h.http1.response("200 OK", "late")
    end))
    local gateway = h.gateway { config = OWN:format(mute.port, h.black_hole(), late.port) }
    assert.equal(504, h.takes(280, 450, function() return gateway:get "/mute" end).status)
    assert.equal(504, h.takes(950, 1200, function() return gateway:get "/patient" end).status)
    assert.equal(504, h.takes(250, 450, function() return gateway:get "/deaf" end).status)
    assert.equal(200, gateway:get("/late").status)
    gateway:expect_quiet()
  end))

  it("the time for a response begins when the request is whole", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { backend = backend, settings = { timeouts = { response = 0.6 } } }
    local client = gateway:connect()
    client:send "POST / HTTP/1.1\r\nHost: h.example\r\nContent-Length: 6\r\n\r\n"
    for i = 1, 6 do
      h.pass(150)
      client:send(tostring(i))
    end
    local response = h.read_response(client)
    assert.equal(200, response.status)
    assert.equal("123456", backend.requests[1].body)
  end))

  it("a response that goes on slowly is not cut off", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_request()
      connection:send "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n"
      for i = 1, 8 do
        h.pass(120)
        connection:send(tostring(i))
      end
      connection:wait_end()
    end)
    local gateway = h.gateway { backend = backend, settings = { timeouts = { response = 0.8, body = 0.8 } } }
    assert.equal("12345678", gateway:get("/").body)
  end))

  it("slow clients do not hold up others", h.test(function()
    local gateway = h.gateway { backend = h.backend(), settings = { timeouts = { request_head = 2 } } }
    for _ = 1, 200 do gateway:connect():send "GET / HTTP/1.1\r\nHos" end
    h.takes(0, 500, function()
      for _ = 1, 20 do assert.equal(200, gateway:get("/").status) end
    end)
  end))

  it("a body below the rate is ended after its grace", h.test(function()
    local backend = h.backend(h.once())
    local gateway = h.gateway { backend = backend, settings = { body_rate = 1000, timeouts = { body = 30 } } }
    local client = gateway:connect()
    client:send "POST / HTTP/1.1\r\nHost: h.example\r\nContent-Length: 100000\r\n\r\n"
    local start = h.now_ms()
    while not client:has_ended() and client.pending == 0 and h.now_ms() - start < 16000 do
      client:send "x"
      h.pass(250)
    end
    assert.is_true(h.now_ms() - start < 14000, "still served")
    local response = h.read_response(client)
    assert.equal(408, response.status)
  end, 30000))
end)
