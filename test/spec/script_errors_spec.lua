-- Functions of scripts that fail: the client gets 500 with the request's id, the log has the phase, file:line and a traceback, and
-- so has /errors of the control surface; a response that has begun is broken off.
local h = require "test.support.harness"

local HEADS = { "rewrite", "access", "header_filter" }

local function route(hook, body)
  return ([[
    local function fails(exchange)
      %s
    end
    local function outer(exchange) fails(exchange) return 1 end
    moongate.route { path = "/", backends = "backend", %s = function(exchange) outer(exchange) return 1 end }]]):format(
    body, hook)
end

-- The record of the failure, in the log and in /errors.
local function check_record(gateway, hook, id, pattern)
  local line
  for _, one in ipairs(gateway.lines) do
    if one:find("script: " .. hook, 1, true) then line = one end
  end
  assert.is_not_nil(line, gateway:log())
  if id then assert.is_not_nil(line:find(id, 1, true), line) end
  assert.is_not_nil(line:find(pattern), line)
  local found = false
  for _, record in ipairs(gateway:ask_json "/errors") do
    found = found or (record.level == "error" and record.message:find("script: " .. hook, 1, true)
      and record.message:find(pattern) ~= nil)
  end
  assert.is_true(found)
end

local function id_in(response)
  return response.body:match "request id (%x+)"
end

describe("an error in", function()
  for _, hook in ipairs(HEADS) do
    for what, body in pairs {
      ["at once"] = 'error "broken"',
      ["after a wait"] = 'moongate.sleep(0.01) error "broken"',
      ["in a coroutine of its own"] = 'coroutine.wrap(function() moongate.sleep(0.01) error "broken" end)()',
    } do
      it(hook .. ", " .. what, h.test(function()
        local gateway = h.script(route(hook, body))
        gateway:expect_log "broken"
        for _ = 1, 2 do
          local response = gateway:get "/"
          assert.equal(500, response.status)
          local id = id_in(response)
          assert.is_not_nil(id, response.body)
          check_record(gateway, hook, id, "gateway.lua:%d+: broken.*gateway.lua:%d+: in function")
        end
        gateway:expect_idle()
      end))
    end
  end

  it("access that calls a method with a dot is told so", h.test(function()
    local gateway = h.script(route("access", 'exchange.respond(200, "hello")'))
    gateway:expect_log "called with a colon"
    local response = gateway:get "/"
    assert.equal(500, response.status)
    check_record(gateway, "access", id_in(response), "gateway.lua:%d+: respond is called with a colon: exchange:respond")
  end))

  it("access that waits for a list of tasks is told to unpack it", h.test(function()
    local gateway = h.script(route("access", "moongate.wait_all { moongate.spawn(function() end) }"))
    gateway:expect_log "unpack"
    local response = gateway:get "/"
    assert.equal(500, response.status)
    check_record(gateway, "access", id_in(response), "gateway.lua:%d+: .*wait_all takes .* argument 1 is a list of them: unpack it")
  end))

  it("body_filter breaks the response off", h.test(function()
    for _, body in ipairs { 'error "broken"', 'exchange.response:write "part" error "broken"',
      'for piece in exchange.response:chunks() do exchange.response:write(piece) moongate.sleep(0.01) error "broken" end' } do
      local gateway = h.script(route("body_filter", body))
      gateway:expect_log "broken"
      local client = gateway:connect()
      client:send "GET / HTTP/1.1\r\nHost: h.example\r\n\r\n"
      local response = h.read_response(client)
      assert.is_true(response == nil or not response.complete or response.status == 500)
      check_record(gateway, "body_filter", nil, "gateway.lua:%d+: broken.*gateway.lua:%d+: in function")
      client:close()
      gateway:expect_idle()
    end
  end))

  it("log is logged, and the response stands; what logs after it logs", h.test(function()
    local gateway = h.script(route("log", 'moongate.sleep(0.01) error "broken"'))
    gateway:expect_log "broken"
    assert.equal(200, gateway:get("/").status)
    gateway:wait_log "script: log of request %x+ failed: [^\n]*gateway.lua:%d+: broken"
    gateway:expect_idle()
  end))

  it("a plugin names its file", h.test(function()
    local path, dir = h.write_file(h.script_config([[
      moongate.route { path = "/", backends = "backend", plugins = { "breaks" } }]], { backend = h.backend() }))
    local uv = require "luv"
    uv.fs_mkdir(dir .. "/plugins", 448)
    uv.fs_mkdir(dir .. "/plugins/breaks", 448)
    local file = assert(io.open(dir .. "/plugins/breaks/handler.lua", "w"))
    file:write [[return { version = "1", api = 1, access = function() error "in the plugin" end }]]
    file:close()
    local gateway = h.gateway { file = path }
    gateway:expect_log "in the plugin"
    assert.equal(500, gateway:get("/").status)
    gateway:wait_log "plugins/breaks/handler.lua:1: in the plugin"
  end))
end)

