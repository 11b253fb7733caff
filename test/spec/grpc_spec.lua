-- gRPC through the gateway: routes, errors that the gateway makes, deadlines; over raw HTTP/2 and HTTP/1.1 (A50).
local h = require "test.support.harness"
local grpc = require "test.support.grpc"
local http2 = require "test.support.http2"

local function route(match, more)
  local out = { grpc = match, backends = "backend" }
  for key, value in pairs(more or {}) do out[key] = value end
  return out
end

local function echo(request)
  return grpc.http1_answer({ request.body }, "grpc-status: 0\r\nx-end: yes\r\n")
end

local function expect_error(response, status, text)
  assert.equal(200, response.status)
  assert.equal("application/grpc", response.headers["content-type"])
  assert.equal(tostring(status), response.headers["grpc-status"])
  if text then assert.truthy(response.headers["grpc-message"]:find(text, 1, true), response.headers["grpc-message"]) end
  assert.equal("", response.body)
  assert.is_nil(response.trailers)
  assert.is_nil(response.reset)
end

describe("a gRPC route", function()
  it("takes calls by service and method, and nothing else", h.test(function()
    local a, b, rest = h.backend(h.each(echo)), h.backend(h.each(echo)), h.backend(h.each(echo))
    local gateway = h.gateway {
      upstreams = { a = a, b = b, rest = rest },
      routes = {
        { grpc = { service = "shop.Orders" }, backends = "a" },
        { grpc = { service = "shop.Orders", method = { regex = "Get.*" } }, backends = "b" },
        { path = "/", backends = "rest" },
      },
    }
    local response = grpc.call(gateway, "/shop.Orders/Put")
    assert.equal("0", response.trailers["grpc-status"])
    assert.equal("yes", response.trailers["x-end"])
    grpc.call(gateway, "/shop.Orders/GetAll")
    grpc.call(gateway, "/shop.Users/GetAll")
    gateway:get "/shop.Orders/Put"
    assert.same({ 1, 1, 2 }, { #a.requests, #b.requests, #rest.requests })
    assert.equal("/shop.Orders/Put", a.requests[1].target)
    assert.equal("/shop.Orders/GetAll", b.requests[1].target)
    assert.equal("trailers", a.requests[1].headers.te)
  end))

  it("is explained, and its mistakes are told with their place", h.test(function()
    local gateway = h.gateway { backend = h.backend(), routes = { route { service = "s" } } }
    local answer = gateway:ask("explain", "POST", "http://h.example/s/M", "--header", "content-type: application/grpc")
    assert.equal(0, answer.code, answer.stderr .. answer.stdout)
    assert.truthy(answer.stdout:find("grpc s/*", 1, true), answer.stdout)
    local path = h.write_file('local m = require "moongate"\nm.listener { port = 0 }\n' ..
      'm.upstream { name = "u", endpoints = { "127.0.0.1:1" } }\nm.route { grpc = { service = "a b" }, backends = "u" }\n')
    answer = h.exec { "check", path }
    assert.not_equal(0, answer.code)
    assert.truthy(answer.stderr:find(":4: ", 1, true), answer.stderr)
    assert.truthy(answer.stderr:find("grpc.service", 1, true), answer.stderr)
  end))
end)

describe("an error of the gateway's own on a call", function()
  it("is told as gRPC tells it", h.test(function()
    local dead = "127.0.0.1:" .. h.dead_port()
    local gateway = h.gateway {
      upstreams = { dead = dead, empty = { { dead, weight = 0 } } },
      routes = { { grpc = { service = "dead" }, backends = "dead" },
        { grpc = { service = "empty" }, backends = "empty" },
        { grpc = { service = "none" }, backends = { dead = 0 } } },
    }
    expect_error(grpc.call(gateway, "/dead/M"), 14, "the upstream refused the connection")
    expect_error(grpc.call(gateway, "/empty/M"), 14, "the upstream has no endpoint")
    expect_error(grpc.call(gateway, "/none/M"), 14)
    expect_error(grpc.call(gateway, "/other/M"), 12, "no route matches")
    gateway:expect_quiet()
  end))

  it("is plain HTTP for other requests", h.test(function()
    local gateway = h.gateway { backend = "127.0.0.1:" .. h.dead_port() }
    local response = gateway:request("POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpcish\r\nContent-Length: 0\r\n\r\n")
    assert.equal(502, response.status)
    assert.is_nil(response.headers["grpc-status"])
    response = gateway:request("POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc+proto\r\nContent-Length: 0\r\n\r\n")
    assert.equal(200, response.status)
    assert.equal("14", response.headers["grpc-status"])
    assert.equal("0", response.headers["content-length"])
  end))

  it("is made of what a plugin answers, too", h.test(function()
    local gateway = h.script [[
      moongate.route { grpc = { service = "no" }, backends = "backend",
        access = function(exchange) exchange:respond(403, "not you: 100% \195\164\n", { ["x-why"] = "policy" }) end,
        header_filter = function(exchange) exchange.response.headers["x-seen"] = exchange.response.headers["grpc-status"] end }
      moongate.route { grpc = { service = "fails" }, backends = "backend", access = function() error "oh" end }
      moongate.route { grpc = { service = "fine" }, backends = "backend",
        access = function(exchange) exchange:respond(200, "as it is") end }
    ]]
    local response = grpc.call(gateway, "/no/M")
    expect_error(response, 7)
    assert.equal("not you: 100%25 %C3%A4", response.headers["grpc-message"])
    assert.equal("policy", response.headers["x-why"])
    assert.equal("7", response.headers["x-seen"])
    gateway:expect_log "oh"
    response = grpc.call(gateway, "/fails/M")
    expect_error(response, 2, response.headers["x-request-id"])
    assert.equal("as it is", grpc.call(gateway, "/fine/M").body)
  end))

  it("ends a response that was begun with a status in its trailers", h.test(function()
    local backend = h.backend(h.once("HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n" ..
      "8\r\n" .. grpc.frame "one" .. "\r\n"))
    backend.script = function(connection)
      connection:read_head()
      connection:send("HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n" ..
        grpc.frame "one" .. "\r\n")
    end
    local gateway = h.gateway { backend = backend, routes = { route { service = "s" } } }
    local response = grpc.call(gateway, "/s/M")
    assert.equal(grpc.frame "one", response.body)
    assert.equal("14", response.trailers["grpc-status"])
    assert.is_nil(response.reset)
    gateway:expect_quiet()
  end))
end)

describe("a stream of a call", function()
  -- Echoes every message, and ends with the client.
  local function serve(protocol, timeouts, other)
    local backend = h.backend(http2.script(function(server)
      local request = server:take_head()
      server:respond(request.id, 200, { { "content-type", "application/grpc" } }, { open = true })
      local sent = 0
      while server:until_(function() return #request.pieces > sent or request.ended or request.reset end, 20000) do
        if request.reset then return end
        while #request.pieces > sent do
          sent = sent + 1
          server:data(request.id, request.pieces[sent])
        end
        if request.ended then
          server:trail(request.id, { { "grpc-status", "0" } })
          return
        end
      end
    end))
    return h.gateway { backend = backend, upstream = { protocol = protocol },
      settings = { timeouts = { body = 0.3, response = 0.3 } }, routes = { other or route({ service = "s" }, { timeouts = timeouts }) } }
  end

  it("may idle longer than a request's body and a response may", h.test(function()
    local gateway = serve "http2"
    local client = http2.connect(gateway:connect())
    grpc.begin(client, 1, "/s/M")
    for i = 1, 2 do
      h.pass(900)
      client:data(1, grpc.frame("message " .. i))
      client:until_(function() return client.streams[1] and client.streams[1].body_len == i * 14 end, 5000)
    end
    client:data(1, "", true)
    assert.equal("0", client:response(1).trailers["grpc-status"])
    client.stream:close()
    gateway:expect_quiet()
  end))

  it("has to keep moving on a route that is not for calls", h.test(function()
    local gateway = serve("http2", nil, { path = "/", backends = "backend" })
    local client = http2.connect(gateway:connect())
    grpc.begin(client, 1, "/s/M")
    h.takes(200, 2000, function() client:response(1) end)
    assert.is_not_nil(client.streams[1].trailers["grpc-status"])
    client.stream:close()
    gateway:expect_quiet()
  end))

  it("may not idle longer than the route says", h.test(function()
    local gateway = serve("http2", { idle = 0.5 })
    local client = http2.connect(gateway:connect())
    grpc.begin(client, 1, "/s/M")
    client:data(1, grpc.frame "message")
    h.takes(400, 2000, function() client:response(1) end)
    assert.equal(grpc.frame "message", client.streams[1].body)
    assert.equal("14", client.streams[1].trailers["grpc-status"])
    client.stream:close()
    gateway:expect_quiet()
  end))
end)

describe("the access log", function()
  it("has the status of calls, whoever gave it", h.test(function()
    local path, dir = h.write_file("", "access.log")
    local gateway = h.gateway {
      settings = { access_log = { file = path, format = "$path $status $grpc_status" } },
      upstreams = { fine = h.backend(h.each(echo)), dead = "127.0.0.1:" .. h.dead_port(),
        only = h.backend(h.always("HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\ngrpc-status: 5\r\nContent-Length: 0\r\n\r\n")) },
      routes = { route({ service = "fine" }, { backends = "fine", plugins = { { "grpc-web" } } }),
        route({ service = "dead" }, { backends = "dead" }), route({ service = "only" }, { backends = "only" }),
        { path = "/plain", backends = "fine" } },
    }
    for _, name in ipairs { "/fine/M", "/dead/M", "/only/M", "/none/M" } do grpc.call(gateway, name) end
    gateway:request("POST /fine/Web HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc-web\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0")
    gateway:get "/plain"
    gateway:stop()
    local file = assert(io.open(path))
    assert.equal("/fine/M 200 0\n/dead/M 200 14\n/only/M 200 5\n/none/M 200 12\n/fine/Web 200 0\n/plain 200 -\n", file:read "*a")
    file:close()
    os.remove(path)
    require "luv".fs_rmdir(dir)
  end))
end)

describe("grpc-timeout", function()
  local function hangs(connection)
    connection:read_request()
    connection:wait_end(20000)
  end

  it("ends the call, and the upstream's part of it", h.test(function()
    local backend = h.backend(hangs)
    local gateway = h.gateway { backend = backend, routes = { route { service = "s" } } }
    h.takes(250, 1000, function()
      expect_error(grpc.call(gateway, "/s/M", { { "grpc-timeout", "300m" } }), 4)
    end)
    assert.truthy(backend.connections[1]:wait_end(2000))
    gateway:expect_quiet()
  end))

  it("goes on shortened, and bounded by the route's time", h.test(function()
    local backend = h.backend(h.each(echo))
    local gateway = h.script([[
      moongate.route { grpc = { service = "s" }, backends = "backend", access = function() moongate.sleep(0.05) end }
      moongate.route { grpc = { service = "bounded" }, backends = "backend", timeouts = { request = 2 } }
      moongate.route { grpc = { service = "lower" }, backends = "backend",
        access = function(exchange) exchange.request.headers["grpc-timeout"] = "100m" end }
    ]], { backend = backend })
    local function sent(path, value)
      backend:forget()
      grpc.call(gateway, path, value and { { "grpc-timeout", value } })
      local text = backend.requests[1].headers["grpc-timeout"]
      return text and assert(tonumber(text:match "^(%d+)m$"), text)
    end
    local left = sent("/s/M", "5S")
    assert.is_true(left <= 4950 and left > 3000, left)
    left = sent("/bounded/M", "1H")
    assert.is_true(left <= 2000 and left > 1000, left)
    assert.is_nil(sent("/bounded/M"))
    assert.equal(100, sent("/lower/M", "5S"))
  end))

  it("that is malformed is told", h.test(function()
    local gateway = h.gateway { backend = h.backend(), routes = { route { service = "s" } } }
    for _, value in ipairs { "5", "5s", "-5S", "123456789m", "" } do
      expect_error(grpc.call(gateway, "/s/M", { { "grpc-timeout", value } }), 13, "malformed grpc-timeout")
    end
    expect_error(grpc.call(gateway, "/s/M", { { "grpc-timeout", "5S" }, { "grpc-timeout", "6S" } }), 13)
    assert.equal(200, gateway:request("GET / HTTP/1.1\r\nHost: a\r\ngrpc-timeout: no\r\n\r\n").status == 404 and 200)
  end))

  it("is over in the middle of a stream", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_head()
      connection:send("HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n" ..
        grpc.frame "one" .. "\r\n")
      connection:wait_end(20000)
    end)
    local gateway = h.gateway { backend = backend, routes = { route { service = "s" } } }
    local response = grpc.call(gateway, "/s/M", { { "grpc-timeout", "200m" } })
    assert.equal(grpc.frame "one", response.body)
    assert.equal("4", response.trailers["grpc-status"])
    assert.truthy(backend.connections[1]:wait_end(2000))
    gateway:expect_quiet()
  end))

  it("of a client that goes away cancels the call", h.test(function()
    local backend = h.backend(hangs)
    local gateway = h.gateway { backend = backend, routes = { route { service = "s" } } }
    local client = http2.connect(gateway:connect())
    grpc.begin(client, 1, "/s/M", { { "grpc-timeout", "1H" } }, "ask")
    backend:wait_requests(1)
    client:send(http2.RST_STREAM, 0, 1, http2.u32(http2.CANCEL))
    assert.truthy(backend.connections[1]:wait_end(2000))
    client.stream:close()
    gateway:expect_quiet()
  end))
end)
