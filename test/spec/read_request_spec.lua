-- The request's body before it is forwarded (core/filter/filter.h): read by a hook that waits, replaced, sent again. The C
-- filter of test/support/test_filter.h reads and checks that no reader is called out of turn; a replaced body must arrive.
local h = require "test.support.harness"

local LONG = 60 -- seconds: ends by cancel only
local BODY = "the request's body"
local TEXT = "something else, and longer than what the client has sent"

local function test(body, ms)
  return function()
    if not h.has_binary { is_test = true } then
      getfenv(body).pending "there is no moongate-test beside MOONGATE_BIN"
    end
    h.run(body, ms)
  end
end

-- A gateway whose only route has these plugins, { hook = ... } each, and what options.route says.
local function start(plugins, options)
  options = options or {}
  local route = { path = "/", plugins = {} }
  if options.backend ~= false then
    options.backend = options.backend or h.backend()
    route.backends = options.serves or "backend"
  else
    options.backend = nil
  end
  for i, plugin in ipairs(plugins[1] and plugins or { plugins }) do
    local entry = { plugin.type or "test-heads", name = "f" .. i }
    for key, value in pairs(plugin) do
      if key ~= "type" then entry[key] = value end
    end
    route.plugins[i] = entry
  end
  for key, value in pairs(options.route or {}) do route[key] = value end
  options.is_test = true
  options.routes = { route }
  return h.gateway(options), options.backend
end

-- Stops it and checks what the filters counted: waits, and how many of them were cancelled.
local function finish(gateway, waits, cancelled, is_stopped)
  if not is_stopped then
    gateway:expect_quiet()
    gateway:stop()
  end
  local all, on, off, live, errors = gateway:log():match
    "in all: (%d+) waits, (%d+) went on, (%d+) cancelled, (%d+) live, (%d+) errors"
  if not all and waits == 0 then return end
  assert.is_not_nil(all, gateway:log())
  assert.same({ waits, waits - cancelled, cancelled, 0, 0 },
    { tonumber(all), tonumber(on), tonumber(off), tonumber(live), tonumber(errors) }, gateway:log())
end

