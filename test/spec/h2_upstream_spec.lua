-- HTTP/2 to upstreams: shared connections, streams that are requests, and clients that notice nothing of it.
local h = require "test.support.harness"
local http2 = require "test.support.http2"

local function gateway_for(backend, options)
  options = options or {}
  options.backend = backend
  options.upstream = options.upstream or {}
  options.upstream.protocol = options.upstream.protocol or "http2"
  return h.gateway(options)
end

local function connect(gateway, options)
  return http2.connect(gateway:connect(options), options)
end

-- Answers with the body and the trailers that it got.
local function echo(server, request)
  server:respond(request.id, 200, { { "x-path", request.request[":path"] } }, { open = true })
  local trailers = request.trailers and {}
  for _, field in ipairs(request.trailers and request.trailers.list or {}) do
    trailers[#trailers + 1] = { "echo-" .. field[1], field[2] }
  end
  server:send_body(request.id, request.body, trailers)
end

local function answer(server, request)
  if request.reset then return end
  server:respond(request.id, 200, nil, { open = true }):data(request.id, "you asked for " .. request.request[":path"], true)
end

-- A backend whose every connection is served so; backend.requests has what came.
local function h2_backend(serve, options)
  local backend
  backend = h.backend(http2.each(function(server, request)
    backend:note(request, server)
    serve(server, request)
  end, options))
  return backend
end

describe("http/2 to upstreams", function()
  it("is spoken in clear to one that is known to speak it", h.test(function()
    local backend = h2_backend(answer)
    local gateway = gateway_for(backend)
    local response = gateway:request(
      "GET /a/../b?c=d HTTP/1.1\r\nHost: h.example\r\nX-One: 1\r\nConnection: x-two, keep-alive\r\nX-Two: 2\r\nKeep-Alive: 5\r\n\r\n")
    assert.equal(200, response.status)
    assert.equal("you asked for /b?c=d", response.body)
    local request = backend.requests[1].request
    assert.equal("GET", request[":method"])
    assert.equal("http", request[":scheme"])
    assert.equal("h.example", request[":authority"])
    assert.equal("1", request["x-one"])
    assert.equal("127.0.0.1", request["x-forwarded-for"])
    for _, name in ipairs { "host", "connection", "keep-alive", "x-two", "te", "transfer-encoding" } do
      assert.is_nil(request[name], name)
    end
    assert.equal(0, backend.connections[1].h2.settings[2]) -- no push
    gateway:expect_quiet()
  end))

  it("lets many requests share a connection, whoever asks", h.test(function()
    local backend = h2_backend(answer)
    local gateway = gateway_for(backend)
    local client = connect(gateway)
    for i = 0, 49 do client:request(i * 2 + 1, { [":path"] = "/n" .. i }) end
    for i = 0, 49 do assert.equal("you asked for /n" .. i, client:response(i * 2 + 1).body) end
    for i = 1, 5 do assert.equal("you asked for /o" .. i, gateway:request("GET /o" .. i .. " HTTP/1.1\r\nHost: h\r\n\r\n").body) end
    assert.equal(1, #backend.connections)
    client.stream:close()
    gateway:expect_quiet()
  end))

  it("carries bodies of any length both ways", h.test(function()
    local backend = h2_backend(echo)
    local gateway = gateway_for(backend)
    local body = ("0123456789abcdef"):rep(20000)
    local sized = ("POST /s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n"):format(#body)
    assert.equal(body, gateway:request(sized .. body).body)
    assert.equal(tostring(#body), backend.requests[1].request["content-length"])
    local chunked = ("POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n"):format(#body)
    local response = gateway:request(chunked .. body .. "\r\n0\r\n\r\n")
    assert.equal(body, response.body)
    assert.equal("chunked", response.headers["transfer-encoding"])
    assert.is_nil(backend.requests[2].request["content-length"])
    local client = connect(gateway, { settings = http2.setting(4, 1048576) })
    client:window(0, 1048576)
    client:request(1, { [":method"] = "POST" }, nil, { open = true })
    client:until_(function() return (client.granted[0] or 0) > 100000 end)
    client:data(1, body:sub(1, 16384)):data(1, body:sub(16385, 32768), true)
    assert.equal(body:sub(1, 32768), client:response(1).body)
    assert.equal("", gateway:request("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").body)
    assert.equal("0", backend.requests[4].request["content-length"])
  end))

  it("carries trailers both ways", h.test(function()
    local backend = h2_backend(echo)
    local gateway = gateway_for(backend)
    local client = connect(gateway)
    client:request(1, { [":method"] = "POST" }, { { "te", "trailers" } }, { open = true }):data(1, "x"):trail(1, { { "x-sum", "9" } })
    local response = client:response(1)
    assert.equal("x", response.body)
    assert.equal("9", response.trailers["echo-x-sum"])
    assert.equal("trailers", backend.requests[1].request.te)
    response = gateway:request(
      "POST / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n\r\n1\r\ny\r\n0\r\nX-Sum: 8\r\n\r\n")
    assert.equal("y", response.body)
    assert.equal("8", response.trailers["echo-x-sum"])
  end))

  it("knows responses without a body", h.test(function()
    local backend = h2_backend(function(server, request)
      local path = request.request[":path"]
      if path == "/204" then
        server:respond(request.id, 204)
      elseif path == "/304" then
        server:respond(request.id, 304, { { "content-length", "5" }, { "etag", '"a"' } })
      elseif path == "/head" then
        server:respond(request.id, 200, { { "content-length", "7" } })
      else
        server:respond(request.id, 200)
      end
    end)
    local gateway = gateway_for(backend)
    assert.equal(204, gateway:request("GET /204 HTTP/1.1\r\nHost: h\r\n\r\n").status)
    local response = gateway:request("GET /304 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert.equal(304, response.status)
    assert.equal("5", response.headers["content-length"])
    response = gateway:request("HEAD /head HTTP/1.1\r\nHost: h\r\n\r\n", { method = "HEAD" })
    assert.equal("7", response.headers["content-length"])
    response = gateway:request("GET /none HTTP/1.1\r\nHost: h\r\n\r\n")
    assert.equal("0", response.headers["content-length"])
    assert.equal("", response.body)
    local client = connect(gateway)
    client:request(1, { [":method"] = "HEAD", [":path"] = "/head" })
    assert.equal("7", client:response(1).headers["content-length"])
    assert.equal(1, #backend.connections)
  end))

  it("lets both directions flow at once", h.test(function()
    local gateway = gateway_for(h.backend(http2.script(function(server)
      local request = server:take_head()
      server:respond(request.id, 200, nil, { open = true })
      for i = 1, 3 do
        server:until_(function() return #request.pieces >= i end)
        server:data(request.id, "re:" .. request.pieces[i])
      end
      server:until_(function() return request.ended end)
      server:trail(request.id, { { "grpc-status", "0" } })
    end)))
    local client = connect(gateway)
    client:request(1, { [":method"] = "POST" }, nil, { open = true })
    for i = 1, 3 do
      client:data(1, "m" .. i)
      assert.is_true(client:until_(function() return client.streams[1] and #client.streams[1].pieces >= i end))
      assert.equal("re:m" .. i, client.streams[1].pieces[i])
    end
    client:data(1, "", true)
    assert.equal("0", client:response(1).trailers["grpc-status"])
  end))
end)
