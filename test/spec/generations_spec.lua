-- Generations: the Lua states of one state of the code. A reload of code makes a new one, which serves when every worker's has
-- started; exchanges end on the one they began with, within bounds; a reload of data keeps it, with all that it remembers.
local h = require "test.support.harness"

local function answers(text, extra)
  return (extra or "") .. ([[
    moongate.route { path = "/", access = function(exchange) exchange:respond(200, %q) end }]]):format(text)
end

-- Waits at the backend, where this many pass through; then lets them go.
local function gate()
  local world = { changed = h.loop.signal() }
  function world.let_go()
    world.is_free = true
    world.changed:fire()
  end
  world.backend = h.backend(function(connection)
    while connection:read_request() do
      h.loop.wait(world.changed, 60000, "let_go", function() return world.is_free end)
      connection:send(h.http1.response("200 OK", "from the backend"))
    end
  end)
  return world
end

local function one_state(gateway, count)
  gateway:wait_metrics("one Lua state a worker", function(metrics) return metrics.moongate_lua_states == (count or 1) end)
end

local function count(gateway, text)
  local n = 0
  for _, line in ipairs(gateway.lines) do n = n + (line:find(text) and 1 or 0) end
  return n
end

-- Waits for that many further lines.
local function more(gateway, text, n)
  local wanted = count(gateway, text) + n
  h.loop.wait(gateway.changed, 5000, n .. " more lines of " .. text, function() return count(gateway, text) >= wanted end)
end

-- /wait says at every phase which functions it runs on; /now which ones serve.
local function marked(mark, response_phases)
  local text = [[
    moongate.route { path = "/wait", backends = "backend",
      access = function(exchange) exchange.vars.mark = "MARK" end,
      PHASES
      log = function(exchange) moongate.log.info("log of MARK sees " .. exchange.vars.mark) end }
    moongate.route { path = "/now", access = function(exchange) exchange:respond(200, "MARK") end }]]
  return (text:gsub("MARK", mark):gsub("PHASES", response_phases or ""))
end

describe("a reload of code", function()
  it("serves with the new functions, the old exchanges end on the old ones #threads", h.test(function()
    local world = gate()
    local gateway = h.script(marked("one", [[header_filter = function(exchange)
      exchange.response.headers["x-old"] = exchange.vars.mark end,]]), { backend = world.backend, settings = { workers = 2 } })
    local old = gateway:connect()
    old:send "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n"
    world.backend:wait_requests(1)
    local kept = gateway:connect()
    kept:send "GET /now HTTP/1.1\r\nHost: h\r\n\r\n"
    assert.equal("one", h.read_response(kept).body)
    gateway:reload_script(marked "two")
    kept:send "GET /now HTTP/1.1\r\nHost: h\r\n\r\n"
    assert.equal("two", h.read_response(kept).body)
    assert.equal("two", gateway:get("/now").body)
    world.let_go()
    local response = h.read_response(old)
    assert.equal("from the backend", response.body)
    assert.equal("one", response.headers["x-old"])
    gateway:wait_log "log of one sees one"
    old:close()
    kept:close()
    gateway:expect_idle()
    one_state(gateway, 2)
  end))

  it("whose init_worker fails is refused, and the old one serves on with its timers", h.test(function()
    local gateway = h.script(answers("old", [[moongate.timer.every(0.02, function() moongate.log.info "old tick" end)]]),
      { settings = { workers = 2 } })
    for _, body in ipairs { 'error "not today"', 'moongate.sleep(0.05) error "not today"',
      'if math.random() < 2 then error "not today" end' } do
      gateway:rewrite(h.script_config(answers("new", ("moongate.init_worker(function() %s end)"):format(body)),
        { backend = gateway.backend, settings = { workers = 2 } }))
      gateway:expect_log "."
      local answer = gateway:ask "reload"
      assert.equal(1, answer.code)
      assert.is_not_nil(answer.stderr:find "start of a worker failed", answer.stderr)
      assert.equal("old", gateway:get("/").body)
    end
    gateway:wait_log "init_worker failed: [^\n]*gateway.lua:%d+: not today"
    more(gateway, "old tick", 3)
    gateway:expect_idle()
    one_state(gateway, 2)
    gateway:reload_script(answers "new")
    assert.equal("new", gateway:get("/").body)
  end))

  it("whose init_worker takes more than 10 s is refused", h.test(function()
    local gateway = h.script(answers "old")
    gateway:rewrite(h.script_config(answers("new", [[moongate.init_worker(function()
      moongate.log.info "init begins"
      while true do pcall(moongate.sleep, 1) end end)]]), { backend = gateway.backend }))
    gateway:expect_log "."
    gateway:signal "sighup"
    gateway:wait_log "init begins"
    assert.equal("old", gateway:get("/").body)
    gateway:wait_log("init_worker has not come to its end in 10 s", 15000)
    gateway:wait_log "refused"
    assert.equal("old", gateway:get("/").body)
    gateway:expect_idle()
    gateway:reload_script(answers "new")
    assert.equal("new", gateway:get("/").body)
  end, 40000))

  it("stops the timers of the old generation and starts those of the new", h.test(function()
    local script = [[moongate.timer.every(0.01, function() moongate.log.info "tick %s" end)
      moongate.timer.every(0.01, function() moongate.log.info "control %s" end, { on = "control" })]]
    local gateway = h.script(script:format("a", "a"))
    gateway:wait_log "tick a"
    gateway:wait_log "control a"
    for _, mark in ipairs { "b", "c", "d" } do
      gateway:reload_script(script:format(mark, mark))
      gateway:wait_log("tick " .. mark)
      gateway:wait_log("control " .. mark)
    end
    local before = count(gateway, " tick [abc]$") + count(gateway, " control [abc]$")
    more(gateway, "tick d", 5)
    more(gateway, "control d", 5)
    assert.equal(before, count(gateway, " tick [abc]$") + count(gateway, " control [abc]$"))
    one_state(gateway)
  end))

  it("to a script without functions ends the generation, and back", h.test(function()
    local gateway = h.script(answers "one")
    gateway:reload_script [[moongate.route { path = "/", backends = "backend" }]]
    assert.equal("you asked for /\n", gateway:get("/").body)
    one_state(gateway, 0)
    gateway:reload_script(answers "two")
    assert.equal("two", gateway:get("/").body)
    one_state(gateway)
  end))
end)