describe("what is thrown", function()
  for what, body in pairs {
    table = "error { code = 1 }",
    ["nil"] = "error(nil)",
    number = "error(42)",
    boolean = "error(false)",
    ["an object that can say what it is"] = 'error(setmetatable({}, { __tostring = function() return "said by itself" end }))',
    ["an object that fails to"] = 'error(setmetatable({}, { __tostring = function() error "x" end }))',
    ["bytes"] = 'error("a\\nb\\0c\\r\\n2026 error forged")',
    ["a long text"] = 'error(("x"):rep(100000))',
    ["a percent"] = 'error "%s%n%d"',
    ["a stack overflow"] = "local function f() return 1 + f() end f()",
    ["an error in an error handler"] = 'xpcall(error, function() error "again" end) error "after"',
    ["too many C levels"] = 'local function f(s) return (s:gsub(".", f)) end f "aa"',
    ["coroutines inside each other"] = "local function f() return coroutine.wrap(f)() end f()",
    ["a string that is too long"] = 'return ("x"):rep(2 ^ 31 - 1)',
  } do
    it("may be " .. what, h.test(function()
      local gateway = h.script(route("access", body) .. [[
        moongate.route { path = "/fine", access = function(exchange) exchange:respond(200, "fine") end }]])
      gateway:expect_log "script: access"
      local response = gateway:get "/"
      assert.equal(500, response.status)
      assert.is_not_nil(id_in(response))
      gateway:wait_log "script: access of request %x+ failed: "
      if what:find "say what" then gateway:wait_log "said by itself" end
      for _, line in ipairs(gateway.lines) do assert.is_nil(line:find "^2026 error forged") end
      assert.equal("fine", gateway:get("/fine").body)
      gateway:expect_idle()
    end, 60000))
  end

  it("is caught by pcall and xpcall, waits included", h.test(function()
    local gateway = h.script [[
      moongate.route { path = "/", access = function(exchange)
        local ok, err = pcall(function() moongate.sleep(0.01) error { code = 7 } end)
        local ok2, err2 = xpcall(function() moongate.sleep(0.01) error "x" end, function(e)
          return "handled " .. e:match "x$"
        end)
        exchange:respond(200, ("%s %d %s %s"):format(ok, err.code, ok2, err2))
      end }]]
    assert.equal("false 7 false handled x", gateway:get("/").body)
  end))
end)

