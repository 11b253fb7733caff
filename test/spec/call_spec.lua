-- Requests of the gateway's own (core/exchange/call.h), made by the filter "test-call" (test/support/test_call.h).
local cjson = require "cjson.safe"
local h = require "test.support.harness"

local function merge(base, over)
  for key, value in pairs(over or {}) do base[key] = value end
  return base
end

-- A gateway that makes this call for every request; options as of h.gateway.
local function start(call, options)
  local plugin = merge({ "test-call" }, call)
  return h.gateway(merge({ is_test = true, routes = { { path = "/", plugins = { plugin } } } }, options))
end

local function url_of(backend, path)
  return ("http://127.0.0.1:%d%s"):format(type(backend) == "table" and backend.port or backend, path or "/x")
end

-- What came of the calls of one request.
local function ask_all(gateway, fields, options)
  local response = gateway:get("/", fields, options)
  assert.equal(200, response.status, response.raw)
  return assert(cjson.decode(response.body)).calls
end

-- Of the first of them.
local function ask(gateway, fields, options)
  local calls = ask_all(gateway, fields, options)
  return calls[1]
end

-- One call through a gateway of its own.
local function once(call, options)
  local gateway = start(call, options)
  local result = ask(gateway)
  gateway:expect_quiet()
  return result
end

local function is_fine(result, body)
  assert.equal("success", result.text, cjson.encode(result))
  assert.equal(200, result.status)
  if body then assert.equal(body, result.body) end
end

local function fails(result, text)
  assert.equal(text, result.text, cjson.encode(result))
  assert.is_true(result.start ~= nil or result.error < 0)
  assert.is_true((result.status or 0) == 0 and (result.body_len or 0) == 0)
end

