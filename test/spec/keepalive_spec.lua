-- Connections that live on, on both sides: keep-alive, HTTP/1.0, Connection: close, pipelining.
local h = require "test.support.harness"

local GET = "GET /%s HTTP/1.1\r\nHost: h.example\r\n%s\r\n"

local function ask(client, path, fields)
  client:send(GET:format(path, fields or ""))
  return h.read_response(client)
end

describe("keep-alive", function()
  it("serves many requests on one connection, with one connection to the backend", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect()
    for i = 1, 50 do assert.equal(("you asked for /%d\n"):format(i), ask(client, i).body) end
    assert.equal(1, #backend.connections)
    client:close()
    gateway:expect_quiet()
  end))

  it("says nothing about the connection while it stays", h.test(function()
    local gateway = h.gateway { backend = h.backend() }
    assert.is_nil(gateway:get("/").headers.connection)
  end))

  it("closes when the client asks for it", h.test(function()
    local gateway = h.gateway { backend = h.backend() }
    local client = gateway:connect()
    local response = ask(client, "a", "Connection: close\r\n")
    assert.equal("close", response.headers.connection)
    assert.equal("eof", client:wait_end())
  end))

  it("keeps the backend's connection when the client's is closed", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { backend = backend }
    for i = 1, 5 do assert.equal(200, gateway:get("/" .. i, "Connection: close\r\n").status) end
    assert.equal(1, #backend.connections)
  end))

  it("keeps the client's connection when the backend's is closed", h.test(function()
    local backend = h.backend(h.always(h.http1.response("200 OK", "x", "Connection: close\r\n")))
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect()
    for i = 1, 5 do
      local response = ask(client, i)
      assert.equal("x", response.body)
      assert.is_nil(response.headers.connection)
    end
    assert.equal(5, #backend.connections)
  end))

  it("opens one connection to the backend for each exchange in flight", h.test(function()
    local backend = h.backend(h.each(function(request)
      request.connection.backend:wait_requests(3)
      return h.http1.response("200 OK", "x")
    end))
    local gateway = h.gateway { backend = backend }
    local clients = {}
    for i = 1, 3 do
      clients[i] = gateway:connect()
      clients[i]:send(GET:format(i, ""))
    end
    for i = 1, 3 do assert.equal("x", h.read_response(clients[i]).body) end
    assert.equal(3, #backend.connections)
  end))

  it("closes idle upstream connections after their time", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { backend = backend, settings = { timeouts = { upstream_idle = 0.2 } } }
    assert.equal(200, gateway:get("/").status)
    assert.equal("eof", backend.connections[1]:wait_end(2000))
    gateway:expect_quiet()
  end))
end)

describe("HTTP/1.0", function()
  it("closes by default, and names its length", h.test(function()
    local gateway = h.gateway { backend = h.backend() }
    local client = gateway:connect()
    client:send "GET /old HTTP/1.0\r\nHost: h.example\r\n\r\n"
    assert.equal("you asked for /old\n", h.read_response(client).body)
    assert.equal("eof", client:wait_end())
  end))

  it("is kept alive when asked, aloud", h.test(function()
    local gateway = h.gateway { backend = h.backend() }
    local client = gateway:connect()
    for _ = 1, 3 do
      client:send "GET /old HTTP/1.0\r\nHost: h.example\r\nConnection: keep-alive\r\n\r\n"
      local response = h.read_response(client)
      assert.equal("you asked for /old\n", response.body)
      assert.equal("keep-alive", response.headers.connection)
    end
  end))

  it("is forwarded as HTTP/1.1", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { backend = backend }
    assert.equal(200, gateway:request("GET /old HTTP/1.0\r\nHost: h.example\r\n\r\n").status)
    assert.equal(1, backend.requests[1].minor)
    assert.equal("h.example", backend.requests[1].headers.host)
  end))

  it("needs no Host for a route without hosts", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { backend = backend }
    assert.equal(200, gateway:request("GET /old HTTP/1.0\r\n\r\n").status)
    assert.is_not_nil(backend.requests[1].headers.host)
  end))

  it("gets a body without length by close, and a chunked one too", h.test(function()
    local backend = h.backend(h.always(
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"))
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect()
    client:send "GET / HTTP/1.0\r\nHost: h.example\r\nConnection: keep-alive\r\n\r\n"
    local response = h.read_response(client)
    assert.equal("close", response.framing)
    assert.equal("hello world", response.body)
    assert.is_true(response.complete)
  end))

  it("never gets an interim response", h.test(function()
    local backend = h.backend(h.always(
      "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" .. h.http1.response("200 OK", "x")))
    local gateway = h.gateway { backend = backend }
    local response = gateway:request("GET / HTTP/1.0\r\nHost: h.example\r\n\r\n", { is_interim_wanted = true })
    assert.equal(200, response.status)
  end))
end)

describe("pipelining", function()
  it("answers a thousand requests in order", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect()
    local requests = {}
    for i = 1, 1000 do requests[i] = GET:format(i, "") end
    client:send(table.concat(requests))
    for i = 1, 1000 do assert.equal(("you asked for /%d\n"):format(i), h.read_response(client).body) end
    assert.equal(1000, #backend.requests)
    client:close()
    gateway:expect_quiet()
  end))

  it("keeps the order when the backend is slow with the first", h.test(function()
    local backend = h.backend(h.each(function(request)
      if request.target == "/1" then h.pass(100) end
      return h.http1.response("200 OK", request.target)
    end))
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect()
    client:send(GET:format("1", "") .. GET:format("2", "") .. GET:format("3", ""))
    for i = 1, 3 do assert.equal("/" .. i, h.read_response(client).body) end
  end))

  it("stops reading what it cannot serve yet", h.test(function()
    local backend = h.backend(h.once())
    local gateway = h.gateway { backend = backend, settings = { timeouts = { response = 5 } } }
    local client = gateway:connect()
    client:send(GET:format("first", ""))
    backend:wait_requests(1)
    local piece = GET:format(("x"):rep(1000), ""):rep(1000)
    for _ = 1, 20 do client:send(piece) end
    -- What the kernel's buffers take, and not the 20 MiB that wait.
    h.loop.try_wait(client.changed, 500, function() return client.sent == client.queued end)
    assert.is_true(client.sent < client.queued, "everything was read")
    assert.equal(1, #backend.requests)
  end))

  it("answers what came before the client's end", h.test(function()
    local gateway = h.gateway { backend = h.backend() }
    local client = gateway:connect()
    client:send(GET:format("1", ""))
    assert.equal(200, h.read_response(client).status)
    client:shutdown()
    assert.equal("eof", client:wait_end())
  end))
end)