describe("the coroutine of a phase, in the hands of another", function()
  -- What libraries for other loops do: local self = coroutine.running() ... resume(self).
  local SCRIPT = [[
    local kept = {}
    moongate.route { path = "/sleep", access = function(exchange)
      kept.thread = coroutine.running()
      moongate.log.info "sleeps"
      moongate.sleep(0.3)
      %s
      exchange:respond(200, "slept")
    end }
    moongate.route { path = "/steal", access = function(exchange)
      local ok, err = coroutine.resume(kept.thread)
      exchange:respond(200, tostring(ok) .. " " .. tostring(err))
    end }]]

  for what, rest in pairs { ["comes to its end there"] = "if true then return end", ["waits once more"] = "moongate.sleep(0.2)",
    ["answers"] = "", ["fails"] = 'error "stolen"' } do
    it(what .. ", and harms nobody", h.test(function()
      local gateway = h.script(SCRIPT:format(rest))
      gateway:expect_log "."
      for _ = 1, 3 do
        local client, thief = gateway:connect(), gateway:connect()
        client:send "GET /sleep HTTP/1.1\r\nHost: h\r\n\r\n"
        gateway:wait_log "sleeps"
        thief:send "GET /steal HTTP/1.1\r\nHost: h\r\n\r\n"
        assert.is_not_nil(h.read_response(thief))
        assert.is_not_nil(h.read_response(client))
        client:close()
        thief:close()
      end
      gateway:expect_idle()
    end))
  end

  it("by a timer, after a yield that is refused", h.test(function()
    local gateway = h.script [[
      moongate.route { path = "/", backends = "backend", access = function(exchange)
        local self = coroutine.running()
        moongate.timer.after(0.05, function()
          moongate.log.info("resumed: " .. tostring(coroutine.resume(self)))
        end)
        coroutine.yield()
        moongate.log.info("path: " .. tostring(exchange.request.path))
      end }]]
    gateway:expect_log "outside of a coroutine of your own"
    assert.equal(500, gateway:get("/").status)
    gateway:wait_log "resumed: "
    gateway:expect_idle()
  end))
end)

