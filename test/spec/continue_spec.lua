-- Expect: 100-continue: forwarded, and the backend decides.
local h = require "test.support.harness"

local HEAD = "POST /up HTTP/1.1\r\nHost: h.example\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"

describe("Expect: 100-continue", function()
  it("is forwarded, and so is the backend's 100", h.test(function()
    local backend = h.backend(function(connection)
      local request = connection:read_head()
      assert.equal("100-continue", request.headers.expect)
      assert.equal(0, connection.pending)
      connection:send "HTTP/1.1 100 Continue\r\n\r\n"
      assert.equal("hello", connection:read(5))
      connection:send(h.http1.response("200 OK", "thanks"))
      connection:wait_end()
    end)
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect()
    client:send(HEAD)
    assert.equal(100, h.read_response(client, { is_interim_wanted = true }).status)
    client:send "hello"
    assert.equal("thanks", h.read_response(client).body)
  end))

  it("comes only once though the backend sends it once", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_head()
      connection:send "HTTP/1.1 100 Continue\r\n\r\n"
      connection:read(5)
      connection:send(h.http1.response("200 OK", "thanks"))
      connection:wait_end()
    end)
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect { record = true }
    client:send(HEAD)
    client:read_until "100 Continue\r\n\r\n"
    client:send "hello"
    h.read_response(client)
    local _, count = client:bytes():gsub("HTTP/1.1 100", "")
    assert.equal(1, count)
  end))

  it("a refusal reaches the client that still waits, and its connection is closed", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_head()
      connection:send(h.http1.response("413 Content Too Large", "no", "Connection: close\r\n"))
      connection:flush()
    end)
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect()
    client:send(HEAD)
    local response = h.read_response(client)
    assert.equal(413, response.status)
    assert.equal("no", response.body)
    -- The body may or may not come: nothing that follows can be told apart from it.
    assert.equal("close", response.headers.connection)
    assert.equal("eof", client:wait_end())
  end))

  it("a client that does not wait is served too", h.test(function()
    local backend = h.backend(function(connection)
      local request = connection:read_request()
      connection:send("HTTP/1.1 100 Continue\r\n\r\n" .. h.http1.response("200 OK", request.body))
      connection:wait_end()
    end)
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect()
    client:send(HEAD .. "hello")
    assert.equal("hello", h.read_response(client).body)
    client:send "GET /next HTTP/1.1\r\nHost: h.example\r\n\r\n"
  end))

  it("a backend that says nothing gets the body when the client sends it", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect()
    client:send(HEAD)
    backend:wait_connections(1)
    client:send "hello"
    assert.equal(200, h.read_response(client).status)
    assert.equal("hello", backend.requests[1].body)
  end))

  it("works with chunked bodies", h.test(function()
    local backend = h.backend(function(connection)
      local request = connection:read_head()
      connection:send "HTTP/1.1 100 Continue\r\n\r\n"
      h.http1.read_request_body(connection, request)
      connection:send(h.http1.response("200 OK", request.body))
      connection:wait_end()
    end)
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect()
    client:send "POST / HTTP/1.1\r\nHost: h.example\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert.equal(100, h.read_response(client, { is_interim_wanted = true }).status)
    client:send "5\r\nhello\r\n0\r\n\r\n"
    assert.equal("hello", h.read_response(client).body)
  end))

  it("is not answered with 100 in HTTP/1.0", h.test(function()
    local gateway = h.gateway { backend = h.backend() }
    local client = gateway:connect { record = true }
    client:send "POST / HTTP/1.0\r\nHost: h.example\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"
    assert.equal(200, h.read_response(client).status)
    assert.is_nil(client:bytes():find("100 Continue", 1, true))
  end))

  it("another expectation is 417", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { backend = backend }
    local response = gateway:request "POST / HTTP/1.1\r\nHost: h.example\r\nExpect: a-miracle\r\nContent-Length: 0\r\n\r\n"
    assert.equal(417, response.status)
    assert.equal(0, #backend.connections)
  end))
end)