describe("old generations", function()
  it("are at most three beside the one that serves: the oldest closes under what still waits in it", h.test(function()
    local gateway = h.script [[
      moongate.route { path = "/wait", backends = "backend", access = function()
        moongate.log.info "waits"
        moongate.sleep(60)
        moongate.log.info "never" end }
      moongate.route { path = "/body", backends = "backend", body_filter = function(exchange)
        exchange.response:write "begun"
        moongate.sleep(60) end }]]
    local waiting, body = gateway:connect(), gateway:connect()
    waiting:send "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n"
    body:send "GET /body HTTP/1.1\r\nHost: h\r\n\r\n"
    gateway:wait_log "waits"
    body:read_until "begun"
    for i = 1, 3 do gateway:reload_script(answers("number " .. i)) end
    one_state(gateway, 2) -- those that nobody waits in go
    local others = {}
    for i = 4, 7 do
      gateway:reload_script(([[
        moongate.route { path = "/", access = function(exchange) exchange:respond(200, "number %d") end }
        moongate.route { path = "/wait", backends = "backend", access = function() moongate.log.info "waits %d" moongate.sleep(60) end }]])
        :format(i, i))
      others[i] = gateway:connect()
      others[i]:send "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n"
      gateway:wait_log("waits " .. i)
      assert.is_true(gateway:metrics().moongate_lua_states <= 4)
    end
    gateway:expect_log "generation of the script has ended"
    assert.equal(500, h.read_response(waiting).status)
    body:wait_end()
    assert.is_false(others[5]:has_ended())
    assert.is_nil(gateway:log():find "never")
    assert.equal("number 7", gateway:get("/").body)
    waiting:close()
    body:close()
    for _, client in pairs(others) do client:close() end
    gateway:expect_idle()
    one_state(gateway)
  end, 40000))

  it("that closed: exchanges that need none of their functions any more go on", h.test(function()
    local world = gate()
    local gateway = h.script(marked "zero", { backend = world.backend })
    local client = gateway:connect()
    client:send "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n"
    world.backend:wait_requests(1)
    for i = 1, 5 do -- each is kept by an exchange of its own
      gateway:reload_script(marked("number " .. i))
      local other = gateway:connect()
      other:send "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n"
      world.backend:wait_requests(i + 1)
    end
    assert.is_true(gateway:metrics().moongate_lua_states <= 4)
    gateway:expect_log "generation of the script has ended"
    world.let_go()
    local response = h.read_response(client)
    assert.equal("from the backend", response.body)
    gateway:wait_log '"/wait" of request %x+ cannot run: this generation of the script has ended' -- its log
    assert.is_nil(gateway:log():find "log of zero")
    gateway:wait_log "log of number 5"
  end))

  it("that closed: a phase that judges or changes an exchange is never left out", h.test(function()
    local world = gate()
    local gateway = h.script(marked("zero", [[header_filter = function(exchange)
      exchange.response.headers["x-internal"] = nil end,]]), { backend = world.backend })
    local client, upload = gateway:connect(), gateway:connect()
    client:send "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n"
    world.backend:wait_requests(1)
    for i = 1, 5 do
      gateway:reload_script(marked("number " .. i))
      local other = gateway:connect()
      other:send "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n"
      world.backend:wait_requests(i + 1)
    end
    gateway:expect_log "generation of the script has ended"
    world.let_go()
    assert.equal(500, h.read_response(client).status)
    client:close()
    upload:close()
  end))

  it("survive a stop while exchanges stand on four of them", h.test(function()
    local script = [[moongate.route { path = "/", backends = "backend", access = function()
      moongate.log.info "waits %d" moongate.sleep(60) end }]]
    local gateway = h.script(script:format(0), { settings = { timeouts = { drain = 0.2 } } })
    for i = 0, 3 do
      if i > 0 then gateway:reload_script(script:format(i)) end
      gateway:connect():send "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
      gateway:wait_log("waits " .. i)
    end
    assert.equal(4, gateway:metrics().moongate_lua_states)
  end))
end)

