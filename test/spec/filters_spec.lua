-- The filter contract (core/filter/filter.h) by a C filter that waits in every hook, edits, replaces, holds, answers, fails and
-- aborts (test/support/test_filter.h), in the binary that has it. Every wait ends once: the hook goes on, or it is cancelled.
local h = require "test.support.harness"

local HOOKS = { "rewrite", "access", "request_body", "header_filter", "response_body", "log" }
local LONG = 60 -- seconds: ends by cancel only
local BODY = "the request's body"
local POST = ("POST /x HTTP/1.1\r\nHost: h.example\r\nContent-Length: %d\r\n\r\n%s"):format(#BODY, BODY)
local GET = "GET /x HTTP/1.1\r\nHost: h.example\r\n\r\n"
local CHUNKED = "POST /x HTTP/1.1\r\nHost: h.example\r\nTransfer-Encoding: chunked\r\n\r\n"
local BODY_HOOKS = { request_body = true, response_body = true }

local function test(body, ms)
  return function()
    if not h.has_binary { is_test = true } then
      getfenv(body).pending "there is no moongate-test beside MOONGATE_BIN"
    end
    h.run(body, ms)
  end
end

-- A gateway whose only route has these plugins: { hook = ... } is one of the filter "test".
local function start(plugins, options)
  options = options or {}
  local list = {}
  for i, plugin in ipairs(plugins[1] and plugins or { plugins }) do
    local entry = { plugin.type or "test" }
    for key, value in pairs(plugin) do
      if key ~= "type" then entry[key] = value end
    end
    entry.name = entry.name or ("f" .. i)
    list[i] = entry
  end
  options.is_test = true
  options.backend = options.backend or h.backend()
  options.routes = { { path = "/", backends = options.serves or "backend", plugins = list } }
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

local function wait_log(gateway, what, hook)
  gateway:wait_log("test%-filter info %S+ " .. what .. " in " .. hook)
end

local function seconds(s)
  return s * math.min(2, h.loop.scale)
end

-- A backend whose connections do what the script says with a request that was read whole.
local function on_request(script)
  return h.backend(function(connection)
    local request = connection:read_request()
    if request then script(connection, request) end
  end)
end

-- A response of which all but the last half comes at once, the rest when let_go was called.
local function halves(body)
  local world = { changed = h.loop.signal() }
  function world.let_go()
    world.is_free = true
    world.changed:fire()
  end
  world.backend = on_request(function(connection)
    local bytes = h.http1.response("200 OK", body)
    local at = #bytes - math.floor(#body / 2)
    connection:send(bytes:sub(1, at))
    h.loop.wait(world.changed, 20000, "let_go", function() return world.is_free end)
    if world.then_do then return world.then_do(connection) end
    connection:send(bytes:sub(at + 1))
    connection:wait_end(20000)
  end)
  return world
end

describe("a filter that waits in", function()
  for _, hook in ipairs(HOOKS) do
    it(hook .. " goes on", test(function()
      local gateway, backend = start({ [hook] = { wait = 0.1 } })
      local client = gateway:connect()
      for i = 1, 3 do
        client:send(POST)
        local response = h.read_response(client)
        assert.equal(200, response.status)
        assert.equal("you asked for /x\n", response.body)
        assert.equal(BODY, backend:wait_requests(i).body)
      end
      client:close()
      finish(gateway, 3, 0)
    end))

    if BODY_HOOKS[hook] then
      for _, moment in ipairs { "end", "each" } do
        it(hook .. ", at " .. moment .. ", goes on", test(function()
          local gateway, backend = start({ [hook] = { wait = 0.05, at = moment } })
          local client = gateway:connect()
          client:send(POST)
          assert.equal("you asked for /x\n", h.read_response(client).body)
          assert.equal(BODY, backend.requests[1].body)
          client:close()
          finish(gateway, 1, 0)
        end))
      end
    end

    for _, how in ipairs { "close", "reset" } do
      it(("%s when the client goes (%s)"):format(hook, how), test(function()
        local gateway = start({ [hook] = { wait = hook == "log" and seconds(0.5) or LONG } })
        local client = gateway:connect()
        client:send(POST)
        wait_log(gateway, "waits", hook)
        if hook == "log" then assert.equal(200, h.read_response(client).status) end
        client[how](client)
        if hook == "log" then
          gateway:wait_metrics("no connection but an exchange", function(metrics)
            return metrics.moongate_connections_live == 0 and metrics.moongate_exchanges_live == 1
              and metrics.moongate_arenas_live == 1
          end)
          wait_log(gateway, "goes on", hook)
          finish(gateway, 1, 0)
          assert.is_not_nil(gateway:log():find "logs 200 whole")
        else
          wait_log(gateway, "cancelled", hook)
          finish(gateway, 1, 1)
          assert.is_not_nil(gateway:log():find "logs %d+ cut")
        end
      end))
    end

    it(hook .. " when the drain begins: the exchange is finished", test(function()
      local gateway, backend = start({ [hook] = { wait = seconds(0.4) } })
      local client = gateway:connect()
      client:send(POST)
      wait_log(gateway, "waits", hook)
      gateway:signal()
      gateway:wait_log " info draining"
      local response = h.read_response(client)
      assert.equal(200, response.status)
      assert.equal("you asked for /x\n", response.body)
      assert.equal(BODY, backend.requests[1].body)
      assert.equal("eof", client:wait_end())
      client:close()
      assert.equal(0, (gateway:wait_exit(2000)))
      finish(gateway, 1, 0, true)
    end))

    it(hook .. " when the drain's time is over", test(function()
      local gateway = start({ [hook] = { wait = LONG } }, { settings = { timeouts = { drain = 0.2 } } })
      local client = gateway:connect()
      client:send(POST)
      wait_log(gateway, "waits", hook)
      assert.equal(0, h.takes(0, 2000, function()
        gateway:signal()
        return (gateway:wait_exit(3000))
      end))
      finish(gateway, 1, 1, true)
    end))

    it(hook .. " when a second signal comes: it stops at once", test(function()
      local gateway = start({ [hook] = { wait = LONG } })
      local client = gateway:connect()
      client:send(POST)
      wait_log(gateway, "waits", hook)
      gateway:signal()
      gateway:wait_log " info draining"
      gateway:signal()
      gateway:wait_exit(1000)
      finish(gateway, 1, 1, true)
    end))
  end

  it("two hooks of one exchange at once: each goes on by its own timer", test(function()
    local world = halves("twelve bytes")
    world.let_go()
    local gateway = start({
      { name = "slow", response_body = { wait = seconds(0.5) } },
      { name = "quick", request_body = { wait = 0.1, at = "end" } },
    }, { backend = h.backend(h.once "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly") })
    local client = gateway:connect()
    client:send(CHUNKED .. "5\r\nhello\r\n0\r\n\r\n")
    local response = h.read_response(client)
    assert.equal("early", response.body)
    client:close()
    local log = gateway:log()
    assert.is_true(log:find("quick goes on in request_body", 1, true) < log:find("slow goes on in response_body", 1, true))
    finish(gateway, 2, 0)
  end))

  it("header_filter does not keep the request body from going on", test(function()
    local gateway, backend = start({ request_body = { wait = 0.1 }, header_filter = { wait = seconds(0.6) } },
      { backend = h.backend(function(connection)
        local request = connection:read_head()
        connection:send "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        h.http1.read_request_body(connection, request, 5000)
        connection.backend.changed:fire()
        connection:wait_end(20000)
      end) })
    local client = gateway:connect()
    client:send(POST)
    wait_log(gateway, "waits", "header_filter")
    h.loop.wait(backend.changed, 5000, "the body", function() return backend.requests[1].complete end)
    assert.is_nil(gateway:log():find("goes on in header_filter", 1, true))
    assert.equal(BODY, backend.requests[1].body)
    assert.equal("ok", h.read_response(client).body)
    client:close()
    finish(gateway, 2, 0)
  end))

  it("several hooks of two filters, one after the other", test(function()
    local waits = {}
    for _, hook in ipairs(HOOKS) do waits[hook] = { wait = 0.03 } end
    local second = {}
    for hook, conf in pairs(waits) do second[hook] = conf end
    local gateway, backend = start({ waits, second })
    local client = gateway:connect()
    for _ = 1, 2 do
      client:send(POST)
      assert.equal("you asked for /x\n", h.read_response(client).body)
    end
    assert.equal(BODY, backend.requests[2].body)
    client:close()
    finish(gateway, 24, 0)
  end))

  it("the filter behind another one that is cancelled, too", test(function()
    local gateway = start({ { response_body = { mode = "pieces", len = 3 } }, { response_body = { wait = LONG } } })
    local client = gateway:connect()
    client:send(GET)
    wait_log(gateway, "waits", "response_body")
    client:close()
    finish(gateway, 1, 1)
  end))
end)

describe("while a filter waits,", function()
  it("log outlives its connection by 5 s, and its arena is freed then", test(function()
    local gateway = start({ log = { wait = 5 } })
    local from = h.now_ms()
    assert.equal(200, gateway:get("/").status)
    gateway:wait_metrics("the connection gone", function(metrics)
      return metrics.moongate_connections_live == 0 and metrics.moongate_arenas_live == 1
    end)
    gateway:wait_log("goes on in log", 8000)
    assert.is_true(h.now_ms() - from >= 4990)
    finish(gateway, 1, 0)
  end))

  it("in log, the connection serves its next requests", test(function()
    local gateway = start({ log = { wait = LONG } }, { settings = { timeouts = { drain = 0.2 } } })
    local client = gateway:connect()
    for _ = 1, 5 do
      client:send(POST)
      assert.equal(200, h.read_response(client).status)
    end
    gateway:wait_metrics("five arenas", function(metrics) return metrics.moongate_arenas_live == 5 end)
    client:close()
    gateway:stop()
    finish(gateway, 5, 5, true)
  end))

  for _, hook in ipairs { "rewrite", "access", "request_body", "header_filter", "response_body" } do
    it(hook .. ", pipelined requests wait their turn", test(function()
      local gateway, backend = start({ [hook] = { wait = 0.05 } })
      local client = gateway:connect()
      local all = {}
      for i = 1, 5 do all[i] = POST:gsub("/x", "/" .. i) end
      client:send(table.concat(all))
      for i = 1, 5 do assert.equal(("you asked for /%d\n"):format(i), h.read_response(client).body) end
      for i = 1, 5 do assert.equal(BODY, backend.requests[i].body) end
      client:close()
      finish(gateway, 5, 0)
    end))
  end

  it("request_body, the upstream resets: 502, the wait is cancelled", test(function()
    local gateway = start({ request_body = { wait = LONG } }, { backend = h.backend(function(connection)
      connection:read_head()
      connection:reset()
    end) })
    local client = gateway:connect()
    client:send(POST)
    assert.equal(502, h.read_response(client).status)
    client:close()
    finish(gateway, 1, 1)
  end))

  it("request_body, the upstream answers early: the wait is cancelled", test(function()
    local backend = h.backend(h.once(h.http1.response("413 Content Too Large", "no")))
    local gateway = start({ request_body = { wait = LONG } }, { backend = backend })
    local client = gateway:connect()
    client:send(POST)
    local response = h.read_response(client)
    assert.equal(413, response.status)
    assert.equal("close", response.headers.connection)
    assert.equal("no", response.body)
    client:wait_end()
    finish(gateway, 1, 1)
  end))

  it("request_body, the upstream closes without an answer: 502", test(function()
    local gateway = start({ request_body = { wait = LONG } }, { backend = h.backend(function(connection)
      connection:read_head()
      connection:shutdown()
      connection:wait_end(20000)
    end) })
    local client = gateway:connect()
    client:send(POST)
    assert.equal(502, h.read_response(client).status)
    client:close()
    finish(gateway, 1, 1)
  end))

  it("header_filter, the upstream resets before its body: 502 takes the place, through header_filter", test(function()
    local gateway = start({ header_filter = { wait = LONG, set = { ["x-seen"] = "1" } } }, {
      backend = on_request(function(connection)
        connection:send "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
        connection.backend.world.changed:fire()
        h.loop.wait(connection.backend.world.changed, 5000, "the wait", function()
          return connection.backend.world.is_free
        end)
        connection:reset()
      end) })
    gateway.options.backend.world = { changed = h.loop.signal() }
    local client = gateway:connect()
    client:send(GET)
    wait_log(gateway, "waits", "header_filter")
    gateway.options.backend.world.is_free = true
    gateway.options.backend.world.changed:fire()
    local response = h.read_response(client)
    assert.equal(502, response.status)
    assert.equal("1", response.headers["x-seen"])
    client:close()
    finish(gateway, 1, 1)
  end))

  for _, hook in ipairs { "header_filter", "response_body" } do
    it(hook .. ", the upstream finishes and closes: all of it arrives", test(function()
      local body = h.http1.pattern(50000, 3)
      local gateway = start({ [hook] = { wait = seconds(0.3) } }, { backend = on_request(function(connection)
        connection:send("HTTP/1.1 200 OK\r\n\r\n" .. body)
      end) })
      local client = gateway:connect()
      client:send(GET)
      local response = h.read_response(client)
      assert.is_true(response.complete)
      assert.is_true(body == response.body)
      client:close()
      finish(gateway, 1, 0)
    end))

    it(hook .. ", the upstream resets inside its body: what came arrives, the rest is cut", test(function()
      local world = halves(("x"):rep(1000))
      function world.then_do(connection)
        connection:reset()
      end
      local gateway = start({ [hook] = { wait = seconds(0.4) } }, { backend = world.backend })
      local client = gateway:connect()
      client:send(GET)
      wait_log(gateway, "waits", hook)
      world.let_go()
      local response = h.read_response(client)
      assert.equal(200, response.status)
      assert.is_false(response.complete)
      assert.equal(("x"):rep(500), response.body)
      client:close()
      finish(gateway, 1, 0)
      assert.is_not_nil(gateway:log():find "logs 200 cut")
    end))
  end

  for _, hook in ipairs { "rewrite", "access", "request_body" } do
    it(hook .. ", the request body breaks behind a good chunk: 400", test(function()
      local gateway, backend = start({ [hook] = { wait = 0.2 } })
      local client = gateway:connect()
      client:send(CHUNKED .. "5\r\nhello\r\nzz\r\n")
      assert.equal(400, h.read_response(client).status)
      client:close()
      finish(gateway, 1, 0)
      assert.is_false(backend.requests[1] ~= nil and backend.requests[1].complete == true)
    end))
  end

  for _, hook in ipairs { "rewrite", "access" } do
    it(hook .. ", the request body breaks at once: 400, the wait is cancelled", test(function()
      local gateway, backend = start({ [hook] = { wait = LONG } })
      local client = gateway:connect()
      client:send(CHUNKED .. "zz\r\n")
      assert.equal(400, h.read_response(client).status)
      client:close()
      finish(gateway, 1, 1)
      assert.equal(0, #backend.requests)
    end))
  end

  it("response_body, the backend is stopped, and every byte arrives", test(function()
    local body = h.http1.pattern(33554432, 5)
    local backend = on_request(function(connection)
      connection:send(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"):format(#body) .. body)
      connection:wait_end(60000)
    end)
    local gateway = start({ response_body = { wait = 1 } }, { backend = backend })
    local before = gateway:rss_kb()
    local client = gateway:connect()
    client:send(GET)
    wait_log(gateway, "waits", "response_body")
    h.pass(500)
    assert.is_nil(gateway:log():find("goes on", 1, true))
    local grown = gateway:rss_kb() - before
    assert.is_true(grown < 2048 * h.loop.scale, grown .. " KiB more memory")
    local response = h.read_response(client, { ms = 20000 })
    assert.is_true(body == response.body)
    client:close()
    finish(gateway, 1, 0)
  end, 60000))

  it("request_body, the client is stopped, and every byte arrives", test(function()
    local body = h.http1.pattern(33554432, 6)
    local gateway, backend = start({ request_body = { wait = 1 } })
    local client = gateway:connect()
    client:send(("POST /x HTTP/1.1\r\nHost: h.example\r\nContent-Length: %d\r\n\r\n"):format(#body) .. body)
    wait_log(gateway, "waits", "request_body")
    h.pass(500)
    assert.equal(0, client.sent)
    assert.equal(200, h.read_response(client, { ms = 20000 }).status)
    assert.is_true(body == backend.requests[1].body)
    client:close()
    finish(gateway, 1, 0)
  end, 60000))

  it("body hooks at every piece, bodies bigger than all buffers pass both ways at once", test(function()
    local body = h.http1.pattern(1048576, 7)
    local backend = h.backend(h.duplex(h.http1.response("200 OK", body)))
    local conf = { wait = 0.004, at = "each", mode = "partial", len = 20000 }
    local gateway = start({ request_body = conf, response_body = conf }, { backend = backend })
    local client = gateway:connect()
    client:send(("POST /x HTTP/1.1\r\nHost: h.example\r\nContent-Length: %d\r\n\r\n"):format(#body) .. body)
    local response = h.read_response(client, { ms = 20000 })
    assert.is_true(body == response.body)
    assert.is_true(body == backend.requests[1].body)
    client:close()
    gateway:expect_quiet()
  end, 60000))

  it("a hook that takes its time is no silence of the upstream, nor a slow client", test(function()
    local timeouts = { response = 0.3, body = 0.3 }
    for _, hook in ipairs { "rewrite", "access", "request_body", "header_filter", "response_body" } do
      local gateway = start({ [hook] = { wait = seconds(1) } }, { settings = { timeouts = timeouts } })
      local client = gateway:connect()
      client:send(POST)
      local response = h.read_response(client)
      assert.equal(200, response.status, hook)
      assert.equal("you asked for /x\n", response.body)
      client:close()
      finish(gateway, 1, 0)
    end
  end))

  it("a client that waits for 100 is not slow", test(function()
    local gateway, backend = start({ access = { wait = seconds(1) } }, {
      settings = { timeouts = { body = 0.3 } },
      backend = h.backend(function(connection)
        local request = connection:read_head()
        connection:send "HTTP/1.1 100 Continue\r\n\r\n"
        h.http1.read_request_body(connection, request, 5000)
        connection:send(h.http1.response("200 OK", "thanks"))
        connection:wait_end(20000)
      end) })
    local client = gateway:connect()
    client:send("POST /x HTTP/1.1\r\nHost: h.example\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    local interim = h.read_response(client, { is_interim_wanted = true })
    assert.equal(100, interim.status)
    client:send "hello"
    assert.equal("thanks", h.read_response(client).body)
    assert.equal("hello", backend.requests[1].body)
    client:close()
    finish(gateway, 1, 0)
  end))
end)

describe("filters on several workers #threads", function()
  it("wait, go on and are cancelled, each on its own", test(function()
    local plugin = { name = "many" }
    for _, hook in ipairs(HOOKS) do plugin[hook] = { wait = 0.01 } end
    local gateway = start(plugin, { settings = { workers = 4 } })
    local tasks = {}
    for i = 1, 40 do
      tasks[i] = h.task(function()
        local client = gateway:connect()
        for _ = 1, 3 do
          client:send(POST)
          assert.equal("you asked for /x\n", h.read_response(client, { ms = 20000 }).body)
        end
        client:send(POST) -- and gone
        client:flush()
        client[i % 2 == 0 and "close" or "reset"](client)
      end)
    end
    for _, task in ipairs(tasks) do
      h.loop.wait(task.ended, 30000, "a client", function() return task.done end)
    end
    gateway:expect_quiet()
    gateway:stop()
    local waits, on, off, live, errors = gateway:log():match
      "in all: (%d+) waits, (%d+) went on, (%d+) cancelled, (%d+) live, (%d+) errors"
    assert.equal(tonumber(waits), on + off)
    assert.is_true(tonumber(on) >= 40 * 3 * #HOOKS)
    assert.same({ "0", "0" }, { live, errors })
    local seen, count = {}, 0
    for worker in gateway:log():gmatch "went by worker (%d+)," do
      assert.is_true(tonumber(worker) < 4)
      count = count + (seen[worker] and 0 or 1)
      seen[worker] = true
    end
    assert.is_true(count > 1, count .. " workers of 4")
  end, 60000))
end)

describe("a flow knows", function()
  it("its worker, route, upstream and endpoint", test(function()
    local gateway, backend = start({ { log = {} } }, { settings = { workers = 1 } })
    assert.equal(200, gateway:get("/").status)
    finish(gateway, 0, 0)
    local worker, route, upstream, endpoint = gateway:log():match
      'went by worker (%d+), route "([^"]*)", upstream "([^"]*)", endpoint "([^"]*)"'
    assert.same({ "0", "/", "backend", "127.0.0.1:" .. backend.port }, { worker, route, upstream, endpoint })
  end))

  it("no upstream before one was chosen", test(function()
    local gateway, backend = start({ { access = { verdict = "answer" } } })
    assert.equal(403, gateway:get("/").status)
    finish(gateway, 0, 0)
    assert.equal(0, #backend.requests)
    assert.is_not_nil(gateway:log():find('upstream "", endpoint ""', 1, true))
  end))

  it("no endpoint of an upstream that is built in", test(function()
    local gateway = start({ { access = {} } }, { serves = "echo", upstreams = { echo = { "builtin:echo" } } })
    assert.equal(200, gateway:get("/").status)
    finish(gateway, 0, 0)
    assert.is_not_nil(gateway:log():find('upstream "echo", endpoint ""', 1, true))
  end))
end)

describe("heads:", function()
  it("are edited in every hook, by filters in order", test(function()
    local gateway, backend = start({
      { rewrite = { set = { ["X-A"] = "1" }, del = { "X-Gone" } }, access = { add = { ["X-B"] = "1" } },
        header_filter = { set = { ["X-C"] = "1" }, del = { "X-Secret" } } },
      { rewrite = { set = { ["X-A"] = "2" } }, access = { add = { ["X-B"] = "2" } }, header_filter = { add = { ["X-C"] = "2" } } },
    }, { backend = h.backend(h.always "HTTP/1.1 200 OK\r\nX-Secret: s\r\nContent-Length: 2\r\n\r\nok") })
    local response = gateway:get("/", "X-Gone: 1\r\nX-A: 0\r\n")
    assert.equal("1, 2", response.headers["x-c"])
    assert.is_nil(response.headers["x-secret"])
    local headers = backend.requests[1].headers
    assert.equal("2", headers["x-a"])
    assert.equal("1, 2", headers["x-b"])
    assert.is_nil(headers["x-gone"])
    finish(gateway, 0, 0)
  end))

  it("describe no body that filters may change", test(function()
    local gateway, backend = start({}, { backend = h.backend(h.always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" ..
      "Content-Digest: sha-256=:x:\r\nRepr-Digest: sha-256=:x:\r\nDigest: SHA-256=x\r\nContent-MD5: x\r\n\r\nok")) })
    local response = gateway:request("POST / HTTP/1.1\r\nHost: h.example\r\nContent-Length: 2\r\nContent-Digest: sha-256=:x:\r\n\r\nhi")
    assert.equal("ok", response.body)
    for _, message in ipairs { response, backend.requests[1] } do
      assert.equal("chunked", message.framing)
      for _, name in ipairs { "content-length", "content-digest", "repr-digest", "digest", "content-md5" } do
        assert.is_nil(message.headers[name], name)
      end
    end
    finish(gateway, 0, 0)
  end))

  it("keep them where no filter reads the body, and it may be spliced", test(function()
    local body = h.http1.pattern(1048576, 8)
    local gateway = start({ type = "test-heads", access = { wait = 0.05 }, header_filter = { wait = 0.05 } },
      { backend = h.backend(h.always(h.http1.response("200 OK", body, "Content-Digest: x\r\n"))) })
    local response = gateway:get "/"
    assert.equal("length", response.framing)
    assert.equal("x", response.headers["content-digest"])
    assert.is_true(body == response.body)
    assert.is_true(gateway:metrics().moongate_spliced_bytes_total > 0)
    finish(gateway, 2, 0)
  end))

  for _, hook in ipairs { "rewrite", "access" } do
    for _, wait in ipairs { 0, 0.1 } do
      it(("are answered in %s (after %g s), through header_filter and body filters"):format(hook, wait), test(function()
        local gateway, backend = start({
          { [hook] = { wait = wait, verdict = "answer", status = 403, body = "go away" } },
          { rewrite = { wait = hook == "rewrite" and 9 or 0 }, header_filter = { set = { ["X-C"] = "1" } },
            response_body = { mode = "upper" } },
        })
        local client = gateway:connect()
        for _ = 1, 2 do
          client:send(GET)
          local response = h.read_response(client)
          assert.equal(403, response.status)
          assert.equal("1", response.headers["x-c"])
          assert.equal("GO AWAY", response.body)
        end
        assert.equal(0, #backend.requests)
        client:close()
        finish(gateway, wait > 0 and 2 or 0, 0)
      end))
    end

    it(("are not answered by a DONE without answer in %s: 500"):format(hook), test(function()
      local gateway = start({ [hook] = { verdict = "done" } })
      assert.equal(500, gateway:get("/").status)
      finish(gateway, 0, 0)
    end))
  end

  for _, hook in ipairs { "rewrite", "access", "header_filter" } do
    for _, wait in ipairs { 0, 0.1 } do
      it(("a failure in %s (after %g s) is a 500, and is logged"):format(hook, wait), test(function()
        local gateway = start({ [hook] = { wait = wait, verdict = "fail" } })
        local client = gateway:connect()
        client:send(POST)
        assert.equal(500, h.read_response(client).status)
        client:close()
        finish(gateway, wait > 0 and 1 or 0, 0)
        assert.is_not_nil(gateway:log():find "logs 500 whole")
      end))

      it(("an abort in %s (after %g s) ends the connection without an answer"):format(hook, wait), test(function()
        local gateway, backend = start({ [hook] = { wait = wait, verdict = "abort" } })
        local client = gateway:connect()
        client:send(POST)
        assert.equal("", (client:read_all()))
        client:close()
        finish(gateway, wait > 0 and 1 or 0, 0)
        assert.is_not_nil(gateway:log():find "logs %d+ cut")
        if hook ~= "header_filter" then assert.equal(0, #backend.requests) end
      end))
    end
  end

  it("a failure in header_filter while the request body waits cancels that", test(function()
    local gateway = start({ { request_body = { wait = LONG } }, { header_filter = { verdict = "fail" } } }, {
      backend = h.backend(h.once(h.http1.response("200 OK", "early"))) })
    local client = gateway:connect()
    client:send(POST)
    assert.equal(500, h.read_response(client).status)
    client:close()
    finish(gateway, 1, 1)
  end))

  it("a failure or an abort in log changes nothing, the next filter logs", test(function()
    for _, verdict in ipairs { "fail", "abort" } do
      local gateway = start({ { log = { verdict = verdict } }, { name = "second", log = { wait = 0.1 } } })
      assert.equal(200, gateway:get("/").status)
      finish(gateway, 1, 0)
      assert.is_not_nil(gateway:log():find("second logs 200 whole", 1, true))
    end
  end))
end)

-- What a mode makes of a body.
local MODES = {
  { "pass", {}, function(body) return body end },
  { "pieces", { len = 7 }, function(body) return body end },
  { "partial", { len = 1000 }, function(body) return body end },
  { "upper", {}, function(body) return body:upper() end },
  { "hold", {}, function(body) return body end },
  { "hold_until", { len = 5000 }, function(body) return body end },
  { "drop", {}, function() return "" end },
  { "cut", {}, function() return "" end },
  { "append_only", { append = "instead" }, function() return "instead" end },
  { "pass", { append = ", and more" }, function(body) return body .. ", and more" end },
  { "hold", { append = ("x"):rep(3000) }, function(body) return body .. ("x"):rep(3000) end },
}
local SIZES = { 0, 1, 1000, 300000 }

-- echo answers with the request's body, so that both directions are seen.
local echo = h.each(function(request) return h.http1.response("200 OK", request.body) end)

describe("bodies:", function()
  for _, mode in ipairs(MODES) do
    local name, conf, make = mode[1], mode[2], mode[3]
    for _, wait in ipairs { 0, 0.01 } do
      it(("%s%s%s, of both directions, in every framing"):format(name, conf.append and " with more" or "",
        wait > 0 and ", waiting" or ""), test(function()
        local function plugin()
          local out = { mode = name, wait = wait }
          for key, value in pairs(conf) do out[key] = value end
          return out
        end
        local up, up_backend = start({ request_body = plugin() }, { backend = h.backend(echo) })
        local down = start({ response_body = plugin() }, { backend = h.backend(echo) })
        local requests = 0
        for _, gateway in ipairs { up, down } do
          local client = gateway:connect()
          for i, len in ipairs(SIZES) do
            local body = h.http1.pattern(len, i)
            for _, is_chunked in ipairs { false, true } do
              if is_chunked then
                client:send(CHUNKED .. h.http1.chunked(body, 1 + math.floor(len / 3)))
              else
                client:send(("POST /x HTTP/1.1\r\nHost: h.example\r\nContent-Length: %d\r\n\r\n"):format(len) .. body)
              end
              local response = h.read_response(client, { ms = 10000 })
              assert.equal(200, response.status)
              assert.is_true(make(body) == response.body, ("%d bytes: got %d others"):format(len, #response.body))
              if gateway == up then
                requests = requests + 1
                assert.is_true(make(body) == up_backend.requests[requests].body)
              end
              -- A body that was cut was not read to its end: the connection is not used again.
              if response.headers.connection == "close" then
                client:close()
                client = gateway:connect()
              end
            end
            local old = gateway:connect()
            old:send(("POST /x HTTP/1.0\r\nHost: h.example\r\nContent-Length: %d\r\n\r\n"):format(len) .. body)
            local response = h.read_response(old)
            assert.is_true(make(body) == response.body, ("HTTP/1.0, %d bytes: got %d others"):format(len, #response.body))
            requests = requests + (gateway == up and 1 or 0)
            old:close()
          end
          client:close()
          gateway:expect_quiet()
        end
      end, 60000))
    end
  end

  it("two filters see each other's work, in order", test(function()
    local gateway = start({ { response_body = { mode = "pass", append = "+first" } },
      { response_body = { mode = "upper", append = "+second" } } })
    assert.equal("YOU ASKED FOR /\n+FIRST+second", gateway:get("/").body)
    finish(gateway, 0, 0)
  end))

  it("are not given to messages that have none", test(function()
    local gateway, backend = start({ request_body = { append = "x", wait = LONG }, response_body = { append = "x", wait = 0.05 } },
      { backend = h.backend(h.each(function(request)
        local status = request.target:match "%d+"
        return status and ("HTTP/1.1 %s Some\r\n\r\n"):format(status)
          or request.method == "HEAD" and "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" or h.http1.response("200 OK", "body")
      end)) })
    local client = gateway:connect()
    for _, target in ipairs { "GET /204", "GET /304", "HEAD /" } do
      client:send(target .. " HTTP/1.1\r\nHost: h.example\r\n\r\n")
      local response = h.read_response(client, { method = target:match "^%u+" })
      assert.equal("none", response.framing)
      assert.is_nil(response.headers["content-length"])
    end
    client:send(GET)
    assert.equal("bodyx", h.read_response(client).body)
    for _, request in ipairs(backend.requests) do
      assert.equal("none", request.framing)
      assert.equal("", request.body)
    end
    assert.equal(1, #backend.connections)
    client:close()
    finish(gateway, 1, 0)
  end))

  it("a response that a filter has cut is over, though the upstream never ends", test(function()
    local backend = on_request(function(connection)
      connection:send "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
      connection:wait_end(20000)
    end)
    local gateway = start({ response_body = { mode = "cut" } }, { backend = backend })
    local client = gateway:connect()
    client:send(GET)
    local response = h.read_response(client)
    assert.is_true(response.complete)
    assert.equal("", response.body)
    backend.connections[1]:wait_end()
    client:close()
    finish(gateway, 0, 0)
  end))

  it("a request that a filter has cut reaches a built-in when it is whole", test(function()
    local gateway = start({ request_body = { mode = "cut" } }, { serves = "echo", upstreams = { echo = { "builtin:echo" } } })
    local client = gateway:connect()
    client:send(CHUNKED .. "5\r\nhello\r\n")
    client:send "5\r\nworld\r\n0\r\n\r\n"
    assert.equal(200, h.read_response(client).status)
    client:close()
    finish(gateway, 0, 0)
  end))

  it("a built-in answers when the end has come through the filters", test(function()
    local gateway = start({ request_body = { wait = 0.1, at = "end" } }, { serves = "echo",
      upstreams = { echo = { "builtin:echo" } } })
    local client = gateway:connect()
    client:send(POST)
    assert.equal(200, h.read_response(client).status)
    client:close()
    finish(gateway, 1, 0)
  end))

  it("held beyond their bound: a request is a 500, a response is cut", test(function()
    local up, backend = start({ request_body = { mode = "hold", len = 1000 } })
    local client = up:connect()
    client:send("POST /x HTTP/1.1\r\nHost: h.example\r\nContent-Length: 2000\r\n\r\n" .. ("x"):rep(2000))
    assert.equal(500, h.read_response(client).status)
    client:close()
    finish(up, 0, 0)
    assert.is_not_true(backend.requests[1] and backend.requests[1].complete)
    local down = start({ response_body = { mode = "hold", len = 1000 } },
      { backend = h.backend(h.always(h.http1.response("200 OK", ("x"):rep(2000)))) })
    assert.is_false(down:get("/").complete)
    finish(down, 0, 0)
  end))

  for _, what in ipairs { "fail", "abort" } do
    it(("a %s inside the request body"):format(what), test(function()
      local gateway, backend = start({ request_body = { mode = "pieces", len = 100, [what .. "_after"] = 100000 } })
      local client = gateway:connect()
      client:send("POST /x HTTP/1.1\r\nHost: h.example\r\nContent-Length: 200000\r\n\r\n" .. ("x"):rep(200000))
      local response = h.read_response(client)
      if what == "fail" then assert.equal(500, response.status) else assert.is_nil(response) end
      client:close()
      finish(gateway, 0, 0)
      assert.is_not_true(backend.requests[1] and backend.requests[1].complete)
    end))

    it(("a %s inside the response body"):format(what), test(function()
      local gateway = start({ response_body = { mode = "pieces", len = 100, [what .. "_after"] = 100000 } },
        { backend = h.backend(h.always(h.http1.response("200 OK", ("x"):rep(200000)))) })
      local response = gateway:get "/"
      assert.equal(200, response.status)
      assert.is_false(response.complete)
      finish(gateway, 0, 0)
      assert.is_not_nil(gateway:log():find "logs 200 cut")
    end))
  end

  for _, mode in ipairs { "swallow", "late" } do
    it(("a filter that breaks its word (%s) breaks the message, not the gateway"):format(mode), test(function()
      local down = start({ response_body = { mode = mode } })
      for _ = 1, 2 do
        local response = down:get "/" -- behind an end nothing comes
        assert.equal(mode == "late", response.complete)
        assert.equal(mode == "late" and "" or "you asked for /\n", response.body)
      end
      finish(down, 0, 0)
      local up = start({ request_body = { mode = mode } })
      assert.equal(500, up:request(POST).status)
      finish(up, 0, 0)
    end))
  end
end)

describe("an upgrade with filters", function()
  local UPGRADE = "GET /chat HTTP/1.1\r\nHost: h.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

  local function tunnel(connection)
    connection:read_head()
    connection:send "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nwelcome"
    local bytes = connection:read(5)
    if bytes then connection:send(bytes:upper()) end
    connection:wait_end(20000)
  end

  it("runs header_filter for the 101, and log when the tunnel begins", test(function()
    local waits = { rewrite = { wait = 0.05 }, access = { wait = 0.05 }, request_body = { wait = LONG },
      header_filter = { wait = 0.1, set = { ["X-C"] = "1" } }, response_body = { wait = LONG }, log = { wait = 0.05 } }
    local gateway = start(waits, { backend = h.backend(tunnel) })
    local client = gateway:connect()
    client:send(UPGRADE)
    local response = h.read_response(client)
    assert.equal(101, response.status)
    assert.equal("1", response.headers["x-c"])
    assert.equal("websocket", response.headers.upgrade)
    assert.equal("welcome", client:read(7))
    client:send "hello"
    assert.equal("HELLO", client:read(5))
    wait_log(gateway, "goes on", "log")
    gateway:wait_metrics("a tunnel without arena", function(metrics)
      return metrics.moongate_tunnels_live == 1 and metrics.moongate_arenas_live == 0
    end)
    client:close()
    finish(gateway, 4, 0)
  end))

  for _, how in ipairs { "close", "reset" } do
    it(("ends when the client goes (%s) while header_filter waits"):format(how), test(function()
      local gateway, backend = start({ header_filter = { wait = LONG } }, { backend = h.backend(tunnel) })
      local client = gateway:connect()
      client:send(UPGRADE)
      wait_log(gateway, "waits", "header_filter")
      client[how](client)
      backend.connections[1]:wait_end()
      finish(gateway, 1, 1)
    end))
  end

  it("is refused by a failing header_filter", test(function()
    local gateway, backend = start({ header_filter = { verdict = "fail" } }, { backend = h.backend(tunnel) })
    local client = gateway:connect()
    client:send(UPGRADE)
    assert.equal(500, h.read_response(client).status)
    backend.connections[1]:wait_end()
    client:close()
    finish(gateway, 0, 0)
  end))

  it("that waits in a second signal's way stops", test(function()
    local gateway = start({ header_filter = { wait = LONG } }, { backend = h.backend(tunnel) })
    local client = gateway:connect()
    client:send(UPGRADE)
    wait_log(gateway, "waits", "header_filter")
    gateway:signal()
    gateway:wait_log " info draining"
    gateway:signal()
    gateway:wait_exit(1000)
    finish(gateway, 1, 1, true)
  end))
end)

describe("plugins in a route", function()
  it("are checked: names, keys and kinds", test(function()
    local function problems(plugins)
      local path, dir = h.write_file(h.config { upstreams = { backend = { "127.0.0.1:1" } },
        routes = { { path = "/", backends = "backend", plugins = plugins } } })
      local run = h.exec({ "check", path }, { is_test = true })
      os.remove(path)
      os.remove(dir)
      return run.code, run.stderr .. run.stdout
    end
    local code, text = problems { { "test", rewrite = { wait = 1 } }, "test-heads" }
    assert.equal(0, code, text)
    code, text = problems { { "tset" } }
    assert.is_true(code ~= 0)
    assert.is_not_nil(text:find('plugins[1]', 1, true), text)
    assert.is_not_nil(text:find('did you mean "test"?', 1, true), text)
    code, text = problems { "test", { "test", rewrite = { wiat = 1 } } }
    assert.is_true(code ~= 0)
    assert.is_not_nil(text:find("plugins[2].rewrite.wiat", 1, true), text)
    assert.is_not_nil(text:find('did you mean "wait"?', 1, true), text)
    code, text = problems { { "test", "stray", name = 1 } }
    assert.is_true(code ~= 0)
    assert.is_not_nil(text:find("plugins[1]", 1, true), text)
    code, text = problems { { "test", name = 1 } }
    assert.is_true(code ~= 0)
    assert.is_not_nil(text:find("plugins[1].name", 1, true), text)
    code, text = problems { name = "test" }
    assert.is_true(code ~= 0)
    assert.is_not_nil(text:find("plugins", 1, true), text)
  end))
end)
