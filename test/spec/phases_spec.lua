-- Functions of a script that wait, in every phase, while the client goes, the upstream goes, a reload or a drain comes. Whatever
-- happens: each wait ends once, nothing is left alive, and log waits on when the connection is gone.
local h = require "test.support.harness"

local HEADS = { "rewrite", "access", "header_filter", "log" }
local HOOKS = { "rewrite", "access", "header_filter", "body_filter", "log" }
local GET = "GET /x HTTP/1.1\r\nHost: h.example\r\n\r\n"
local LONG = 60

-- A script with one route that waits in this phase, and says so.
local function waits_in(hook, seconds, marker)
  local wait = ([[moongate.log.info "%s begins" moongate.sleep(%g) moongate.log.info "%s goes on"]]):format(
    hook, seconds, marker or hook)
  if hook == "body_filter" then
    wait = ([[for piece in exchange.response:chunks() do %s exchange.response:write(piece) end]]):format(wait)
  end
  return ([[moongate.route { name = "r", path = "/", backends = "backend", %s = function(exchange) %s end }]]):format(
    hook, wait)
end

local function begins(gateway, hook)
  gateway:wait_log(hook .. " begins")
end

local function goes_on(gateway, hook)
  gateway:wait_log(hook .. " goes on")
end

local function has_gone_on(gateway, hook)
  return gateway:log():find(hook .. " goes on", 1, true) ~= nil
end

-- A backend that sends a head and half of the body, and the rest, or a reset, when it is told.
local function halves(ending)
  local world = { changed = h.loop.signal() }
  function world.let_go()
    world.is_free = true
    world.changed:fire()
  end
  world.backend = h.backend(function(connection)
    while connection:read_request() do
      connection:send "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf"
      h.loop.wait(world.changed, 20000, "let_go", function() return world.is_free end)
      if ending == "reset" then return connection:reset() end
      connection:send "rest"
    end
  end)
  return world
end