describe("a call", function()
  it("asks and brings back what was answered", h.test(function()
    local backend = h.backend(function(connection)
      while connection:read_request() do
        connection:send "HTTP/1.1 201 Made\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 5\r\n\r\nhello"
      end
    end)
    local result = once { url = url_of(backend, "/a/./b%20c?q=%2f#part") }
    assert.equal("success", result.text)
    assert.equal(201, result.status)
    assert.equal("X-A: 1\nx-a: 2\nContent-Length: 5\n", result.fields)
    assert.equal("hello", result.body)
    local request = backend.requests[1]
    assert.equal("GET /a/b%20c?q=%2f HTTP/1.1\r\nHost: 127.0.0.1:" .. backend.port ..
      "\r\nUser-Agent: moongate/", request.head:match "^(.-/)[%d.]+\r\n\r\n$")
  end))

  it("sends method, fields and body", h.test(function()
    local backend = h.backend()
    is_fine(once { url = url_of(backend), method = "PUT", body = "abc", fields = { "Host: other.test:81", "X-One: 1",
      "user-agent: me", "X-Two:" } })
    local request = backend.requests[1]
    assert.equal("PUT", request.method)
    assert.equal("abc", request.body)
    assert.equal("other.test:81", request.headers.host)
    assert.equal("me", request.headers["user-agent"])
    assert.equal("1", request.headers["x-one"])
    assert.equal("", request.headers["x-two"])
    assert.equal("3", request.headers["content-length"])
  end))

  it("says that a POST has no body", h.test(function()
    local backend = h.backend()
    is_fine(once { url = url_of(backend), method = "POST" })
    assert.equal("0", backend.requests[1].headers["content-length"])
  end))

  it("sends a long body", h.test(function()
    local backend = h.backend()
    local result = once { url = url_of(backend), method = "POST", body_len = 3000000 }
    is_fine(result)
    assert.equal(3000000, #backend.requests[1].body)
  end, 30000))

  it("keeps its connection", h.test(function()
    local backend = h.backend()
    local gateway = start { url = url_of(backend), times = 10 }
    is_fine(ask(gateway))
    is_fine(ask(gateway), "you asked for /x\n")
    assert.equal(20, #backend.requests)
    assert.equal(1, #backend.connections)
    gateway:expect_quiet()
    local metrics = gateway:metrics()
    assert.equal(20, metrics.moongate_calls_total)
    assert.equal(0, metrics.moongate_calls_live)
    assert.equal(0, metrics.moongate_call_failures_total)
  end))

  it("shares connections with upstreams", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { is_test = true, backend = backend, routes = {
      { path = "/", plugins = { { "test-call", url = url_of(backend) } } }, { path = "/b", backends = "backend" } } }
    assert.equal(200, gateway:get("/b").status)
    is_fine(ask(gateway))
    assert.equal(200, gateway:get("/b").status)
    assert.equal(1, #backend.connections)
  end))

  for name, head in pairs {
    ["204"] = "HTTP/1.1 204 No Content\r\n\r\n", ["304"] = "HTTP/1.1 304 Not Modified\r\nContent-Length: 70\r\n\r\n",
    ["HEAD"] = "HTTP/1.1 200 OK\r\nContent-Length: 7000000\r\n\r\n",
  } do
    it(name .. " has no body, and the connection is kept", h.test(function()
      local backend = h.backend(h.always(head))
      local result = once { url = url_of(backend), method = name == "HEAD" and "HEAD" or "GET", times = 3 }
      assert.equal("success", result.text)
      assert.equal(tonumber(head:match " (%d+)"), result.status)
      assert.equal(0, result.body_len)
      assert.equal(1, #backend.connections)
    end))
  end

  it("reads chunks", h.test(function()
    local backend = h.backend(h.always(
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nX-T: 1\r\n\r\n"))
    is_fine(once { url = url_of(backend), times = 2 }, "abcdefg")
    assert.equal(1, #backend.connections)
  end))

  it("reads until the connection ends", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_request()
      connection:send "HTTP/1.1 200 OK\r\n\r\nall of it"
    end)
    is_fine(once { url = url_of(backend), times = 2 }, "all of it")
    assert.equal(2, #backend.connections)
  end))

  it("reads HTTP/1.0", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_request()
      connection:send "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"
    end)
    is_fine(once { url = url_of(backend), times = 2 }, "ok")
  end))

  it("skips interim responses", h.test(function()
    local backend = h.backend(h.always("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" ..
      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    local result = once { url = url_of(backend), times = 2 }
    is_fine(result, "ok")
    assert.equal("Content-Length: 2\n", result.fields)
  end))

  it("takes an early answer to a body that nobody reads", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_head()
      connection:send "HTTP/1.1 413 Too Much\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
      h.pass(200)
    end)
    local result = once { url = url_of(backend), method = "POST", body_len = 8000000 }
    assert.equal("success", result.text)
    assert.equal(413, result.status)
  end, 20000))

  it("follows no redirect", h.test(function()
    local backend = h.backend(h.always "HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n")
    assert.equal(302, once({ url = url_of(backend) }).status)
    assert.equal(1, #backend.requests)
  end))

  it("goes to IPv6 addresses", h.test(function()
    local ok, backend = pcall(h.backend, nil, { host = "::1" })
    if not ok then return pending "no IPv6 here" end
    is_fine(once { url = ("http://[::1]:%d/x"):format(backend.port) })
    assert.equal("[::1]:" .. backend.port, backend.requests[1].headers.host)
  end))

  it("is one of 200 at once", h.test(function()
    local backend = h.backend()
    local gateway = start { url = url_of(backend), count = 200 }
    for _ = 1, 3 do
      local calls = ask_all(gateway)
      assert.equal(200, #calls)
      for _, result in ipairs(calls) do is_fine(result, "you asked for /x\n") end
    end
    assert.equal(600, #backend.requests)
    assert.is_true(#backend.connections <= 200, #backend.connections)
    gateway:expect_quiet()
  end, 30000))

  it("is one of 1024 at most", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_request()
      h.pass(300)
      connection:send "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    end)
    local gateway = start { url = url_of(backend), count = 1100 }
    local calls = ask_all(gateway, nil, { ms = 30000 })
    local counts = {}
    for _, result in ipairs(calls) do counts[result.text] = (counts[result.text] or 0) + 1 end
    assert.same({ success = 1024, ["too many under way"] = 76 }, counts)
    gateway:expect_quiet()
  end, 60000))
end)

describe("a call's body", function()
  local function answer(kind, len)
    return function(connection)
      connection:read_request()
      local body = ("x"):rep(len)
      if kind == "length" then connection:send(h.http1.response("200 OK", body)) end
      if kind == "chunked" then
        connection:send(("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"):format(len, body))
      end
      if kind == "close" then connection:send("HTTP/1.1 200 OK\r\n\r\n" .. body) end
      h.pass(kind == "close" and 0 or 200)
    end
  end

  for _, kind in ipairs { "length", "chunked", "close" } do
    it("is bounded, framed by " .. kind, h.test(function()
      local backend = h.backend(answer(kind, 100001))
      fails(once { url = url_of(backend), body_max = 100000 }, "body too long")
      backend = h.backend(answer(kind, 100000))
      local result = once { url = url_of(backend), body_max = 100000 }
      is_fine(result)
      assert.equal(100000, result.body_len)
    end))
  end

  it("is a MiB unless more is allowed", h.test(function()
    local backend = h.backend(answer("chunked", 1048577))
    fails(once { url = url_of(backend) }, "body too long")
    local result = once { url = url_of(backend), body_max = 4000000 }
    is_fine(result)
    assert.equal(1048577, result.body_len)
  end, 20000))

  it("counts in the budget of buffers", h.test(function()
    local backend = h.backend(answer("length", 2000000))
    local options = { settings = { limits = { buffer_bytes = 1048576 } } }
    fails(once({ url = url_of(backend), body_max = 4000000 }, options), "no buffer space available")
    fails(once({ url = url_of(backend), method = "POST", body_len = 2000000 }, options), "no buffer space available")
  end))
end)

describe("a call fails when", function()
  it("nobody listens", h.test(function()
    fails(once { url = url_of(h.dead_port()) }, "connection refused")
  end))

  it("the peer resets", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_request()
      connection:reset()
    end)
    fails(once { url = url_of(backend) }, "connection reset by peer")
  end))

  it("the peer hangs up", h.test(function()
    local backend = h.backend(function(connection) connection:read_request() end)
    fails(once { url = url_of(backend) }, "end of stream")
    assert.equal(1, #backend.connections)
  end))

  it("the response is cut short", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_request()
      connection:send "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf"
    end)
    fails(once { url = url_of(backend) }, "end of stream")
  end))

  for name, bytes in pairs {
    ["is no HTTP"] = "SSH-2.0-OpenSSH\r\n\r\n", ["has two lengths"] =
      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", ["is badly chunked"] =
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", ["switches protocols"] =
      "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ["is interim without end"] = ("HTTP/1.1 103 Early Hints\r\n\r\n"):rep(30),
    ["has a head without end"] = "HTTP/1.1 200 OK\r\nX-A: " .. ("a"):rep(100000),
  } do
    it("what comes " .. name, h.test(function()
      local backend = h.backend(function(connection)
        connection:read_request()
        connection:send(bytes)
        h.pass(300)
      end)
      fails(once { url = url_of(backend) }, "protocol error")
    end))
  end

  it("it takes too long", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_request()
      connection:send "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"
      while not connection:has_ended() do
        connection:send "x"
        h.pass(50)
      end
    end)
    local gateway = start { url = url_of(backend), timeout = 0.4 }
    local before = h.now_ms()
    fails(ask(gateway), "deadline passed")
    local ms = h.now_ms() - before
    assert.is_true(ms > 350 and ms < 1500 * h.loop.scale, ms)
    gateway:expect_quiet()
  end))

  it("connecting takes too long", h.test(function()
    local gateway = start { url = url_of(h.black_hole()), connect_timeout = 0.3 }
    local before = h.now_ms()
    fails(ask(gateway), "connection timed out")
    local ms = h.now_ms() - before
    assert.is_true(ms > 250 and ms < 1500 * h.loop.scale, ms)
    gateway:expect_quiet()
    assert.equal(1, gateway:metrics().moongate_upstream_connect_failures_total)
  end))
end)

describe("a call on a kept connection that died", function()
  -- Answers the first request of the first connection; then that connection ends with the second one read.
  local function dies(end_it)
    return function(connection, index)
      if index > 1 then return h.answer_all(connection) end
      connection:read_request()
      connection:send(h.http1.response("200 OK", "first"))
      connection:read_request()
      end_it(connection)
    end
  end
  local function hang_up() end
  local function reset(connection) connection:reset() end
  local function half(connection) connection:send "HTTP/1.1 2" end

  for name, end_it in pairs { ["hangs up"] = hang_up, resets = reset } do
    it("is made again, where it " .. name, h.test(function()
      local backend = h.backend(dies(end_it))
      is_fine(once { url = url_of(backend), times = 2 }, "you asked for /x\n")
      assert.equal(3, #backend.requests)
      assert.equal(2, #backend.connections)
    end))
  end

  it("is made again with its body", h.test(function()
    local backend = h.backend(dies(hang_up))
    is_fine(once { url = url_of(backend), times = 2, method = "PUT", body_len = 200000 })
    assert.equal(200000, #backend.requests[3].body)
  end))

  it("is not made again when it was a POST", h.test(function()
    local backend = h.backend(dies(hang_up))
    fails(once { url = url_of(backend), times = 2, method = "POST", body = "b" }, "end of stream")
    assert.equal(2, #backend.requests)
  end))

  it("is not made again when an answer had begun", h.test(function()
    local backend = h.backend(dies(half))
    fails(once { url = url_of(backend), times = 2 }, "end of stream")
    assert.equal(2, #backend.requests)
  end))
end)

describe("a call is refused:", function()
  local function refuses(name, call, text)
    it(name, h.test(function()
      local gateway = start(call)
      local result = ask(gateway)
      assert.equal(text, result.text, cjson.encode(result))
      assert.is_true(result.start < 0)
      assert.equal(0, gateway:metrics().moongate_calls_total)
    end))
  end

  for _, url in ipairs { "", "/path", "ftp://a/", "http://", "http:///x", "http://a:0/", "http://a:99999/", "http://u@a/", "http://[::1/",
    "http://a b/", "http://a/b c", "http://a/\r\nX: y", "http://a/%00", "http://a/%zz", "*", "a.test/x", "http://a b.test/" } do
    refuses(("URL %q"):format(url), { url = url }, "unusable URL")
  end
  for _, method in ipairs { "CONNECT", "TRACE", "get", "GET ", "G\r\nX: y", "NOTHING" } do
    refuses(("method %q"):format(method), { url = "http://127.0.0.1/", method = method }, "unusable method")
  end
  for _, field in ipairs { "Connection: close", "content-length: 3", "Transfer-Encoding: chunked", "TE: trailers", "Upgrade: x",
    "Trailer: x", "Keep-Alive: 5", "Proxy-Authorization: x", "Expect: 100-continue", "HTTP2-Settings: x", "x y: 1", ": 1",
    "X-A: a\r\nX-B: c", "X-A: a\nb", "X-A: a\0b", "X(A): 1", "Host: a b", "Host:", "Host: a/b" } do
    refuses(("field %q"):format(field), { url = "http://127.0.0.1/", fields = { field } }, "unusable header field")
  end
  refuses("a long URL", { url = "http://127.0.0.1/" .. ("a"):rep(40000) }, "message too long")
  refuses("long fields", { url = "http://127.0.0.1/", fields = { "X-A: " .. ("a"):rep(40000) } }, "message too long")
  refuses("no such upstream", { upstream = "nobody", url = "/x" }, "no such upstream")
end)

describe("a call to an upstream", function()
  local function config(backends, call, more)
    local endpoints = {}
    for i, backend in ipairs(backends) do endpoints[i] = ("%q"):format(url_of(backend, ""):match "//(.*)") end
    return { config = ([[
local moongate = require "moongate"
moongate.settings { workers = 1 }
moongate.listener { port = 0, address = "127.0.0.1" }
moongate.upstream { name = "users", endpoints = { %s } %s }
moongate.upstream { name = "echo", endpoints = { "builtin:echo" } }
moongate.upstream { name = "a b", endpoints = { %s } }
moongate.upstream { name = "empty", endpoints = { { "127.0.0.1:1", weight = 0 } } }
moongate.route { path = "/", plugins = { { "test-call", %s } } }
]]):format(table.concat(endpoints, ", "), more or "", endpoints[1], call) }
  end

  it("goes to its endpoints in turn", h.test(function()
    local a, b = h.backend(), h.backend()
    local gateway = start(nil, config({ a, b }, 'upstream = "users", url = "/u?x", times = 10'))
    is_fine(ask(gateway), "you asked for /u?x\n")
    assert.equal(5, #a.requests)
    assert.equal(5, #b.requests)
    assert.equal(1, #a.connections)
    assert.equal("users", a.requests[1].headers.host)
    gateway:expect_quiet()
  end))

  it("takes Host from the URL", h.test(function()
    local a = h.backend()
    is_fine(ask(start(nil, config({ a }, 'upstream = "users", url = "http://api.test/u"'))))
    assert.equal("api.test", a.requests[1].headers.host)
  end))

  it("says an address where its name is no host", h.test(function()
    local a = h.backend()
    is_fine(ask(start(nil, config({ a }, 'upstream = "a b"'))))
    assert.equal("127.0.0.1:" .. a.port, a.requests[1].headers.host)
    assert.equal("/", a.requests[1].target)
  end))

  it("goes to the next endpoint when one refuses", h.test(function()
    local a = h.backend()
    local gateway = start(nil, config({ h.dead_port(), a }, 'upstream = "users", url = "/u", times = 4'))
    for _ = 1, 4 do is_fine(ask(gateway)) end
  end))

  it("keeps to its limit", h.test(function()
    local a = h.backend(function(connection)
      while connection:read_request() do
        h.pass(5)
        connection:send(h.http1.response("200 OK", "ok"))
      end
    end)
    local gateway = start(nil, config({ a }, 'upstream = "users", url = "/u", count = 40',
      ", limits = { connections = 3, pending_timeout = 30 }"))
    for _, result in ipairs(ask_all(gateway)) do is_fine(result, "ok") end
    assert.is_true(#a.connections <= 3, #a.connections)
    assert.equal(0, gateway:metrics().moongate_upstream_pending)
    gateway:expect_quiet()
  end, 30000))

  it("does not wait at the limit for long", h.test(function()
    local a = h.backend(function(connection)
      connection:read_request()
      h.pass(1500)
    end)
    local gateway = start(nil, config({ a }, 'upstream = "users", url = "/u", count = 4',
      ", limits = { connections = 1, pending = 2, pending_timeout = 0.2 }"))
    local counts = {}
    for _, result in ipairs(ask_all(gateway)) do counts[result.text] = (counts[result.text] or 0) + 1 end
    assert.same({ ["end of stream"] = 1, ["limit reached"] = 3 }, counts)
    assert.equal(0, gateway:metrics().moongate_upstream_pending)
    gateway:expect_quiet()
  end, 20000))

  it("needs an endpoint", h.test(function()
    local a = h.backend()
    fails(ask(start(nil, config({ a }, 'upstream = "empty", url = "/"'))), "the upstream has no endpoint")
  end))

  it("that is built in is for later", h.test(function()
    local a = h.backend()
    fails(ask(start(nil, config({ a }, 'upstream = "echo", url = "/"'))), "not supported yet")
  end))
end)

describe("a call to a name #threads", function()
  local function settings(server, more)
    return { settings = { resolver = merge({ servers = { "127.0.0.1:" .. server.port } }, more) } }
  end

  it("finds its addresses", h.test(function()
    local server = h.dnsmasq { ["users.test"] = { "127.0.0.2" } }
    if not server then return pending "no dnsmasq" end
    local backend = h.backend(nil, { host = "127.0.0.2" })
    local gateway = start({ url = ("http://Users.Test:%d/n"):format(backend.port), times = 5 }, settings(server))
    is_fine(ask(gateway), "you asked for /n\n")
    assert.equal("Users.Test:" .. backend.port, backend.requests[1].headers.host)
    assert.equal(1, #backend.connections)
    fails(ask(gateway, "x-url: http://nobody.test:" .. backend.port .. "/\r\n"), "name could not be resolved")
    gateway:expect_quiet()
  end, 20000))

  it("that is in the file of hosts needs no server", h.test(function()
    local server, backend = h.name_server(function() end), h.backend()
    is_fine(once({ url = ("http://localhost:%d/"):format(backend.port), timeout = 5 }, settings(server)))
    assert.equal(0, #server.queries)
  end))

  it("asks once for many, and again when its time is over", h.test(function()
    local backend = h.backend(nil, { host = "127.0.0.2" })
    local server = h.name_server(function(query)
      return h.dns_reply(query, { addresses = { "127.0.0.2" }, ttl = 1 })
    end)
    local gateway = start({ url = ("http://users.test.:%d/"):format(backend.port), count = 50 }, settings(server))
    for _, result in ipairs(ask_all(gateway)) do is_fine(result) end
    assert.equal(2, #server.queries) -- A and AAAA
    ask(gateway)
    assert.equal(2, #server.queries)
    local before = h.now_ms()
    while #server.queries < 4 and h.now_ms() - before < 4000 do
      is_fine(ask(gateway))
      h.pass(50)
    end
    assert.equal(4, #server.queries)
  end, 30000))

  it("is asked for by every worker for itself", h.test(function()
    local backend = h.backend(nil, { host = "127.0.0.2" })
    local server = h.name_server(function(query)
      return h.dns_reply(query, { addresses = { "127.0.0.2" }, ttl = 1 })
    end)
    local options = settings(server)
    options.settings.workers = 3
    local gateway = start({ url = ("http://users.test.:%d/"):format(backend.port), count = 5 }, options)
    local before = h.now_ms()
    while h.now_ms() - before < 2500 do
      for _, result in ipairs(ask_all(gateway)) do is_fine(result) end
      ask(gateway, ("x-url: http://nobody%d.test.:80/\r\n"):format(math.random(1000)))
    end
    gateway:expect_quiet()
  end, 30000))

  it("tries the next address", h.test(function()
    local backend = h.backend(nil, { host = "127.0.0.3" })
    local server = h.name_server(function(query)
      return h.dns_reply(query, { addresses = { "127.0.0.2", "127.0.0.3" }, ttl = 60 })
    end)
    local gateway = start({ url = ("http://users.test.:%d/"):format(backend.port) }, settings(server))
    for _ = 1, 6 do is_fine(ask(gateway)) end
    assert.equal(2, #server.queries)
  end))

  it("remembers for a while that there is none", h.test(function()
    local server = h.name_server(function(query) return h.dns_reply(query, { code = 3 }) end)
    local gateway = start({ url = "http://users.test.:80/", count = 5 }, settings(server, { negative = 1 }))
    for _ = 1, 3 do
      for _, result in ipairs(ask_all(gateway)) do fails(result, "name could not be resolved") end
    end
    assert.equal(2, #server.queries)
    h.pass(1100)
    ask(gateway)
    assert.equal(4, #server.queries)
  end, 20000))

  it("serves what it knows while the server is down", h.test(function()
    local backend = h.backend(nil, { host = "127.0.0.2" })
    local server = h.name_server(function(query)
      return h.dns_reply(query, { addresses = { "127.0.0.2" }, ttl = 1 })
    end)
    local gateway = start({ url = ("http://users.test.:%d/"):format(backend.port) }, settings(server, { timeout = 0.2 }))
    is_fine(ask(gateway))
    for _, bad in ipairs { function() end, function(query) return h.dns_reply(query, { code = 2 }) end } do
      server.script = bad
      local before = h.now_ms()
      while h.now_ms() - before < 2500 do
        local begin = h.now_ms()
        is_fine(ask(gateway))
        assert.is_true(h.now_ms() - begin < 150 * h.loop.scale)
        h.pass(50)
      end
    end
    assert.is_true(#server.queries >= 6, #server.queries)
  end, 30000))

  it("fails while the server is down and nothing is known", h.test(function()
    local server = h.name_server(function(query) return h.dns_reply(query, { code = 2 }) end)
    local gateway = start({ url = "http://users.test.:80/" }, settings(server, { timeout = 0.2 }))
    local result = ask(gateway)
    assert.is_true(result.error < 0 and result.text ~= "name could not be resolved", cjson.encode(result))
    server.script = function() end
    gateway:rewrite(h.gateway_config(merge({ routes = { { path = "/", plugins = { { "test-call",
      url = "http://users.test.:80/", timeout = 0.3 } } } } }, settings(server, { timeout = 20 }))))
    h.pass(1100)
    assert.equal(0, gateway:ask("reload").code)
    fails(ask(gateway), "deadline passed")
    gateway:expect_quiet()
  end, 20000))

  it("is asked for again when the resolver is replaced", h.test(function()
    local backend = h.backend(nil, { host = "127.0.0.2" })
    local server = h.name_server(function() end)
    local call = { url = ("http://users.test.:%d/"):format(backend.port) }
    local gateway = start(call, settings(server, { timeout = 30 }))
    local result
    local task = h.task(function() result = ask(gateway, nil, { ms = 10000 }) end)
    h.loop.wait(server.changed, 3000, "a question", function() return #server.queries >= 2 end)
    server.script = function(query) return h.dns_reply(query, { addresses = { "127.0.0.2" } }) end
    assert.equal(0, gateway:ask("reload").code)
    h.loop.wait(task.ended, 10000, "the answer", function() return task.done end)
    is_fine(result)
  end, 20000))

  it("does not keep the gateway from leaving", h.test(function()
    local server = h.name_server(function() end)
    local gateway = start({ url = "http://users.test.:80/" }, merge({ settings = {
      timeouts = { drain = 0.3 }, resolver = { servers = { "127.0.0.1:" .. server.port }, timeout = 30 } } }))
    local client = gateway:connect()
    client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    h.loop.wait(server.changed, 3000, "a question", function() return #server.queries >= 2 end)
    gateway:signal()
    assert.equal(0, (gateway:wait_exit(3000)))
    gateway:wait_log "test%-call info cancelled"
  end))
end)

describe("a call ends when", function()
  local function hanging()
    return h.backend(function(connection)
      connection:read_request()
      connection:wait_end()
    end)
  end

  it("its client goes away", h.test(function()
    local backend = hanging()
    local gateway = start { url = url_of(backend), count = 20 }
    local client = gateway:connect()
    client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    backend:wait_requests(20)
    assert.equal(20, gateway:metrics().moongate_calls_live)
    client:close()
    gateway:wait_log "test%-call info cancelled"
    for _, connection in ipairs(backend.connections) do connection:wait_end() end
    gateway:expect_quiet()
    local metrics = gateway:metrics()
    assert.equal(0, metrics.moongate_calls_live)
    assert.equal(0, metrics.moongate_upstream_connections_live)
  end))

  it("its client goes away while it connects, and while it waits at a limit", h.test(function()
    local backend = hanging()
    for _, call in ipairs { { url = url_of(h.black_hole()) }, { upstream = "users", count = 5 } } do
      local gateway = start(nil, { config = ([[
local moongate = require "moongate"
moongate.settings { workers = 1 }
moongate.listener { port = 0, address = "127.0.0.1" }
moongate.upstream { name = "users", endpoints = { "127.0.0.1:%d" }, limits = { connections = 1, pending_timeout = 30 } }
moongate.route { path = "/", plugins = { { "test-call", url = %q, upstream = %q, count = %d } } }
]]):format(backend.port, call.url or "", call.upstream or "", call.count or 1) })
      local client = gateway:connect()
      client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
      gateway:wait_log "test%-call info waits"
      client:close()
      gateway:wait_log "test%-call info cancelled"
      gateway:expect_quiet()
      local metrics = gateway:metrics()
      assert.equal(0, metrics.moongate_calls_live)
      assert.equal(0, metrics.moongate_upstream_pending)
    end
  end))

  it("the drain is over", h.test(function()
    local backend = hanging()
    local gateway = start({ url = url_of(backend) }, { settings = { timeouts = { drain = 0.3 } } })
    local client = gateway:connect()
    client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    backend:wait_requests(1)
    gateway:signal()
    assert.equal(0, (gateway:wait_exit(3000)))
    gateway:wait_log "test%-call info cancelled"
  end))

  it("it is done, also within a drain", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_request()
      h.pass(300)
      connection:send(h.http1.response("200 OK", "late"))
    end)
    local gateway = start { url = url_of(backend), times = 2 }
    local result
    local task = h.task(function() result = ask(gateway) end)
    backend:wait_requests(1)
    gateway:signal()
    h.loop.wait(task.ended, 10000, "the answer", function() return task.done end)
    is_fine(result, "late")
    assert.equal(0, (gateway:wait_exit(3000)))
  end))
end)