describe("a reload of data", function()
  local SCRIPT = [[
    local count = 0
    moongate.route { path = "/count", access = function(exchange) count = count + 1 exchange:respond(200, tostring(count)) end }]]

  it("keeps the generation, with its upvalues", h.test(function()
    local gateway = h.script(SCRIPT)
    for i = 1, 6 do
      assert.equal(tostring(i), gateway:get("/count").body)
      gateway:reload_script(SCRIPT)
    end
    one_state(gateway)
  end))

  it("but a changed line is code", h.test(function()
    local gateway = h.script(SCRIPT)
    assert.equal("1", gateway:get("/count").body)
    gateway:reload_script(SCRIPT .. "\n-- changed")
    assert.equal("1", gateway:get("/count").body)
  end))

  it("and so is a changed file that it reads", h.test(function()
    local path = h.write_file("a", "data.txt")
    local script = ("local text = io.open(%q):read '*a'\n"):format(path) .. [[
      moongate.route { path = "/", access = function(exchange) exchange:respond(200, text) end }]]
    local gateway = h.script(script)
    assert.equal("a", gateway:get("/").body)
    local file = assert(io.open(path, "w"))
    file:write "b"
    file:close()
    gateway:reload_script(script)
    assert.equal("b", gateway:get("/").body)
  end))

  it("keeps timers running", h.test(function()
    local script = [[local count = 0
      moongate.timer.every(0.01, function() count = count + 1 moongate.log.info("tick " .. count .. ".") end)]]
    local gateway = h.script(script)
    gateway:wait_log "tick 3%."
    gateway:reload_script(script)
    gateway:wait_log "tick 8%."
    assert.equal(1, count(gateway, "tick 1%."))
  end))
end)

