-- Evaluation: the script runs once for the configuration and once for each VM, which must find the same functions; all of them
-- see the same world, and a script that would not come to an end, or do what a script must not, is an error with its line.
local cjson = require "cjson"
local h = require "test.support.harness"
local uv = require "luv"

local function check(script, files)
  local path, dir = h.write_file(h.script_config(script, {}))
  for name, text in pairs(files or {}) do
    local at = dir
    for part in name:gmatch "([^/]+)/" do
      at = at .. "/" .. part
      uv.fs_mkdir(at, 448)
    end
    local file = assert(io.open(dir .. "/" .. name, "w"))
    file:write(text)
    file:close()
  end
  local result = h.exec({ "check", path }, { ms = 30000, cwd = dir })
  result.text = result.stdout .. result.stderr
  return result
end

local function refuses(script, pattern, files)
  local result = check(script, files)
  assert.equal(1, result.code, result.text)
  assert.is_not_nil(result.text:find(pattern), result.text)
  return result.text
end

describe("functions of routes made in a loop over pairs", function()
  it("stay with their routes, in every worker and at every start #threads", h.test(function()
    local script = [[
      local names = {}
      for i = 1, 200 do names["/route-" .. i] = i end
      for name, i in pairs(names) do
        moongate.route { path = { exact = name }, access = function(exchange)
          exchange:respond(200, name .. " " .. i)
        end }
      end
      for name in pairs(names) do
        moongate.route { name = "named " .. name, path = "/named" .. name,
          access = function(exchange) exchange:respond(200, exchange.route) end }
      end]]
    for _ = 1, h.loop.scale > 1 and 1 or 3 do
      local gateway = h.script(script, { settings = { workers = 4 } })
      for _ = 1, 8 do -- connections land on any worker
        local client = gateway:connect()
        for i = 1, 200, 7 do
          client:send(("GET /route-%d HTTP/1.1\r\nHost: h\r\n\r\n"):format(i))
          assert.equal(("/route-%d %d"):format(i, i), h.read_response(client).body)
          client:send(("GET /named/route-%d HTTP/1.1\r\nHost: h\r\n\r\n"):format(i))
          assert.equal(("named /route-%d"):format(i), h.read_response(client).body)
        end
        client:close()
      end
      gateway:expect_idle()
      gateway:stop()
    end
  end, 60000))
end)