describe("a function that waits in", function()
  for _, hook in ipairs(HOOKS) do
    it(hook .. " goes on", h.test(function()
      local gateway = h.script(waits_in(hook, 0.05))
      local client = gateway:connect()
      for i = 1, 3 do
        client:send(GET)
        local response = h.read_response(client)
        assert.equal(200, response.status)
        assert.equal("you asked for /x\n", response.body, i)
      end
      goes_on(gateway, hook)
      client:close()
      gateway:expect_idle()
    end))

    for _, how in ipairs { "close", "reset" } do
      if hook ~= "log" then
        it(("%s ends with the client (%s)"):format(hook, how), h.test(function()
          local gateway = h.script(waits_in(hook, LONG))
          for _ = 1, 3 do
            local client = gateway:connect()
            client:send(GET)
            begins(gateway, hook)
            client[how](client)
          end
          gateway:expect_idle()
          assert.is_false(has_gone_on(gateway, hook))
        end))
      end
    end

    it(hook .. " survives a reload of data", h.test(function()
      local script = waits_in(hook, 0.5)
      local gateway = h.script(script)
      local client = gateway:connect()
      client:send(GET)
      begins(gateway, hook)
      gateway:reload_script(script)
      gateway:reload_script(script)
      assert.equal(200, h.read_response(client).status)
      goes_on(gateway, hook)
      client:close()
      gateway:expect_idle()
      assert.equal(1, gateway:metrics().moongate_lua_states)
    end))

    it(hook .. " survives a reload of code, on the functions it began with", h.test(function()
      local gateway = h.script(waits_in(hook, 0.5, "old"))
      local client = gateway:connect()
      client:send(GET)
      begins(gateway, hook)
      gateway:reload_script(waits_in(hook, 0, "new"))
      assert.equal(200, h.read_response(client).status)
      goes_on(gateway, "old")
      client:send(GET)
      assert.equal(200, h.read_response(client).status)
      goes_on(gateway, "new")
      client:close()
      gateway:expect_idle()
      gateway:wait_metrics("one Lua state", function(metrics) return metrics.moongate_lua_states == 1 end)
    end))

    it(hook .. " comes to its end in a drain", h.test(function()
      local gateway = h.script(waits_in(hook, 0.3))
      local client = gateway:connect()
      client:send(GET)
      begins(gateway, hook)
      gateway:signal "sigterm"
      assert.equal(200, h.read_response(client).status)
      client:close()
      gateway:wait_exit()
      assert.is_true(has_gone_on(gateway, hook))
    end))

    it(hook .. " does not hold a drain up", h.test(function()
      local gateway = h.script(waits_in(hook, LONG), { settings = { timeouts = { drain = 0.3 } } })
      local client = gateway:connect()
      client:send(GET)
      begins(gateway, hook)
      gateway:signal "sigterm"
      gateway:wait_exit()
      assert.is_false(has_gone_on(gateway, hook))
    end))
  end

  it("every phase at once does not outlive a second signal", h.test(function()
    local text = {}
    for _, hook in ipairs(HOOKS) do
      text[#text + 1] = waits_in(hook, LONG):gsub('name = "r", path = "/"', ('name = %q, path = "/%s"'):format(hook, hook))
    end
    text[#text + 1] = "moongate.timer.after(0, function() moongate.sleep(60) end)"
    local gateway = h.script(table.concat(text, "\n"))
    for _, hook in ipairs(HOOKS) do
      gateway:connect():send((GET:gsub("/x", "/" .. hook)))
      begins(gateway, hook)
    end
    gateway:signal "sigterm"
    gateway:wait_draining()
    gateway:signal "sigterm"
    h.takes(nil, 2000, function() gateway:wait_exit() end)
  end))

  it("log waits on when the connection is gone", h.test(function()
    local gateway = h.script(waits_in("log", 0.3))
    local client = gateway:connect()
    client:send(GET)
    begins(gateway, "log")
    client:reset()
    gateway:wait_metrics("no connection, one exchange", function(metrics)
      return metrics.moongate_connections_live == 0 and metrics.moongate_exchanges_live == 1
    end)
    goes_on(gateway, "log")
    gateway:expect_idle()
  end))

  it("log runs for a client that went in the middle, and knows it", h.test(function()
    local world = halves()
    local gateway = h.script([[
      moongate.route { path = "/", backends = "backend", log = function(exchange)
        moongate.sleep(0.05)
        moongate.log.info(("saw %d %d"):format(exchange.response.status, exchange.response.body_len or -1))
      end }]], { backend = world.backend })
    local client = gateway:connect()
    client:send(GET)
    client:read_until "half"
    client:reset()
    gateway:wait_log "saw 200"
    gateway:expect_idle()
  end))

  for _, hook in ipairs { "header_filter", "body_filter" } do
    for _, ending in ipairs { "rest", "reset" } do
      it(("%s while the upstream ends (%s)"):format(hook, ending), h.test(function()
        local world = halves(ending)
        local gateway = h.script(waits_in(hook, 0.3), { backend = world.backend })
        local client = gateway:connect()
        client:send(GET)
        begins(gateway, hook)
        world.let_go()
        local response = h.read_response(client)
        if ending == "rest" then
          assert.equal("halfrest", response.body)
        else
          assert.is_true(response.status == 502 or not response.complete, response.raw)
        end
        client:close()
        gateway:expect_idle()
      end))
    end
  end

  it("body_filter, between pieces, when the client goes", h.test(function()
    local world = halves()
    local gateway = h.script([[
      moongate.route { path = "/", backends = "backend", body_filter = function(exchange)
        for piece in exchange.response:chunks() do exchange.response:write(piece) end
      end }]], { backend = world.backend })
    local client = gateway:connect()
    client:send(GET)
    client:read_until "half"
    assert.equal(1, gateway:metrics().moongate_coroutines_live)
    client:reset()
    gateway:expect_idle()
  end))

  it("body_filter, between pieces, when the upstream resets", h.test(function()
    local world = halves "reset"
    local gateway = h.script([[
      moongate.route { path = "/", backends = "backend", body_filter = function(exchange)
        for piece in exchange.response:chunks() do exchange.response:write(piece) end
      end }]], { backend = world.backend })
    local client = gateway:connect()
    client:send(GET)
    client:read_until "half"
    world.let_go()
    client:wait_end()
    gateway:expect_idle()
  end))

  for _, hook in ipairs { "rewrite", "access", "header_filter", "body_filter" } do
    it(hook .. " ends with the request's deadline", h.test(function()
      local gateway = h.script((waits_in(hook, LONG):gsub("name =", "timeouts = { request = 0.2 }, name =")))
      local client = gateway:connect()
      client:send(GET)
      local response = h.read_response(client)
      if hook == "body_filter" then
        assert.is_true(response == nil or not response.complete)
      else
        assert.equal(504, response.status)
      end
      client:close()
      gateway:expect_idle()
      assert.is_false(has_gone_on(gateway, hook))
    end))
  end

  it("header_filter of the answer that the deadline makes ends with another", h.test(function()
    local gateway = h.script [[
      moongate.route { path = "/", backends = "backend", timeouts = { request = 0.2 },
        access = function() moongate.sleep(60) end, header_filter = function() moongate.sleep(60) end }]]
    local client = gateway:connect()
    client:send(GET)
    assert.equal(504, h.read_response(client).status)
    client:close()
    gateway:expect_idle()
  end))

  it("access holds back what is pipelined behind it", h.test(function()
    local gateway = h.script(waits_in("access", 0.1))
    local client = gateway:connect()
    client:send(GET:rep(3))
    for _ = 1, 3 do assert.equal("you asked for /x\n", h.read_response(client).body) end
    client:close()
    gateway:expect_idle()
  end))

  it("many at once, and half of the clients go", h.test(function()
    local text = {}
    for _, hook in ipairs(HEADS) do
      text[#text + 1] = ("%s = function() moongate.sleep(math.random() / 10) end"):format(hook)
    end
    local gateway = h.script(([[moongate.route { path = "/", backends = "backend", %s,
      body_filter = function(exchange)
        for piece in exchange.response:chunks() do
          moongate.sleep(0.01)
          exchange.response:write(piece)
        end
      end }]]):format(table.concat(text, ", ")))
    local clients = {}
    for i = 1, 60 do
      clients[i] = gateway:connect()
      clients[i]:send(GET)
    end
    for i = 1, 60, 2 do
      h.loop.pass(3)
      clients[i]:reset()
    end
    for i = 2, 60, 2 do assert.equal("you asked for /x\n", h.read_response(clients[i]).body) end
    for i = 2, 60, 2 do clients[i]:close() end
    gateway:expect_idle()
  end))
end)

describe("init_worker", function()
  it("waits before the first connection is taken", h.test(function()
    local gateway = h.script([[
      local ready
      moongate.init_worker(function() moongate.sleep(0.2) ready = "set by init_worker" end)
      moongate.route { path = "/", access = function(exchange) exchange:respond(200, ready or "too early") end }]])
    assert.equal("set by init_worker", gateway:get("/").body)
    gateway:expect_idle()
  end))

  it("that fails ends the start", h.test(function()
    local path, dir = h.write_file(h.script_config([[moongate.init_worker(function() moongate.sleep(0.01) error "no luck" end)]], {}))
    local result = h.exec { "run", path, "--control", dir .. "/control" }
    assert.is_true(result.code ~= 0)
    assert.is_not_nil(result.stderr:find("gateway.lua:%d+: no luck"), result.stderr)
  end))

  it("is dropped by a drain", h.test(function()
    local path, dir = h.write_file(h.script_config([[
      moongate.init_worker(function() moongate.log.info "init begins" moongate.sleep(60) end)]], {}))
    local program = h.spawn(os.getenv "MOONGATE_BIN", { args = { "run", path, "--control", dir .. "/control" } })
    program:wait_output "init begins"
    program:signal "sigterm"
    assert.equal(0, program:wait_exit())
  end))

  it("of a reload is dropped by a drain", h.test(function()
    local gateway = h.script [[moongate.route { path = "/", backends = "backend" }]]
    gateway:rewrite(h.script_config([[moongate.init_worker(function()
      moongate.log.info "init begins" moongate.sleep(60) end)]], { backend = gateway.backend }))
    gateway:signal "sighup"
    gateway:wait_log "init begins"
    gateway:expect_log "refused"
    gateway:expect_log "start of a worker"
    gateway:signal "sigterm"
    gateway:wait_exit()
  end))

  it("runs in every worker #threads", h.test(function()
    local gateway = h.script([[
      moongate.init_worker(function() moongate.sleep(0.01) moongate.log.info "one more worker" end)]],
      { settings = { workers = 3 } })
    local count = 0
    for _ in gateway:log():gmatch "one more worker" do count = count + 1 end
    assert.equal(3, count)
    gateway:expect_idle()
  end))
end)

describe("a timer", function()
  it("waits, fails, and runs again", h.test(function()
    local gateway = h.script [[
      local count = 0
      moongate.timer.every(0.01, function()
        count = count + 1
        moongate.sleep(0.01)
        moongate.log.info("run " .. count)
        if count == 2 then error "the second one fails" end
      end)
      moongate.timer.after(0.02, function() moongate.log.info "once" end)]]
    gateway:expect_log "the second one fails"
    gateway:wait_log "run 4"
    assert.is_not_nil(gateway:log():find "timer failed: [^\n]*gateway.lua:%d+: the second one fails")
    local _, count = gateway:log():gsub("info once", "")
    assert.equal(1, count)
  end))

  it("begins when init_worker is done", h.test(function()
    local gateway = h.script [[
      local is_ready = false
      moongate.init_worker(function() moongate.sleep(0.2) is_ready = true end)
      moongate.timer.after(0, function() moongate.log.info("ready: " .. tostring(is_ready)) end)]]
    gateway:wait_log "ready: true"
    assert.is_nil(gateway:log():find "ready: false")
  end))

  it("that waits is dropped by a drain and by a reload", h.test(function()
    local script = [[moongate.timer.after(0, function() moongate.log.info "timer begins %s" moongate.sleep(60) end)]]
    local gateway = h.script(script:format "a")
    gateway:wait_log "timer begins a"
    assert.equal(1, gateway:metrics().moongate_coroutines_live)
    gateway:reload_script(script:format "b")
    gateway:wait_log "timer begins b"
    gateway:wait_metrics("one coroutine in one state", function(metrics)
      return metrics.moongate_coroutines_live == 1 and metrics.moongate_lua_states == 1
    end)
    gateway:signal "sigterm"
    gateway:wait_exit()
  end))

  it("of control runs once, whatever the number of workers #threads", h.test(function()
    local gateway = h.script([[
      moongate.timer.after(0, function() moongate.sleep(0.01) moongate.log.info "on control" end, { on = "control" })
      moongate.timer.after(0, function() moongate.sleep(0.01) moongate.log.info "on a worker" end)]],
      { settings = { workers = 3 } })
    gateway:wait_log "on control"
    gateway:wait_log "on a worker.*on a worker.*on a worker"
    h.loop.pass(50)
    local _, count = gateway:log():gsub("on control", "")
    assert.equal(1, count)
  end))

  it("of control that a request starts is refused", h.test(function()
    local gateway = h.script [[
      moongate.route { path = "/", access = function(exchange)
        local _, err = pcall(moongate.timer.after, 1, function() end, { on = "control" })
        exchange:respond(200, tostring(err))
      end }]]
    assert.is_not_nil(gateway:get("/").body:find("top of the script", 1, true))
  end))

  it("that a request starts outlives it, and stops with the generation", h.test(function()
    local script = [[
      moongate.route { path = "/", access = function(exchange)
        moongate.timer.every(0.02, function() moongate.log.info "tick %s" end)
        exchange:respond(200, exchange.id)
      end }]]
    local gateway = h.script(script:format "a")
    gateway:get "/"
    gateway:wait_log "tick a.*tick a"
    gateway:reload_script(script:format "b")
    local _, before = gateway:log():gsub("tick a", "")
    gateway:get "/"
    gateway:wait_log "tick b.*tick b"
    local _, after = gateway:log():gsub("tick a", "")
    assert.is_true(after <= before + 1)
  end))
end)

describe("waiting where it cannot work", function()
  -- A yield across a C call is an error; the wait that had begun must not wake a later one.
  it("does not wake what waits later", h.test(function()
    local gateway = h.script [[
      moongate.route { path = "/", access = function(exchange)
        local ok, err = pcall(table.sort, { 3, 2, 1 }, function() moongate.sleep(0.05) end)
        local start = moongate.now()
        local task = moongate.spawn(function() moongate.sleep(0.4) return "done" end)
        local value = moongate.wait_all(task)
        exchange:respond(200, { ok = ok, err = err, value = value, took = moongate.now() - start })
      end }]]
    local body = require "cjson".decode(gateway:get("/").body)
    assert.is_false(body.ok)
    assert.is_not_nil(body.err:find "yield across")
    assert.equal("done", body.value)
    assert.is_true(body.took >= 0.39, body.took)
    gateway:expect_idle()
  end))

  it("nor in the next request, when the function has returned", h.test(function()
    local gateway = h.script [[
      moongate.route { path = "/leave", access = function(exchange)
        pcall(table.sort, { 3, 2, 1 }, function() moongate.sleep(0.1) end)
        exchange:respond(200, "left")
      end }
      moongate.route { path = "/wait", access = function(exchange)
        local start = moongate.now()
        moongate.wait_all(moongate.spawn(function() moongate.sleep(0.4) end))
        exchange:respond(200, ("%.3f"):format(moongate.now() - start))
      end }]]
    gateway:get "/leave"
    assert.is_true(tonumber(gateway:get("/wait").body) >= 0.39)
  end))

  it("a yield of the script's own is an error that says what to do", h.test(function()
    local gateway = h.script [[
      moongate.route { path = "/", backends = "backend", access = function() coroutine.yield "x" end }]]
    gateway:expect_log "moongate.sleep"
    assert.equal(500, gateway:get("/").status)
    gateway:expect_idle()
  end))

  it("sleeps in coroutines of the script's own, and in iterators", h.test(function()
    local gateway = h.script [[
      moongate.route { path = "/", access = function(exchange)
        local out = {}
        local inner = coroutine.wrap(function()
          for i = 1, 3 do
            moongate.sleep(0.01)
            coroutine.yield(i)
          end
        end)
        for i in inner do
          moongate.sleep(0.01)
          out[#out + 1] = i
        end
        local ok, err = coroutine.resume(coroutine.create(function()
          moongate.sleep(0.01)
          error { code = 7 }
        end))
        exchange:respond(200, table.concat(out, ",") .. tostring(ok) .. err.code)
      end }]]
    assert.equal("1,2,3false7", gateway:get("/").body)
    gateway:expect_idle()
  end))
end)