local function post(body, fields, method)
  return ("%s /x HTTP/1.1\r\nHost: h.example\r\nContent-Length: %d\r\n%s\r\n%s"):format(method or "POST", #body, fields or "", body)
end

local function chunked(body, trailers)
  local out = { "POST /x HTTP/1.1\r\nHost: h.example\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n" }
  for at = 1, #body, 1000 do
    local piece = body:sub(at, at + 999)
    out[#out + 1] = ("%x\r\n%s\r\n"):format(#piece, piece)
  end
  return table.concat(out) .. "0\r\n" .. (trailers or "") .. "\r\n"
end

local function seconds(s)
  return s * math.min(2, h.loop.scale)
end

local REPLACEMENTS = {
  same = function(body) return body end,
  twice = function(body) return body .. body end,
  half = function(body) return body:sub(1, math.floor(#body / 2)) end,
  nothing = function() return "" end,
  text = function() return TEXT end,
}

describe("a request body that is read whole and replaced by", function()
  for name, make in pairs(REPLACEMENTS) do
    for _, hook in ipairs { "rewrite", "access" } do
      it(("%s in %s is forwarded so"):format(name, hook), test(function()
        local gateway, backend = start { [hook] = { read = {}, replace = name, text = TEXT } }
        local client = gateway:connect()
        local count = 0
        for _, len in ipairs { 0, 1, 18, 3000, 300000 } do
          local body = h.http1.pattern(len, len)
          for _, bytes in ipairs { post(body, "Content-Digest: sha-256=:x:\r\nDigest: x\r\n"), chunked(body, "X-Sum: 1\r\n") } do
            count = count + 1
            client:send(bytes)
            assert.equal("you asked for /x\n", h.read_response(client).body)
            local request = backend:wait_requests(count)
            assert.is_true(make(body) == request.body, len)
            assert.equal("length", request.framing)
            for _, field in ipairs { "content-digest", "digest", "trailer", "x-sum", "expect" } do
              assert.is_nil(request.headers[field])
              assert.is_nil(request.trailers[field])
            end
          end
        end
        client:close()
        finish(gateway, count, 0)
      end))
    end
  end

  it("nothing is no body where the method gives it no meaning", test(function()
    local gateway, backend = start { access = { read = {}, replace = "nothing" } }
    local client = gateway:connect()
    for i, method in ipairs { "GET", "DELETE", "PUT", "POST", "PATCH" } do
      client:send(post(BODY, nil, method))
      assert.equal(200, h.read_response(client).status)
      local request = backend:wait_requests(i)
      assert.equal(i > 2 and "0" or nil, request.headers["content-length"], method)
      assert.is_nil(request.headers["transfer-encoding"])
    end
    client:close()
    finish(gateway, 5, 0)
  end))

  it("something where there was none: the end comes at once", test(function()
    local gateway, backend = start { access = { read = {}, replace = "text", text = TEXT } }
    local client = gateway:connect()
    for i = 1, 2 do
      client:send "GET /x HTTP/1.1\r\nHost: h.example\r\n\r\n"
      assert.equal(200, h.read_response(client).status)
      assert.equal(TEXT, backend:wait_requests(i).body)
    end
    client:close()
    finish(gateway, 2, 0)
    assert.is_not_nil(gateway:log():find("has read 0 bytes", 1, true))
  end))

  it("something, unread: what the client sends is dropped", test(function()
    local gateway, backend = start { access = { replace = "text", text = TEXT } }
    local client = gateway:connect()
    local count = 0
    for _, len in ipairs { 0, 18, 3000, 1048576 } do
      for _, bytes in ipairs { post(h.http1.pattern(len, 1)), chunked(h.http1.pattern(len, 1)) } do
        count = count + 1
        if client:has_ended() then client = gateway:connect() end
        client:send(bytes)
        local response = h.read_response(client)
        assert.equal(200, response.status)
        assert.equal(TEXT, backend:wait_requests(count).body)
        if response.headers.connection == "close" then
          client:wait_end()
          client:close()
          client = gateway:connect()
        end
      end
    end
    client:close()
    finish(gateway, 0, 0)
  end))

  it("another, goes through the body filters behind", test(function()
    local gateway, backend = start {
      { access = { read = {}, replace = "twice" } },
      { type = "test", request_body = { mode = "upper", append = ", and more" } },
    }
    local client = gateway:connect()
    for i, body in ipairs { BODY, h.http1.pattern(200000, 1) } do
      client:send(post(body))
      assert.equal(200, h.read_response(client).status)
      local request = backend:wait_requests(i)
      assert.is_true((body .. body):upper() .. ", and more" == request.body)
      assert.equal("chunked", request.framing)
    end
    client:close()
    finish(gateway, 2, 0)
    assert.is_not_nil(gateway:log():find("f2 saw bodies of 36 and", 1, true))
  end))

  it("another, goes through the body filters behind, which wait", test(function()
    local gateway, backend = start {
      { access = { read = {}, replace = "twice" } },
      { type = "test", request_body = { wait = 0.01, at = "each", mode = "partial", len = 50000 } },
    }
    local client = gateway:connect()
    local body = h.http1.pattern(200000, 1)
    client:send(post(body))
    assert.equal(200, h.read_response(client).status)
    assert.is_true(body .. body == backend:wait_requests(1).body)
    client:close()
    gateway:expect_quiet()
  end))

  it("another, is read anew by the next filter", test(function()
    local gateway, backend = start {
      { rewrite = { read = {}, replace = "twice" }, access = { read = { len = 7 }, replace = "half" } },
      { access = { read = { pause = 0.01, every = 5 }, replace = "twice" } },
    }
    local client = gateway:connect()
    for i = 1, 2 do
      client:send(post(BODY))
      assert.equal(200, h.read_response(client).status)
      assert.equal(BODY .. BODY, backend:wait_requests(i).body)
    end
    client:close()
    finish(gateway, 6, 0)
    local log = gateway:log()
    assert.is_not_nil(log:find("f1 has read 36 bytes in access", 1, true))
    assert.is_not_nil(log:find("f2 has read 18 bytes in access", 1, true))
  end))

  it("another, before a built-in upstream", test(function()
    local gateway = start({
      { access = { read = {}, replace = "text", text = TEXT } },
      { type = "test", request_body = {} },
    }, { serves = "echo", upstreams = { echo = { "builtin:echo" } } })
    local client = gateway:connect()
    for _, bytes in ipairs { post(BODY), chunked(BODY), post "" } do
      client:send(bytes)
      local response = h.read_response(client)
      assert.equal(200, response.status)
      assert.is_not_nil(response.body:find(('"Content-Length", "%d"'):format(#TEXT), 1, true))
    end
    client:close()
    finish(gateway, 3, 0)
    assert.is_not_nil(gateway:log():find(("f2 saw bodies of %d and"):format(#TEXT), 1, true))
    assert.is_not_nil(gateway:log():find("logs 200 whole 18 ", 1, true))
  end))

  it("another, of an HTTP/1.0 client", test(function()
    local gateway, backend = start { access = { read = {}, replace = "twice" } }
    local client = gateway:connect()
    client:send(("POST /x HTTP/1.0\r\nHost: h.example\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n%s"):format(#BODY, BODY))
    local response = h.read_response(client)
    assert.equal(200, response.status)
    assert.same({}, response.interim)
    assert.equal(BODY .. BODY, backend:wait_requests(1).body)
    assert.equal("eof", client:wait_end())
    client:close()
    finish(gateway, 1, 0)
  end))
end)

describe("while a request body is read,", function()
  it("a reader may take little, and wait in between: the client is stopped, and all of it arrives", test(function()
    local body = h.http1.pattern(1048576, 6)
    local gateway, backend = start { access = { read = { pause = 0.01, every = 20000, len = 7000 }, replace = "same" } }
    local client = gateway:connect()
    client:send(post(body))
    assert.equal(200, h.read_response(client, { ms = 20000 }).status)
    assert.is_true(body == backend.requests[1].body)
    client:send(chunked(body))
    assert.equal(200, h.read_response(client, { ms = 20000 }).status)
    assert.is_true(body == backend.requests[2].body)
    client:close()
    finish(gateway, 2, 0)
  end, 60000))

  it("a long upload stops while the reader waits, in no more memory", test(function()
    local gateway = start { access = { read = { pause = LONG, every = 1000, len = 1000 }, replace = "same" } }
    local before = gateway:rss_kb()
    local client = gateway:connect()
    client:send(post(h.http1.pattern(33554432, 5)))
    gateway:wait_log "reads in access"
    h.pass(500)
    assert.equal(0, client.sent)
    assert.is_true(gateway:rss_kb() - before < 2048 * h.loop.scale)
    client:reset()
    gateway:wait_log "cancelled after %d+ bytes in access"
    finish(gateway, 1, 1)
  end, 60000))

  it("it comes in pieces, a byte at a time", test(function()
    local gateway, backend = start { access = { read = {}, replace = "same" } }
    local client = gateway:connect()
    for i, bytes in ipairs { post(BODY), chunked(BODY) } do
      local pieces = {}
      for at = 1, #bytes do pieces[at] = bytes:sub(at, at) end
      client:send_pieces(pieces, 1)
      assert.equal(200, h.read_response(client).status)
      assert.equal(BODY, backend:wait_requests(i).body)
    end
    client:close()
    finish(gateway, 2, 0)
  end))

  it("pipelined requests wait their turn", test(function()
    local gateway, backend = start { access = { read = { pause = 0.01, every = 10 }, replace = "same" } }
    local client = gateway:connect()
    client:send(post(BODY):rep(3) .. chunked(BODY):rep(2))
    for _ = 1, 5 do assert.equal(200, h.read_response(client).status) end
    for i = 1, 5 do assert.equal(BODY, backend.requests[i].body) end
    client:close()
    finish(gateway, 5, 0)
  end))

  for _, how in ipairs { "close", "reset", "shutdown" } do
    for _, is_waiting in ipairs { false, true } do
      it(("the client goes (%s)%s: it is cancelled"):format(how, is_waiting and ", the reader waits" or ""), test(function()
        local gateway, backend = start { access = {
          read = { pause = is_waiting and LONG or nil, every = 5 }, replace = "same" } }
        local client = gateway:connect()
        client:send(post(BODY):sub(1, -5))
        gateway:wait_log "reads in access"
        h.pass(50)
        client[how](client)
        gateway:wait_log "cancelled after %d+ bytes in access"
        if how == "shutdown" then client:close() end
        finish(gateway, 1, 1)
        assert.equal(0, #backend.requests)
        assert.is_not_nil(gateway:log():find "logs 0 cut")
      end))
    end
  end

  it("the drain begins: the exchange is finished", test(function()
    local gateway, backend = start { access = { read = { pause = seconds(0.3), every = 5 }, replace = "same" } }
    local client = gateway:connect()
    client:send(post(BODY):sub(1, -5))
    gateway:wait_log "reads in access"
    gateway:signal()
    gateway:wait_log " info draining"
    client:send(BODY:sub(-4))
    local response = h.read_response(client)
    assert.equal(200, response.status)
    assert.equal("close", response.headers.connection)
    assert.equal(BODY, backend.requests[1].body)
    assert.equal("eof", client:wait_end())
    client:close()
    assert.equal(0, (gateway:wait_exit(3000)))
    finish(gateway, 1, 0, true)
  end))

  it("the drain's time is over: it is cancelled", test(function()
    for _, pause in ipairs { 0, LONG } do
      local gateway = start({ access = { read = { pause = pause, every = 5 } } }, { settings = { timeouts = { drain = 0.2 } } })
      local client = gateway:connect()
      client:send(post(BODY):sub(1, -5))
      gateway:wait_log "reads in access"
      gateway:signal()
      assert.equal(0, (gateway:wait_exit(3000)))
      finish(gateway, 1, 1, true)
    end
  end))

  it("a client that sends nothing more is too slow: 408", test(function()
    local gateway, backend = start({ access = { read = {} } }, { settings = { timeouts = { body = 0.3 } } })
    local client = gateway:connect()
    client:send(post(BODY):sub(1, -5))
    assert.equal(408, h.read_response(client).status)
    client:close()
    finish(gateway, 1, 1)
    assert.equal(0, #backend.requests)
  end))

  it("a reader that waits does not make the client slow", test(function()
    local gateway, backend = start({ access = { read = { pause = seconds(1), every = 10 }, replace = "same" } },
      { settings = { timeouts = { body = 0.3 } } })
    local client = gateway:connect()
    client:send(post(BODY))
    assert.equal(200, h.read_response(client).status)
    assert.equal(BODY, backend.requests[1].body)
    client:close()
    finish(gateway, 1, 0)
  end))

  it("its framing breaks: 400, it is cancelled", test(function()
    local gateway, backend = start { access = { read = {} } }
    local client = gateway:connect()
    client:send(chunked(BODY):sub(1, -6) .. "zz\r\n")
    assert.equal(400, h.read_response(client).status)
    client:close()
    finish(gateway, 1, 1)
    assert.equal(0, #backend.requests)
  end))

  it("the route's time is over: 504, it is cancelled", test(function()
    local gateway = start({ access = { read = {} } }, { route = { timeouts = { request = 0.2 } } })
    local client = gateway:connect()
    client:send(post(BODY):sub(1, -5))
    assert.equal(504, h.read_response(client).status)
    client:close()
    finish(gateway, 1, 1)
  end))

  it("the reader fails: 500, it is cancelled", test(function()
    local gateway, backend = start { access = { read = { len = 5, fail_after = 4 } } }
    local client = gateway:connect()
    client:send(post(BODY))
    local response = h.read_response(client)
    assert.equal(500, response.status)
    assert.equal(32, #response.headers["x-request-id"])
    client:close()
    finish(gateway, 1, 1)
    assert.equal(0, #backend.requests)
  end))
end)

describe("a client that expects 100", function()
  local HEAD = ("POST /x HTTP/1.1\r\nHost: h.example\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"):format(#BODY)

  it("gets it when reading begins, and once", test(function()
    local gateway, backend = start({ access = { read = { pause = 0.02, every = 5 }, replace = "same" } },
      { backend = h.backend(function(connection)
        local request = connection:read_head()
        connection:send "HTTP/1.1 100 Continue\r\n\r\n"
        h.http1.read_request_body(connection, request, 5000)
        connection:send(h.http1.response("200 OK", "thanks"))
        connection:wait_end(20000)
      end) })
    local client = gateway:connect()
    client:send(HEAD)
    assert.equal(100, h.read_response(client, { is_interim_wanted = true }).status)
    client:send(BODY)
    local response = h.read_response(client)
    assert.equal("thanks", response.body)
    assert.same({}, response.interim)
    assert.equal(BODY, backend.requests[1].body)
    assert.is_nil(backend.requests[1].headers.expect)
    client:close()
    finish(gateway, 1, 0)
  end))

  it("gets none where its body is replaced unread; the connection closes", test(function()
    local gateway, backend = start { access = { replace = "text", text = TEXT } }
    local client = gateway:connect()
    client:send(HEAD)
    local response = h.read_response(client)
    assert.equal(200, response.status)
    assert.same({}, response.interim)
    assert.equal("close", response.headers.connection)
    assert.equal(TEXT, backend.requests[1].body)
    assert.is_nil(backend.requests[1].headers.expect)
    assert.equal("eof", client:wait_end())
    client:close()
    finish(gateway, 0, 0)
  end))

  it("is not slow while its body is not wanted", test(function()
    local gateway = start({ access = { replace = "text", text = TEXT } }, {
      settings = { timeouts = { body = 0.3 } },
      backend = h.backend(function(connection)
        connection:read_request()
        h.pass(seconds(1000))
        connection:send(h.http1.response("200 OK", "late"))
        connection:wait_end(20000)
      end) })
    local client = gateway:connect()
    client:send(HEAD)
    assert.equal("late", h.read_response(client).body)
    client:close()
    finish(gateway, 0, 0)
  end))

  it("gets it before a built-in upstream, once", test(function()
    local gateway = start({ access = { read = {}, replace = "same" } },
      { serves = "echo", upstreams = { echo = { "builtin:echo" } } })
    local client = gateway:connect()
    client:send(HEAD)
    assert.equal(100, h.read_response(client, { is_interim_wanted = true }).status)
    client:send(BODY)
    local response = h.read_response(client)
    assert.equal(200, response.status)
    assert.same({}, response.interim)
    client:close()
    finish(gateway, 1, 0)
  end))
end)

describe("a request body that was read", function()
  it("and not replaced is not forwarded: 500", test(function()
    for _, read in ipairs { {}, { till = 5, len = 5 } } do
      local gateway, backend = start { access = { read = read } }
      local response = gateway:request(post(BODY))
      assert.equal(500, response.status)
      assert.is_not_nil(response.body:find("the request's body was read and not replaced", 1, true))
      assert.equal(0, #backend.requests)
      finish(gateway, 1, 0)
    end
  end))

  it("and is empty needs no replacement", test(function()
    local gateway, backend = start { access = { read = {} } }
    local client = gateway:connect()
    for i, bytes in ipairs { post "", chunked "", "GET /x HTTP/1.1\r\nHost: h.example\r\n\r\n" } do
      client:send(bytes)
      assert.equal(200, h.read_response(client).status)
      assert.equal("", backend:wait_requests(i).body)
    end
    client:close()
    finish(gateway, 3, 0)
  end))

  it("to the end and answered leaves the connection open", test(function()
    local gateway, backend = start { access = { read = {}, verdict = "answer", body = "no" } }
    local client = gateway:connect()
    for _, bytes in ipairs { post(BODY), chunked(BODY), post(h.http1.pattern(300000, 1)) } do
      client:send(bytes)
      local response = h.read_response(client)
      assert.equal(403, response.status)
      assert.equal("no", response.body)
      assert.is_nil(response.headers.connection)
    end
    client:close()
    finish(gateway, 3, 0)
    assert.equal(0, #backend.requests)
  end))

  it("in part and answered closes the connection, the answer arrives", test(function()
    for _, len in ipairs { 3000, 1048576 } do
      local gateway = start { access = { read = { till = 10, len = 10 }, verdict = "answer", body = "no" } }
      local client = gateway:connect()
      client:send(post(h.http1.pattern(len, 1)))
      local response = h.read_response(client)
      assert.equal(403, response.status)
      assert.equal("no", response.body)
      assert.equal("close", response.headers.connection)
      client:wait_end()
      client:close()
      finish(gateway, 1, 0)
    end
  end))

  it("in part and replaced: the rest is dropped, the upstream's connection stays in order", test(function()
    local gateway, backend = start { access = { read = { till = 1000, len = 1000 }, replace = "same" } }
    for i, len in ipairs { 1000, 3000, 1048576 } do
      local body = h.http1.pattern(len, i)
      local client = gateway:connect()
      client:send(post(body))
      assert.equal(200, h.read_response(client).status)
      assert.is_true(body:sub(1, 1000) == backend:wait_requests(i).body)
      client:close()
    end
    finish(gateway, 3, 0)
  end))
end)

describe("a replaced body is sent again", function()
  -- Fails the first attempts in this way.
  local function failing(count, fail)
    return h.backend(function(connection)
      while true do
        local request = connection:read_request()
        if not request then return end
        if #connection.backend.requests <= count then return fail(connection) end
        connection:send(h.http1.response("200 OK", "at last"))
      end
    end)
  end
  local ways = {
    ["after a status"] = function(connection)
      connection:send(h.http1.response("503 Service Unavailable", "no"))
      connection:wait_end(20000)
    end,
    ["after a reset"] = function(connection) connection:reset() end,
  }

  for way, fail in pairs(ways) do
    for _, len in ipairs { 18, 1048576 } do
      it(("%s, %d bytes"):format(way, len), test(function()
        local gateway, backend = start({ access = { read = {}, replace = "same" } }, { backend = failing(2, fail),
          route = { retry = { attempts = 2, on = { "503", "reset" }, backoff = 0 } } })
        local client = gateway:connect()
        local body = h.http1.pattern(len, 3)
        client:send(post(body, nil, "PUT"))
        assert.equal("at last", h.read_response(client).body)
        for i = 1, 3 do assert.is_true(body == backend:wait_requests(i).body) end
        client:close()
        finish(gateway, 1, 0)
      end))
    end
  end

  it("behind body filters, as far as that goes", test(function()
    for _, len in ipairs { 18, 20000, 200000 } do
      local gateway, backend = start({ { access = { read = {}, replace = "same" } },
        { type = "test", request_body = { mode = "upper" } } }, { backend = failing(1, ways["after a status"]),
        route = { retry = { attempts = 1, on = { "503" }, backoff = 0 } } })
      local client = gateway:connect()
      local body = h.http1.pattern(len, 3)
      client:send(post(body, nil, "PUT"))
      assert.equal(len > 49152 and 503 or 200, h.read_response(client).status)
      for _, request in ipairs(backend.requests) do assert.is_true(body:upper() == request.body) end
      assert.equal(len > 49152 and 1 or 2, #backend.requests)
      client:close()
      finish(gateway, 1, 0)
    end
  end))

  it("when the upstream breaks off in the middle of it", test(function()
    local body = h.http1.pattern(4194304, 3)
    local gateway, backend = start({ access = { read = {}, replace = "same" } }, {
      backend = h.backend(function(connection)
        if #connection.backend.connections == 1 then
          connection:read_head()
          connection:reset()
          return
        end
        if connection:read_request() then connection:send(h.http1.response("200 OK", "at last")) end
        connection:wait_end(20000)
      end),
      route = { retry = { attempts = 1, on = { "reset" }, backoff = 0 } } })
    local client = gateway:connect()
    client:send(post(body, nil, "PUT"))
    assert.equal("at last", h.read_response(client).body)
    assert.is_true(body == backend.requests[2].body)
    client:close()
    finish(gateway, 1, 0)
  end))

  it("to an upstream that answers early it is sent no further than it takes", test(function()
    local gateway = start({ access = { read = {}, replace = "same" } }, { backend = h.backend(function(connection)
      connection:read_head()
      connection:send(h.http1.response("413 Content Too Large", "no"))
      connection:wait_end(20000)
    end) })
    local client = gateway:connect()
    client:send(post(h.http1.pattern(4194304, 3)))
    assert.equal(413, h.read_response(client).status)
    client:close()
    finish(gateway, 1, 0)
  end))
end)

describe("a filter that fails", function()
  for _, hook in ipairs { "rewrite", "access", "header_filter" } do
    it("in " .. hook .. " tells the exchange's id", test(function()
      local gateway = start({ { [hook] = { verdict = "fail" } } }, { settings = { request_id = true } })
      local response = gateway:get("/", "X-Request-Id: mine\r\n")
      local id = response.headers["x-request-id"]
      assert.equal(500, response.status)
      assert.equal(32, #id)
      assert.equal(("500 Internal Server Error: a plugin or function failed (request id %s)\n"):format(id), response.body)
      local json = gateway:get("/", "Accept: application/json\r\n")
      assert.equal(('{"status":500,"error":"Internal Server Error","reason":"a plugin or function failed","request_id":"%s"}\n'):format(
        json.headers["x-request-id"]), json.body)
      assert.are_not.equal(id, json.headers["x-request-id"])
      finish(gateway, 0, 0)
    end))
  end

  it("is the only one whose answer does", test(function()
    local gateway = start({ { access = {} } }, { backend = "127.0.0.1:" .. h.dead_port() })
    local response = gateway:get "/"
    assert.equal(502, response.status)
    assert.is_nil(response.headers["x-request-id"])
    finish(gateway, 0, 0)
  end))
end)

describe("a filter that may answer", function()
  it("needs no backends", test(function()
    local gateway = start({ type = "test-may", access = { verdict = "answer", body = "here" } }, { backend = false })
    local response = gateway:get "/"
    assert.equal(403, response.status)
    assert.equal("here", response.body)
    finish(gateway, 0, 0)
  end))

  it("and does not: 500 without backends, else the upstream's answer", test(function()
    local gateway = start({ type = "test-may" }, { backend = false })
    local response = gateway:get "/"
    assert.equal(500, response.status)
    assert.is_not_nil(response.body:find("the route has no backends and no plugin answered", 1, true))
    finish(gateway, 0, 0)
    gateway = start({ type = "test-may" })
    assert.equal(200, gateway:get("/").status)
    finish(gateway, 0, 0)
  end))
end)
