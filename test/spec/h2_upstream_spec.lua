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

  it("gives trailers though the window is used up", h.test(function()
    local gateway = gateway_for(h2_backend(function(server, request)
      server:respond(request.id, 200, nil, { open = true }):data(request.id, "12345"):sync()
      server:trail(request.id, { { "grpc-status", "0" } })
    end))
    local client = connect(gateway, { settings = http2.setting(4, 5) })
    client:request(1)
    local response = client:response(1)
    assert.equal("12345", response.body)
    assert.equal("0", response.trailers["grpc-status"])
    for i = 1, 20 do
      client:window(i * 2 - 1, 1)
      client:request(i * 2 + 1)
      assert.equal("0", client:response(i * 2 + 1).trailers["grpc-status"])
    end
    client.stream:close()
    gateway:expect_quiet()
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

  it("passes interim responses on, each before the final one", h.test(function()
    local gateway = gateway_for(h2_backend(function(server, request)
      -- in one write, so that one read brings them all
      server.stream:send(
        http2.frame(http2.HEADERS, 4, request.id, http2.block { { ":status", "103" }, { "link", "</a>" } }) ..
        http2.frame(http2.HEADERS, 4, request.id, http2.block { { ":status", "103" }, { "link", "</b>" } }) ..
        http2.frame(http2.HEADERS, 4, request.id, http2.block { { ":status", "200" } }) ..
        http2.frame(http2.DATA, 1, request.id, "ok"))
    end))
    local response = gateway:request("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert.equal("ok", response.body)
    assert.same({ 103, 103 }, { response.interim[1].status, response.interim[2].status })
    assert.same({ "</a>", "</b>" }, { response.interim[1].headers.link, response.interim[2].headers.link })
    local client = connect(gateway)
    client:request(1)
    assert.same({ 103, 103 }, client:response(1).interim)
  end))

  it("lets a client wait for 100", h.test(function()
    local gateway = gateway_for(h.backend(http2.script(function(server)
      local request = server:take_head()
      assert(request.request.expect == "100-continue" and #request.pieces == 0)
      server:respond(request.id, 100, nil, { open = true })
      server:response(request.id)
      server:respond(request.id, 200, nil, { open = true }):data(request.id, request.body, true)
    end)))
    local stream = gateway:connect()
    stream:send "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    assert.equal(100, h.read_response(stream, { is_interim_wanted = true }).status)
    stream:send "hi"
    assert.equal("hi", h.read_response(stream).body)
  end))

  it("joins cookies and drops what an upgrade asks for", h.test(function()
    local backend = h2_backend(answer)
    local gateway = gateway_for(backend)
    local client = connect(gateway)
    client:request(1, nil, { { "cookie", "a=1" }, { "cookie", "b=2" } })
    client:response(1)
    assert.equal("a=1; b=2", backend.requests[1].request.cookie)
    assert.equal(200, gateway:request(
      "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").status)
    assert.is_nil(backend.requests[2].request.upgrade)
  end))

  it("ends a request early where the answer is there", h.test(function()
    local gateway = gateway_for(h.backend(http2.script(function(server)
      while true do
        local request = server:take_head(60000)
        if not request then return end
        server:respond(request.id, 413, nil, { open = true }):data(request.id, "enough", true)
        server:reset(request.id, http2.NO_ERROR)
      end
    end, { is_stingy = true })))
    local client = connect(gateway)
    client:request(1, { [":method"] = "POST" }, nil, { open = true }):data(1, "x")
    local response = client:response(1)
    assert.equal(413, response.status)
    assert.equal("enough", response.body)
    local stream = gateway:connect()
    stream:send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" .. ("x"):rep(90000))
    response = h.read_response(stream)
    assert.equal(413, response.status)
    assert.equal("enough", response.body)
  end))

  it("holds a fast upstream back for a slow client, and that one alone", h.test(function()
    local gateway = gateway_for(h.backend(http2.script(function(server)
      while true do
        local request = server:take_head(60000)
        if not request then return end
        local id = request.id
        if request.request[":path"] == "/big" then
          server:respond(id, 200, nil, { open = true })
          for _ = 1, 4 do server:data(id, ("x"):rep(16383)) end -- all that the window of the stream allows
          server.big = id
        else
          server:respond(id, 200, nil, { open = true }):data(id, "small", true)
        end
      end
    end)))
    local client = connect(gateway, { settings = http2.setting(4, 0) })
    client:request(1, { [":path"] = "/big" })
    assert.is_true(client:until_(function() return client.streams[1] and client.streams[1].status ~= nil end))
    for _ = 1, 3 do client:sync() end
    assert.equal(0, client.streams[1].body_len)
    for _ = 1, 20 do assert.equal("small", gateway:request("GET /small HTTP/1.1\r\nHost: h\r\n\r\n").body) end
    client:window(1, 65532)
    assert.is_true(client:until_(function() return client.streams[1].body_len == 65532 end))
    client.stream:close()
    gateway:expect_quiet()
  end))

  it("takes no more of a client than a slow upstream takes", h.test(function()
    local seen
    local gateway = gateway_for(h.backend(http2.script(function(server)
      local request = server:take_head()
      seen = request
      server:until_(function() return request.body_len >= 65535 end)
      server:sync()
      server.grants = true
      server:window(request.id, 1000000):window(0, 1000000)
      server:response(request.id)
      server:respond(request.id, 200, nil, { open = true }):data(request.id, tostring(#request.body), true)
    end, { is_stingy = true })))
    local stream = gateway:connect()
    stream:send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 600000\r\n\r\n" .. ("x"):rep(600000))
    assert.equal("600000", h.read_response(stream).body)
    assert.equal(600000, seen.body_len)
  end))
end)
