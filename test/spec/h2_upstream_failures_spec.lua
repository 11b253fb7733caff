-- What goes wrong with upstreams of HTTP/2: refused, reset, lost, malformed and hostile ones (A48, A49), and clients that go away.
local cjson = require "cjson"
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

local function get(gateway, path)
  return gateway:request("GET " .. (path or "/") .. " HTTP/1.1\r\nHost: h.example\r\n\r\n")
end

local function post(gateway, body)
  return gateway:request(("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s"):format(#body, body))
end

local function ok(server, request, body)
  server:respond(request.id, 200, nil, { open = true }):data(request.id, body or "ok", true)
end

local function backend_of(serve, options)
  local backend
  backend = h.backend(http2.each(function(server, request)
    backend:note(request, server)
    serve(server, request, #backend.requests)
  end, options))
  return backend
end

describe("upstreams of http/2", function()
  it("may refuse a stream, which is sent again whatever it asks", h.test(function()
    local backend = backend_of(function(server, request, count)
      if count == 1 then server:reset(request.id, http2.REFUSED_STREAM) else ok(server, request, request.body) end
    end)
    local gateway = gateway_for(backend)
    local response = post(gateway, "once")
    assert.equal(200, response.status)
    assert.equal("once", response.body)
    assert.equal("once", backend.requests[1].body)
    local metrics = gateway:metrics()
    assert.equal(1, metrics.moongate_upstream_streams_refused_total)
    assert.equal(1, metrics.moongate_upstream_replays_total)
  end))

  it("that refuse everything are not asked without end", h.test(function()
    local backend = backend_of(function(server, request) server:reset(request.id, http2.REFUSED_STREAM) end)
    local response = get(gateway_for(backend))
    assert.equal(503, response.status)
    assert.is_truthy(response.body:find("refused the stream", 1, true))
    assert.equal(3, #backend.requests)
  end))

  it("say what they have begun when they go away", h.test(function()
    local first = true
    local backend = h.backend(http2.script(function(server, index)
      local requests = {}
      if not first then
        while true do
          local request = server:take_request(60000)
          if not request then return end
          ok(server, request, "again " .. request.request[":path"])
        end
      end
      first = false
      for i = 1, 3 do requests[i] = server:take_head() end
      server:go_away(requests[1].id)
      server:sync()
      ok(server, requests[1], "first of " .. index)
      server.how = server:finish()
    end))
    local gateway = gateway_for(backend)
    local client = connect(gateway)
    for i = 0, 2 do client:request(i * 2 + 1, { [":method"] = "POST", [":path"] = "/" .. i }) end
    assert.equal("again /1", client:response(3).body)
    assert.equal("again /2", client:response(5).body)
    assert.equal("first of 1", client:response(1).body)
    assert.equal("again /x", get(gateway, "/x").body)
    assert.equal(2, #backend.connections)
    assert.equal("eof", backend.connections[1]:wait_end()) -- the gateway ends what is of no more use
    client.stream:close()
    gateway:expect_quiet()
  end))

  it("that go away under load cost no request", h.test(function()
    local served = 0
    local backend = h.backend(http2.script(function(server)
      for i = 1, 20 do
        local request = server:take_request(60000)
        if not request then return end
        served = served + 1
        if i == 20 then server:go_away(request.id) end -- what is above it was never begun
        ok(server, request, request.request[":path"])
      end
    end))
    local gateway = gateway_for(backend)
    local client = connect(gateway)
    for i = 0, 299 do
      client:request(i * 2 + 1, { [":method"] = "POST", [":path"] = "/" .. i })
      if i % 50 == 49 then
        for k = i - 49, i do
          local response = client:response(k * 2 + 1)
          assert.equal(200, response.status)
          assert.equal("/" .. k, response.body)
        end
      end
    end
    assert.equal(300, served)
    assert.is_true(#backend.connections >= 15)
  end))

  it("that went away with nothing under way are left at once", h.test(function()
    local backend = backend_of(function(server, request)
      ok(server, request)
      server:go_away(request.id)
    end)
    local gateway = gateway_for(backend)
    assert.equal(200, get(gateway).status)
    assert.equal("eof", backend.connections[1]:wait_end())
    assert.equal(200, get(gateway).status)
    assert.equal(2, #backend.connections)
    gateway:expect_quiet()
  end))

  it("share their connection though a neighbour is dead", h.test(function()
    local backend = backend_of(function(server, request) ok(server, request) end)
    local pool = { backend = { "127.0.0.1:" .. h.dead_port(), backend:address() } }
    local gateway = gateway_for(nil, { upstreams = pool, settings = { workers = 1 } })
    for _ = 1, 12 do assert.equal(200, get(gateway).status) end
    assert.equal(1, #backend.connections)
    local calling = h.gateway { is_test = true, upstreams = pool, upstream = { protocol = "http2" }, settings = { workers = 1 },
      routes = { { path = "/", plugins = { { "test-call", upstream = "backend", url = "/", times = 12 } } } } }
    assert.equal(200, assert(cjson.decode(get(calling).body)).calls[1].status)
    assert.equal(24, #backend.requests)
    assert.equal(2, #backend.connections)
  end))

  it("may reset a stream: 502, and the others go on", h.test(function()
    local other
    local backend = h.backend(http2.script(function(server)
      other = server:take_head()
      local request = server:take_head()
      server:reset(request.id, http2.INTERNAL_ERROR)
      server:sync()
      ok(server, other, "unharmed")
    end))
    local gateway = gateway_for(backend)
    local client = connect(gateway)
    client:request(1)
    client:request(3)
    local response = client:response(3)
    assert.equal(502, response.status)
    assert.is_truthy(response.body:find("reset the stream", 1, true))
    assert.equal("unharmed", client:response(1).body)
  end))

  it("that reset a stream in the middle of a response cut it off for the client too", h.test(function()
    local gateway = gateway_for(backend_of(function(server, request)
      server:respond(request.id, 200, nil, { open = true }):data(request.id, "half")
      server:reset(request.id, http2.INTERNAL_ERROR)
    end))
    local response = get(gateway)
    assert.equal(200, response.status)
    assert.is_false(response.complete)
    local client = connect(gateway)
    client:request(1)
    assert.is_not_nil(client:response(1).reset)
    assert.is_nil(client:response(1).ended)
  end))

  it("whose connection breaks before an answer: replayed where that is safe, else 502", h.test(function()
    local backend
    backend = h.backend(http2.script(function(server, index)
      ok(server, server:take_request(60000), "one of " .. index)
      server:take_request(60000)
      server.stream:close()
    end))
    local gateway = gateway_for(backend)
    assert.equal("one of 1", get(gateway).body)
    assert.equal("one of 2", get(gateway).body)
    local response = post(gateway, "not twice")
    assert.equal(502, response.status)
    assert.is_truthy(response.body:find("closed the connection without an answer", 1, true))
    assert.equal("one of 3", get(gateway).body)
    gateway:expect_quiet()
  end))

  it("whose connection ends behind a whole response have given it whole", h.test(function()
    local body = ("0123456789"):rep(6000)
    local gateway = gateway_for(h.backend(http2.script(function(server)
      local request = server:take_request()
      server:respond(request.id, 200, nil, { open = true })
      server:send_body(request.id, body, { { "x-end", "yes" } })
      server.stream:flush()
      server.stream:close()
    end)))
    local client = connect(gateway, { settings = http2.setting(4, 0) })
    client:request(1)
    assert.is_true(client:until_(function() return client.streams[1] and client.streams[1].status ~= nil end))
    gateway:wait_metrics("the end of the connection", function(metrics)
      return metrics.moongate_upstream_streams_live == 1 and metrics.moongate_upstream_idle == 0
    end)
    for _ = 1, 3 do client:sync() end
    client:window(1, 60001)
    local response = client:response(1)
    assert.equal(body, response.body)
    assert.equal("yes", response.trailers["x-end"])
    client.stream:close()
    gateway:expect_quiet()
  end))

  it("hear of clients that go away, and of those alone", h.test(function()
    local server
    local backend = h.backend(http2.script(function(it)
      server = it
      local one, two = it:take_head(), it:take_head()
      it:until_(function() return one.reset end)
      ok(it, two, "still here")
    end))
    local gateway = gateway_for(backend)
    local client = connect(gateway)
    client:request(1)
    client:request(3)
    backend:wait_connections(1)
    assert.is_true(client:sync())
    client:reset(1, http2.CANCEL)
    assert.equal("still here", client:response(3).body)
    assert.equal(http2.CANCEL, server.arrived[1].reset)
    client.stream:close()
    gateway:expect_quiet()
  end))

  it("bound the streams of a connection, and so do we", h.test(function()
    for _, case in ipairs { { settings = http2.setting(3, 2) }, { streams = 2 } } do
      local held = {}
      local backend = h.backend(http2.script(function(server)
        while true do
          local request = server:take_request(60000)
          if not request then return end
          if request.request[":path"] == "/first" then
            ok(server, request)
          else
            held[#held + 1] = { server, request }
            if #held == 6 then
              for _, pair in ipairs(held) do ok(pair[1], pair[2], pair[2].request[":path"]) end
            end
          end
        end
      end, { settings = case.settings }))
      local gateway = gateway_for(backend, { upstream = { limits = case.streams and { streams = case.streams } } })
      assert.equal(200, get(gateway, "/first").status)
      local client = connect(gateway)
      for i = 0, 5 do client:request(i * 2 + 1, { [":path"] = "/" .. i }) end
      for i = 0, 5 do assert.equal("/" .. i, client:response(i * 2 + 1).body) end
      assert.equal(3, #backend.connections)
      assert.equal(0, gateway:metrics().moongate_upstream_streams_refused_total)
      client.stream:close()
      gateway:expect_quiet()
    end
  end))

  it("that allow few streams refuse what came before they could say so, and all is served", h.test(function()
    local open_count, refused = {}, 0
    local backend = h.backend(http2.script(function(server)
      open_count[server] = 0
      while true do
        local request = server:take_head(60000)
        if not request then return end
        if open_count[server] == 2 then
          refused = refused + 1
          server:reset(request.id, http2.REFUSED_STREAM)
        else
          open_count[server] = open_count[server] + 1
          h.task(function()
            h.pass(100)
            open_count[server] = open_count[server] - 1
            ok(server, request, request.request[":path"])
          end)
        end
      end
    end, { settings = http2.setting(3, 2) }))
    local gateway = gateway_for(backend)
    local client = connect(gateway)
    for i = 0, 19 do client:request(i * 2 + 1, { [":path"] = "/" .. i, [":method"] = "POST" }) end
    for i = 0, 19 do assert.equal("/" .. i, client:response(i * 2 + 1).body) end
    assert.is_true(refused <= 18)
    assert.is_true(#backend.connections <= 10)
    client.stream:close()
    gateway:expect_quiet()
  end))

  it("are waited for at the limit of connections", h.test(function()
    local backend, waiting = nil, {}
    backend = h.backend(http2.script(function(server)
      while true do
        local request = server:take_request(60000)
        if not request then return end
        waiting[#waiting + 1] = { server, request }
        backend:note(request, server)
      end
    end))
    local gateway = gateway_for(backend, { upstream = { limits = { connections = 1, streams = 2, pending = 2, pending_timeout = 20 } } })
    local client = connect(gateway)
    for i = 0, 4 do client:request(i * 2 + 1, { [":path"] = "/" .. i }) end
    local refused = client:response(9)
    assert.equal(503, refused.status)
    backend:wait_requests(2)
    for i = 1, 4 do
      backend:wait_requests(math.min(i + 1, 4))
      ok(waiting[i][1], waiting[i][2], waiting[i][2].request[":path"])
      assert.equal("/" .. (i - 1), client:response(i * 2 - 1).body)
    end
    assert.equal(1, #backend.connections)
    client.stream:close()
    gateway:expect_quiet()
  end))

  it("are waited for no longer once they allow more", h.test(function()
    local backend, server = nil, nil
    local held = {}
    backend = h.backend(http2.script(function(own)
      server = own
      while true do
        local request = server:take_request(60000)
        if not request then return end
        held[#held + 1] = request
        backend.changed:fire()
        if request.request[":path"] == "/3" then
          for _, one in ipairs(held) do ok(server, one) end
        end
      end
    end, { settings = http2.setting(3, 1) }))
    local gateway = gateway_for(backend, { settings = { workers = 1 },
      upstream = { limits = { connections = 1, streams = 3, pending_timeout = 20 } } })
    local client = connect(gateway)
    client:request(1, { [":path"] = "/1" })
    h.loop.wait(backend.changed, 5000, "the first", function() return #held == 1 end)
    for i = 2, 4 do client:request(2 * i - 1, { [":path"] = "/" .. i }) end
    gateway:wait_metrics("three that wait", function(metrics) return metrics.moongate_upstream_pending == 3 end)
    server:send(http2.SETTINGS, 0, 0, http2.setting(3, 100))
    for i = 1, 4 do
      if i == 4 then
        h.loop.wait(backend.changed, 5000, "the last", function() return #held == 4 end)
        ok(server, held[4])
      end
      assert.equal(200, client:response(2 * i - 1).status)
    end
    assert.equal(1, #backend.connections)
    client.stream:close()
    gateway:expect_quiet()
  end))

  it("that say nothing are given up in time, one stream for itself", h.test(function()
    local backend = backend_of(function(server, request)
      if request.request[":path"] == "/ok" then ok(server, request) end
    end)
    local gateway = gateway_for(backend, { settings = { timeouts = { response = 0.4 } } })
    assert.equal(200, get(gateway, "/ok").status)
    local response = h.takes(300, 900, function() return get(gateway, "/silent") end)
    assert.equal(504, response.status)
    assert.equal(200, get(gateway, "/ok").status)
    assert.equal(1, #backend.connections)
    assert.equal(http2.CANCEL, backend.requests[2].reset or backend.connections[1].h2.streams[backend.requests[2].id].reset)
  end))

  it("that open no window are given up in time", h.test(function()
    local gateway = gateway_for(h.backend(http2.script(function(server) server:take_head() end, { is_stingy = true })),
      { settings = { timeouts = { body = 0.4 } } })
    local stream = gateway:connect()
    stream:send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n" .. ("x"):rep(200000))
    assert.equal(504, h.read_response(stream).status)
  end))

  it("that never greet are given up in time", h.test(function()
    local gateway = gateway_for(h.backend(http2.script(function() end, { bare = true })),
      { settings = { timeouts = { request_head = 0.4 } } })
    assert.equal(504, get(gateway).status)
  end))

  it("that speak HTTP/1.1 instead are a 502", h.test(function()
    local gateway = gateway_for(h.backend(function(connection)
      connection:read(24)
      connection:send "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
      connection:wait_end(20000)
    end))
    local response = get(gateway)
    assert.equal(502, response.status)
    assert.is_truthy(response.body:find("broke the protocol", 1, true))
    gateway:expect_quiet()
  end))

  it("that never stand are given up by each upstream in its own time", h.test(function()
    local backend = h.backend(function(connection) connection:wait_end(20000) end) -- no handshake
    local gateway = h.script(([[
      for name, seconds in pairs { hasty = 0.3, patient = 1.2 } do
        moongate.upstream { name = name, endpoints = { %q }, protocol = "http2", tls = {}, timeouts = { connect = seconds } }
        moongate.route { path = "/" .. name, backends = name }
      end
    ]]):format(backend:address()), { settings = { workers = 1 } })
    local patient = gateway:connect()
    h.takes(1000, 3000, function()
      patient:send "GET /patient HTTP/1.1\r\nHost: h\r\n\r\n"
      h.loop.wait(backend.changed, 5000, "a connection", function() return #backend.connections == 1 end)
      assert.equal(504, h.takes(200, 900, function() return get(gateway, "/hasty") end).status)
      assert.equal(504, h.read_response(patient).status)
    end)
  end))

  it("idle no longer than others", h.test(function()
    local backend = backend_of(function(server, request) ok(server, request) end)
    local gateway = gateway_for(backend, { settings = { timeouts = { upstream_idle = 0.3 } } })
    assert.equal(200, get(gateway).status)
    assert.equal(1, gateway:metrics().moongate_upstream_idle)
    assert.equal("eof", backend.connections[1]:wait_end())
    gateway:wait_metrics("its end", function(metrics) return metrics.moongate_upstream_connections_live == 0 end)
  end))

  it("keep their connection over a reload, and lose it with their endpoint", h.test(function()
    local backend = backend_of(function(server, request) ok(server, request) end)
    local other = backend_of(function(server, request) ok(server, request, "other") end)
    local options = { backend = backend, upstream = { protocol = "http2" } }
    local gateway = h.gateway(options)
    assert.equal("ok", get(gateway).body)
    options.routes = { { path = "/", backends = "backend" }, { path = "/more", backends = "backend" } }
    gateway:rewrite(options)
    assert.equal(0, gateway:ask("reload").code)
    assert.equal("ok", get(gateway).body)
    assert.equal(1, #backend.connections)
    options.backend = other
    gateway:rewrite(options)
    assert.equal(0, gateway:ask("reload").code)
    assert.equal("other", get(gateway).body)
    assert.equal("eof", backend.connections[1]:wait_end())
  end))

  describe("that send what is malformed", function()
    local function block(...)
      return http2.block { ... }
    end
    local STATUS = { ":status", "200" }
    local cases = {
      ["no status"] = block { "x-a", "b" },
      ["a status that is none"] = block { ":status", "2x0" },
      ["a status of four digits"] = block { ":status", "2000" },
      ["a status out of range"] = block { ":status", "999" },
      ["two statuses"] = block(STATUS, STATUS),
      ["a status behind fields"] = block({ "x-a", "b" }, STATUS),
      ["a pseudo-field of requests"] = block(STATUS, { ":path", "/" }),
      ["an unknown pseudo-field"] = block(STATUS, { ":x", "y" }),
      ["an upper case name"] = block(STATUS, { "X-A", "b" }),
      ["an empty name"] = block(STATUS, { "", "b" }),
      ["a name with a space"] = block(STATUS, { "x a", "b" }),
      ["a value with CRLF"] = block(STATUS, { "x-a", "b\r\nx-c: d" }),
      ["a value with NUL"] = block(STATUS, { "x-a", "b\0" }),
      ["a value that begins with a space"] = block(STATUS, { "x-a", " b" }),
      ["connection"] = block(STATUS, { "connection", "close" }),
      ["transfer-encoding"] = block(STATUS, { "transfer-encoding", "chunked" }),
      ["upgrade"] = block(STATUS, { "upgrade", "h2c" }),
      ["keep-alive"] = block(STATUS, { "keep-alive", "1" }),
      ["two lengths"] = block(STATUS, { "content-length", "2" }, { "content-length", "2" }),
      ["a length that is none"] = block(STATUS, { "content-length", "+2" }),
      ["a head over the limit"] = block(STATUS, { "x-a", ("a"):rep(16000) }, { "x-b", ("b"):rep(16000) }, { "x-c", ("c"):rep(9000) }),
      ["101"] = block { ":status", "101" },
    }
    for name, bytes in pairs(cases) do
      it(name .. ": 502, and the connection goes on", h.test(function()
        local backend = backend_of(function(server, request)
          if request.request[":path"] == "/ok" then return ok(server, request) end
          local at = 1
          repeat
            local piece = bytes:sub(at, at + 16383)
            at = at + #piece
            server:send(at == #piece + 1 and http2.HEADERS or http2.CONTINUATION, at > #bytes and 4 or 0, request.id, piece)
          until at > #bytes
          server:data(request.id, "ok", true)
        end)
        local gateway = gateway_for(backend)
        local response = get(gateway, "/bad")
        assert.equal(502, response.status)
        assert.equal(200, get(gateway, "/ok").status)
        assert.equal(1, #backend.connections)
        assert.equal(2, #backend.requests)
        gateway:expect_quiet()
      end))
    end

    it("bodies of another length than they said", h.test(function()
      local gateway = gateway_for(backend_of(function(server, request)
        local path = request.request[":path"]
        server:respond(request.id, 200, { { "content-length", "4" } }, { open = path ~= "/none" })
        if path == "/short" then server:data(request.id, "abc", true) end
        if path == "/long" then server:data(request.id, "abcde", true) end
        if path == "/trailed" then server:data(request.id, "abc"):trail(request.id, { { "x-a", "b" } }) end
      end))
      assert.equal(502, get(gateway, "/none").status)
      for _, path in ipairs { "/short", "/long", "/trailed" } do
        local response = get(gateway, path)
        assert.is_true(response.status == 502 or not response.complete, path)
        local client = connect(gateway)
        client:request(1, { [":path"] = path })
        response = client:response(1)
        assert.is_true(response.status == 502 or (response.reset ~= nil and not response.ended), path)
      end
    end))

    it("trailers that are none", h.test(function()
      for _, trailers in ipairs { block { ":status", "200" }, block { "X-A", "b" }, block { "x-a", "b\r\n" },
        block { "connection", "close" } } do
        local gateway = gateway_for(backend_of(function(server, request)
          server:respond(request.id, 200, nil, { open = true }):data(request.id, "abc")
          server:send(http2.HEADERS, 5, request.id, trailers)
        end))
        local client = connect(gateway)
        client:request(1)
        local response = client:response(1)
        assert.is_true(response.reset ~= nil or response.status == 502)
        assert.is_nil(response.trailers)
      end
    end))
  end)

  describe("that flood", function()
    local function flood(name, frames, wanted)
      it("with " .. name, h.test(function()
        local backend = backend_of(function(server, request)
          if request.request[":path"] == "/ok" then return ok(server, request) end
          frames(server, request)
        end)
        local gateway = gateway_for(backend)
        assert.equal(200, get(gateway, "/ok").status)
        local before = gateway:rss_kb()
        local response = get(gateway, "/flood")
        assert.is_true(response.status == (wanted or 502) or not response.complete)
        assert.is_true(gateway:rss_kb() - before < 4096, "memory stays flat")
        assert.equal(200, get(gateway, "/ok").status)
        gateway:expect_quiet()
      end, 60000))
    end

    flood("SETTINGS", function(server)
      server.stream:send(http2.frame(http2.SETTINGS, 0, 0, http2.setting(4, 65535)):rep(20000))
    end)
    flood("PING", function(server) server.stream:send(http2.frame(http2.PING, 0, 0, "12345678"):rep(20000)) end)
    flood("empty DATA", function(server, request)
      server:respond(request.id, 200, nil, { open = true })
      server.stream:send(http2.frame(http2.DATA, 0, request.id, ""):rep(20000))
    end)
    flood("CONTINUATION", function(server, request)
      server:send(http2.HEADERS, 0, request.id, http2.field(":status", "200"))
      server.stream:send(http2.frame(http2.CONTINUATION, 0, request.id, http2.field("x", "y")):rep(5000))
    end)
    flood("fields that cost a byte each", function(server, request)
      server:send(http2.HEADERS, 0, request.id, http2.field(":status", "200") .. http2.field("x-a", ("a"):rep(3000), true))
      for i = 1, 8 do
        server:send(http2.CONTINUATION, i == 8 and 4 or 0, request.id, http2.indexed(62):rep(16000))
      end
    end)
    flood("interim responses", function(server, request)
      server.stream:send(http2.frame(http2.HEADERS, 4, request.id, http2.block { { ":status", "103" } }):rep(500))
    end)
    flood("trailers", function(server, request)
      server:respond(request.id, 200, nil, { open = true }):data(request.id, "x")
      server:send(http2.HEADERS, 1, request.id, http2.field("x-a", ("a"):rep(15000)))
      server:send(http2.CONTINUATION, 0, request.id, http2.field("x-b", ("b"):rep(16000)))
      server:send(http2.CONTINUATION, 4, request.id, http2.field("x-c", ("c"):rep(16000)))
    end)
    flood("pushes", function(server, request)
      server:send(http2.PUSH_PROMISE, 4, request.id, http2.u32(2) .. http2.head { [":path"] = "/pushed" })
    end)
    flood("streams that nobody asked for", function(server) server:respond(99, 200) end)
    flood("bytes beyond the window", function(server, request)
      server:respond(request.id, 200, nil, { open = true })
      for _ = 1, 40 do server:data(request.id, ("x"):rep(16384)) end
    end)
    flood("frames that are too long", function(server, request)
      server:send(http2.DATA, 0, request.id, ("x"):rep(16385))
    end)
    flood("windows that overflow", function(server, request)
      server:window(request.id, 0x7fffffff):window(0, 0x7fffffff)
    end)
  end)
end)