describe("many reloads", function()
  it("of code, with exchanges in every phase under way, lose none #threads", h.test(function()
    local script = [[
      moongate.timer.every(0.005, function() moongate.sleep(0.001) end)
      moongate.init_worker(function() moongate.sleep(0.001) end)
      moongate.route { path = "/", backends = "backend",
        rewrite = function() moongate.sleep(0.002) end,
        access = function(exchange) moongate.spawn(function() moongate.sleep(1) end) exchange.request:body() end,
        header_filter = function(exchange) moongate.sleep(0.002) exchange.response.headers["x-mark"] = "%d" end,
        body_filter = function(exchange)
          for piece in exchange.response:chunks() do moongate.sleep(0.002) exchange.response:write(piece) end
        end,
        log = function() moongate.sleep(0.002) end }]]
    local gateway = h.script(script:format(0), { settings = { workers = 2 } })
    local is_over, done = false, 0
    local tasks = {}
    for i = 1, 8 do
      tasks[i] = h.task(function()
        local client = gateway:connect()
        while not is_over do
          client:send "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"
          local response = h.read_response(client, { ms = 20000 })
          assert.equal("you asked for /x\n", response.body)
          done = done + 1
        end
        client:close()
      end)
    end
    for i = 1, h.loop.scale > 1 and 10 or 40 do gateway:reload_script(script:format(i)) end
    is_over = true
    for _, task in ipairs(tasks) do
      h.loop.wait(task.ended, 10000, "the clients", function() return task.done end)
    end
    assert.is_true(done > 50)
    gateway:expect_quiet()
    one_state(gateway, 2)
  end, 60000))

  -- Whatever happens to an exchange, at whatever moment: nothing is left of it, and the gateway stays.
  it("of code, while clients and upstreams go at any moment #threads", h.test(function()
    local script = [[
      moongate.init_worker(function() moongate.sleep(0.001) end)
      local function nap() moongate.sleep(math.random() / 50) end
      moongate.timer.every(0.003, nap)
      moongate.route { path = "/", backends = "backend", retry = { attempts = 1, on = { "connect", "reset" } },
        rewrite = function(exchange)
          moongate.spawn(nap)
          nap()
          if exchange.request.path == "/pieces" then
            local pieces = {}
            for piece in exchange.request:chunks() do nap() pieces[#pieces + 1] = piece end
            exchange.request:set_body(table.concat(pieces))
          end
        end,
        access = function(exchange)
          if exchange.request.path == "/whole" then exchange.request:body() end
          moongate.wait_any(moongate.spawn(nap), moongate.spawn(nap))
          if exchange.request.path == "/answer" then exchange:respond(200, ("%d"):rep(5000)) end
          if exchange.request.path == "/error" then error "on purpose" end
        end,
        header_filter = function(exchange) nap() exchange.response.headers["x-mark"] = "%d" end,
        body_filter = function(exchange)
          for piece in exchange.response:chunks() do nap() exchange.response:write(piece) end
        end,
        log = function(exchange) nap() end }]]
    local body = h.http1.pattern(100000)
    local backend = h.backend(function(connection, index)
      while true do
        local request = connection:read_request()
        if not request then return end
        if index % 5 == 0 then return connection:reset() end
        local answer = h.http1.response("200 OK", body)
        connection:send(answer:sub(1, 50000))
        h.loop.pass(2)
        if index % 7 == 0 then return connection:reset() end
        connection:send(answer:sub(50001))
      end
    end)
    local gateway = h.script(script:format(0, 0), { backend = backend, settings = { workers = 2 } })
    gateway:expect_log "."
    local PATHS = { "/pieces", "/whole", "/answer", "/error", "/plain" }
    local is_over, sent, tasks = false, 0, {}
    for i = 1, 24 do
      tasks[i] = h.task(function()
        local state = i
        while not is_over do
          state = (state * 16807) % 2147483647
          local client = gateway:connect()
          local path = PATHS[state % #PATHS + 1]
          client:send(("POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: 20000\r\n\r\n%s"):format(path, body:sub(1, 10000)))
          if state % 3 > 0 then
            h.loop.pass(state % 17)
            client:send(body:sub(10001, 20000))
          end
          client:has_more(state % 60, 1)
          if state % 2 == 0 then client:reset() else client:close() end
          sent = sent + 1
        end
      end)
    end
    for i = 1, h.loop.scale > 1 and 25 or 60 do gateway:reload_script(script:format(i % 10, i)) end
    is_over = true
    for _, task in ipairs(tasks) do
      h.loop.wait(task.ended, 10000, "the clients", function() return task.done end)
    end
    assert.is_true(sent > 100)
    gateway:expect_quiet(20000)
    one_state(gateway, 2)
  end, 90000))

  it("keep no memory of what they replaced", h.test(function()
    if h.loop.scale > 1 then return pending "a sanitizer's allocator keeps what is freed" end
    local script = [[
      local ballast = {}
      for i = 1, 20000 do ballast[i] = { "text " .. i } end
      moongate.route { path = "/", access = function(exchange) exchange:respond(200, tostring(#ballast) .. "%s") end }]]
    local gateway = h.script(script:format "x")
    local function rounds(n, is_code)
      for i = 1, n do
        gateway:reload_script(script:format(is_code and i or "x"))
        gateway:get "/"
      end
      h.loop.pass(700) -- old ones go within a look, snapshots within a sweep
      return gateway:rss_kb()
    end
    rounds(20, true)
    rounds(20, false)
    local before = rounds(5, true)
    local code, data = rounds(60, true), rounds(100, false)
    assert.is_true(code < 1.25 * before and data < 1.25 * before,
      ("%d KiB became %d KiB by code, %d KiB by data"):format(before, code, data))
  end, 60000))
end)