describe("a script that differs from run to run", function()
  -- The world is recorded, so what differs comes from within: addresses, and the order of pairs.
  local HOLDER = [[
    local function route(name)
      moongate.route { name = name, path = "/" .. name, access = function(exchange) exchange:respond(200) end }
    end ]]

  it("by an address is refused, and the difference is named", h.test(function()
    local text = refuses(HOLDER .. [[route("r" .. tostring({}):match "%x+$")]],
      'access of route "r%x+" is missing when a worker runs the script')
    assert.is_not_nil(text:find "must define the same functions every time", text)
  end))

  it("by having a function more is refused", h.test(function()
    -- A global that only the worker's run has.
    refuses(HOLDER .. [[route "a" if require "moongate._core.native".vm then route "b" end]],
      'access of route "b" is there when a worker runs the script, but was not before')
  end))

  it("is not one whose names hold line ends", h.test(function()
    local gateway = h.script [[
      for _, name in ipairs { "a\nb", "a\nb\nc", "\n" } do
        moongate.route { name = name, path = "/" .. #name, access = function(exchange) exchange:respond(200, exchange.route) end }
      end]]
    assert.equal("a?b", gateway:get("/3").body)
    assert.equal("a?b?c", gateway:get("/5").body)
    assert.equal("?", gateway:get("/1").body)
  end))

  it("by failing in the worker alone is refused with its line", h.test(function()
    refuses([[if require "moongate._core.native".vm then error "only here" end
      moongate.route { path = "/", access = function(exchange) exchange:respond(200) end }]], "gateway.lua:%d+: only here")
  end))

  it("by asking for a file, or a variable, that the first did not is refused", h.test(function()
    refuses([[
      if require "moongate._core.native".vm then io.open "/etc/hostname" end
      moongate.route { path = "/", access = function(exchange) exchange:respond(200) end }]],
      '"/etc/hostname" is asked for here, and was not')
    refuses([[
      if require "moongate._core.native".vm then os.getenv "HOME" end
      moongate.route { path = "/", access = function(exchange) exchange:respond(200) end }]], '"HOME" is asked for here, and was not')
  end))

  it("by failing in any one of many is refused, and nothing is left of the others", h.test(function()
    local script = [[
      -- One in some runs, by where the state's memory is.
      local page = math.floor(tonumber(tostring({}):match "0x(%x+)$", 16) / 4096)
      if page % 11 == CASE then error "by chance" end
      moongate.init_worker(function() moongate.sleep(0.001) end)
      moongate.timer.every(0.01, function() end)
      moongate.route { path = "/", access = function(exchange) exchange:respond(200, "new") end }]]
    local options = { settings = { workers = 4 } }
    local gateway = h.script([[moongate.route { path = "/", access = function(exchange) exchange:respond(200, "old") end }]], options)
    gateway:expect_log "."
    local refused = 0
    for i = 1, 22 do
      gateway:rewrite(h.script_config((script:gsub("CASE", i % 11)), options))
      local answer = gateway:ask "reload"
      if answer.code ~= 0 then
        refused = refused + 1
        assert.is_not_nil(answer.stderr:find "by chance", answer.stderr)
      end
      assert.equal(200, gateway:get("/").status)
    end
    assert.is_true(refused > 0)
    gateway:wait_metrics("one Lua state a worker", function(metrics) return metrics.moongate_lua_states == 4 end)
  end, 40000))

  it("is refused by a reload, and the old one serves", h.test(function()
    local gateway = h.script [[
      moongate.route { path = "/", access = function(exchange) exchange:respond(200, "old") end }]]
    gateway:rewrite(h.script_config(HOLDER .. [[route(tostring({}):sub(8))]], { backend = gateway.backend }))
    gateway:expect_log "."
    local answer = gateway:ask "reload"
    assert.equal(1, answer.code)
    assert.is_not_nil(answer.stderr:find "is missing when a worker runs the script", answer.stderr)
    assert.equal("old", gateway:get("/").body)
    assert.equal(1, gateway:metrics().moongate_lua_states)
  end))
end)

describe("what a script takes from outside", function()
  it("is the same in all its runs: time, chance, environment, files #threads", h.test(function()
    local path = h.write_file("file's text", "data.txt")
    local gateway = h.script(([[
      local seen = { time = os.time(), date = os.date "!%%Y-%%m-%%d %%H:%%M:%%S", random = math.random(), dice = math.random(1, 1e9),
        home = os.getenv "HOME", none = os.getenv "MOONGATE_NO_SUCH_VARIABLE" or "none", file = io.open(%q):read "*a",
        lines = 0, clock = os.clock(), now = moongate.now() }
      for _ in io.lines(%q) do seen.lines = seen.lines + 1 end
      moongate.route { path = "/", access = function(exchange) exchange:respond(200, seen) end }]]):format(path, path),
      { settings = { workers = 4 } })
    local file = assert(io.open(path, "w"))
    file:write "changed"
    file:close()
    local first = cjson.decode(gateway:get("/").body)
    assert.equal("file's text", first.file)
    assert.equal(1, first.lines)
    assert.equal("none", first.none)
    assert.is_true(math.abs(first.time - os.time()) < 60)
    for _ = 1, 16 do assert.same(first, cjson.decode(gateway:get("/").body)) end
  end))

  it("is the present again in phases, also for what the script kept, over reloads of data", h.test(function()
    local path = h.write_file("before", "data.txt")
    local script = ([[
      local open, getenv, time, clock, date, random, lines = io.open, os.getenv, os.time, os.clock, os.date, math.random, io.lines
      assert(open "/etc/passwd":read "*a" ~= nil)
      moongate.route { path = "/", access = function(exchange)
        local file = open(%q)
        local text = file:read "*a"
        file:close()
        local a, b = random(), random()
        exchange:respond(200, { text = text, home = getenv "PATH" ~= nil, time = time(), clock = clock(),
          date = date "!%%Y", differs = a ~= b, line = lines(%q)() })
      end }]]):format(path, path)
    local gateway = h.script(script)
    local file = assert(io.open(path, "w"))
    file:write "after"
    file:close()
    for _ = 1, 3 do
      local seen = cjson.decode(gateway:get("/").body)
      assert.equal("after", seen.text)
      assert.equal("after", seen.line)
      assert.is_true(seen.home)
      assert.is_true(math.abs(seen.time - os.time()) <= 2 * h.loop.scale)
      assert.is_true(seen.clock > 0)
      assert.is_true(seen.differs)
      gateway:reload_script(script)
      assert.equal(1, gateway:metrics().moongate_lua_states)
    end
  end))

  it("differs in workers where it should: chance in phases", h.test(function()
    local gateway = h.script([[
      moongate.init_worker(function() moongate.log.info("chance " .. math.random(1, 1e9)) end)]], { settings = { workers = 2 } })
    local a, b = gateway:log():match "chance (%d+).*chance (%d+)"
    assert.is_true(a ~= b)
  end))

  it("may be read in parts", h.test(function()
    local path = h.write_file("one\ntwo 42 0x10\n\nlast", "data.txt")
    local result = check(([[
      local f = assert(io.open(%q))
      assert(f:read() == "one")
      assert(f:read(3) == "two")
      assert(f:read "*n" == 42)
      assert(f:read "n" == 16)
      assert(f:read "*l" == "")
      assert(f:read "*L" == "\n")
      assert(f:read "*a" == "last")
      assert(f:read "*l" == nil)
      assert(f:read "*a" == "")
      assert(f:seek "set" == 0)
      local a, b = f:read("*l", 3)
      assert(a == "one" and b == "two")
      f:close()
      local none, err = io.open "/no/such/file"
      assert(none == nil and err:find "/no/such/file")
      assert(not pcall(io.lines, "/no/such/file"))]]):format(path))
    assert.equal(0, result.code, result.text)
  end))
end)

describe("what a script must not do", function()
  local CASES = {
    ["an endless loop"] = { "while true do end", "does not come to an end" },
    ["one below pcall"] = { "while true do pcall(function() while true do end end) end", "does not come to an end" },
    ["one in a coroutine"] = { "coroutine.wrap(function() while true do end end)()", "does not come to an end" },
    ["endless recursion"] = { "local function f() return f() + 1 end f()", "stack overflow" },
    ["recursion below the C library"] = { 'local function f(s) return (s:gsub(".", f)) end f "a"', "stack overflow" },
    ["endless coroutines"] = { "local function f() coroutine.wrap(f)() end f()", "too many coroutines" },
    ["writing a file"] = { 'assert(io.open("x.txt", "w"))', "cannot write files" },
    ["appending to one"] = { 'assert(io.open("x.txt", "a+"))', "cannot write files" },
    ["starting a program"] = { 'io.popen "true"', "io.popen cannot be used" },
    ["os.execute"] = { 'os.execute "true"', "os.execute cannot be used" },
    ["os.exit"] = { "os.exit(0)", "os.exit cannot be used" },
    ["os.remove"] = { 'os.remove "x"', "os.remove cannot be used" },
    ["an error that is no text"] = { "error {}", "an error that is not a text" },
    ["a request of its own"] = { 'moongate.http.request { url = "http://127.0.0.1/" }', "." },
    ["a module that is not there"] = { 'require "no.such.module"', "module 'no.such.module' not found" },
    ["an unknown noun"] = { "moongate.rout {}", "there is no moongate.rout" },
    ["compiled Lua"] = { 'assert(loadstring(string.dump(function() end)))() error "fine"', "fine" },
  }
  for what, case in pairs(CASES) do
    it("is " .. what, h.test(function()
      refuses(case[1], case[2])
    end, 60000))
  end

  it("a syntax error in a required module is told with its place", h.test(function()
    local text = refuses('require "broken"', "broken.lua:2:", { ["broken.lua"] = "local a = 1\nlocal = 2\n" })
    assert.is_not_nil(text:find "broken.lua:2:", text)
  end))

  it("an error in a required module too", h.test(function()
    refuses('require "broken"', "broken.lua:1: no luck", { ["broken.lua"] = 'error "no luck"' })
  end))

  it("modules beside the script are found, and their change is code", h.test(function()
    local result = check([[assert(require "own.part" == 7 and require "own" == 8)
      assert(dofile "own/part.lua" == 7) assert(loadfile "own/part.lua"() == 7)
      assert(not loadfile "own/none.lua")]],
      { ["own/part.lua"] = "#!/usr/bin/lua\nreturn 7", ["own/init.lua"] = "return 8" })
    assert.equal(0, result.code, result.text)
  end))

  it("require in a phase of what was not loaded says how to", h.test(function()
    local gateway = h.script [[
      local cjson = require "cjson"
      moongate.route { path = "/loaded", access = function(exchange)
        exchange:respond(200, tostring(require "cjson" == cjson and require "moongate" == moongate))
      end }
      moongate.route { path = "/", access = function(exchange)
        exchange:respond(200, tostring(select(2, pcall(require, "lpeg"))))
      end }]]
    assert.equal("true", gateway:get("/loaded").body)
    local body = gateway:get("/").body
    assert.is_not_nil(body:find("module 'lpeg' was not loaded before traffic: require it at the top of the script", 1, true), body)
  end))

  it("coroutine.wrap kept at the top composes with waiting", h.test(function()
    local gateway = h.script [[
      local wrap, resume, create = coroutine.wrap, coroutine.resume, coroutine.create
      moongate.route { path = "/", access = function(exchange)
        local value = wrap(function() moongate.sleep(0.01) return "waited" end)()
        local _, second = resume(create(function() moongate.sleep(0.01) return "again" end))
        exchange:respond(200, value .. " " .. second)
      end }]]
    assert.equal("waited again", gateway:get("/").body)
  end))
end)