describe("a finalizer that fails", function()
  for what, make in pairs {
    newproxy = 'local p = newproxy(true) getmetatable(p).__gc = function() error "in a finalizer" end',
    ["ffi.gc"] = 'ffi.gc(ffi.new "int[10]", function() error "in a finalizer" end)',
    ["ffi.metatype"] = "disposable()",
    ["one that waits"] = [[local p = newproxy(true)
      getmetatable(p).__gc = function() moongate.sleep(1) error "in a finalizer" end]],
  } do
    it("(" .. what .. ") is logged, and harms nobody", h.test(function()
      local gateway = h.script(([[
        local ffi = require "ffi"
        ffi.cdef "struct spec_disposable { int n[10]; };"
        local disposable = ffi.metatype("struct spec_disposable", { __gc = function() error "in a finalizer" end })
        moongate.route { path = "/", backends = "backend",
          access = function(exchange)
            for i = 1, 50 do %s end
            moongate.wait_all(moongate.spawn(function() moongate.sleep(0.001) end))
          end,
          body_filter = function(exchange)
            for piece in exchange.response:chunks() do exchange.response:write(piece) end
          end }]]):format(make), { backend = h.backend(h.always(h.http1.response("200 OK", ("x"):rep(300000)))) })
      gateway:expect_log "a finalizer failed"
      local client = gateway:connect()
      for _ = 1, 60 do
        client:send "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
        assert.equal(300000, #h.read_response(client).body)
      end
      gateway:wait_log "script: a finalizer failed"
      client:close()
      gateway:expect_idle()
    end))
  end
end)

describe("responding", function()
  it("twice: the phase ends with the first", h.test(function()
    local gateway = h.script [[
      moongate.route { path = "/", access = function(exchange)
        exchange:respond(201, "first")
        moongate.log.info "never reached"
        exchange:respond(202, "second")
      end }]]
    local response = gateway:get "/"
    assert.equal(201, response.status)
    assert.equal("first", response.body)
    assert.is_nil(gateway:log():find "never reached")
    gateway:expect_idle()
  end))

  it("below pcall and in a coroutine ends the phase all the same", h.test(function()
    local gateway = h.script [[
      moongate.route { path = "/pcall", access = function(exchange)
        pcall(exchange.respond, exchange, 201, "first")
        exchange:respond(202, "second")
      end }
      moongate.route { path = "/wrap", access = function(exchange)
        coroutine.wrap(function() exchange:respond(201, "first") end)()
        exchange:respond(202, "second")
      end }
      moongate.route { path = "/sort", access = function(exchange)
        pcall(table.sort, { 2, 1 }, function() exchange:respond(201, "first") end)
      end }]]
    for _, path in ipairs { "/pcall", "/wrap", "/sort" } do
      local response = gateway:get(path)
      assert.equal(201, response.status, path)
      assert.equal("first", response.body)
    end
    gateway:expect_idle()
  end))

  it("ends rewrite, and access does not run", h.test(function()
    local gateway = h.script [[
      moongate.route { path = "/", rewrite = function(exchange) exchange:respond(200, "from rewrite") end,
        access = function(exchange) moongate.log.info "access ran" exchange:respond(200, "from access") end,
        header_filter = function(exchange) exchange.response.headers["x-filtered"] = "1" end }]]
    local response = gateway:get "/"
    assert.equal("from rewrite", response.body)
    assert.equal("1", response.headers["x-filtered"])
    assert.is_nil(gateway:log():find "access ran")
  end))

  for _, hook in ipairs { "header_filter", "body_filter", "log" } do
    it("is refused in " .. hook .. ", and says where it can be done", h.test(function()
      local gateway = h.script(([[
        moongate.route { path = "/", backends = "backend", %s = function(exchange)
          local ok, err = pcall(exchange.respond, exchange, 200, "no")
          moongate.log.info("refused: " .. tostring(err))
        end }]]):format(hook))
      local client = gateway:connect()
      client:send "GET / HTTP/1.1\r\nHost: h.example\r\n\r\n"
      assert.equal(200, h.read_response(client).status)
      gateway:wait_log("refused: [^\n]*rewrite and access[^\n]* and this is " .. hook)
      client:close()
      gateway:expect_idle()
    end))
  end

  it("with what cannot be an answer is an error at its line", h.test(function()
    local gateway = h.script [[
      local function try(...)
        local _, err = pcall(...)
        return tostring(err)
      end
      moongate.route { path = "/", access = function(exchange)
        local out = {
          try(function() exchange:respond(99) end),
          try(function() exchange:respond(600) end),
          try(function() exchange:respond(101) end),
          try(function() exchange:respond "200" end),
          try(function() exchange:respond(200, 7) end),
          try(function() exchange:respond(200, { f = print }) end),
        }
        exchange:respond(200, table.concat(out, "\n"))
      end }]]
    local body, count = gateway:get("/").body, 0
    for line in body:gmatch "[^\n]+" do
      count = count + 1
      assert.is_not_nil(line:find "gateway.lua:%d+: ", line)
    end
    assert.equal(6, count)
  end))

  it("with a header that cannot stand in a message", h.test(function()
    local gateway = h.script [[
      moongate.route { path = "/", access = function(exchange)
        exchange:respond(200, "x", { ["x-a"] = "b\r\nx-c: d" })
      end }]]
    gateway:expect_log "cannot stand in a message"
    assert.equal(500, gateway:get("/").status)
    gateway:expect_idle()
  end))
end)

describe("configuration calls", function()
  for _, noun in ipairs { "route", "listener", "upstream", "settings" } do
    it("moongate." .. noun .. " in a phase is refused", h.test(function()
      local gateway = h.script(([[
        local kept = moongate.%s
        moongate.init_worker(function() moongate.log.info(tostring(select(2, pcall(kept, {})))) end)
        moongate.route { path = "/", access = function(exchange)
          local _, err = pcall(moongate.%s, { name = "x", path = "/x", access = function() end })
          exchange:respond(200, tostring(err))
        end }]]):format(noun, noun))
      gateway:wait_log("moongate." .. noun .. " can be called while the script is evaluated")
      assert.is_not_nil(gateway:get("/").body:find "while the script is evaluated")
    end))
  end

  it("moongate.init_worker in a phase is refused", h.test(function()
    local gateway = h.script [[
      moongate.route { path = "/", access = function(exchange)
        exchange:respond(200, tostring(select(2, pcall(moongate.init_worker, function() end))))
      end }]]
    assert.is_not_nil(gateway:get("/").body:find "while the script is evaluated")
  end))
end)
