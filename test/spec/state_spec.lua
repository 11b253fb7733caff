-- The last good configuration on disk: kept while the script is good, served when it is not.
local h = require "test.support.harness"
local uv = require "luv"

local HEAD = 'local moongate = require "moongate"\nmoongate.listener { port = 0, address = "127.0.0.1" }\n'

local function marker_script(marker, settings)
  return HEAD .. ("moongate.settings { workers = 1, %s }\n"):format(settings or "") .. ([[
moongate.route { path = "/", name = %q, plugins = { { "direct-response", body = %q,
  headers = { ["x-odd"] = "tab\t \"quoted\" \\ é" } } } }
]]):format(marker, marker)
end

local function write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

local function read(path)
  local file = io.open(path)
  if not file then return nil end
  local text = file:read "*a"
  file:close()
  return text
end

-- A script and a directory for its state.
local function place(text)
  local path, dir = h.write_file(text)
  local state = dir .. "/state"
  assert(uv.fs_mkdir(state, 448)) -- 0700
  return { script = path, state = state, kept = state .. "/last-good.lua" }
end

local function start(at, options)
  options = options or {}
  options.file = at.script
  options.args = options.args or { "--state", at.state }
  return h.gateway(options)
end

-- Serves it once, so that it is kept.
local function keep(at, options)
  local gateway = start(at, options)
  gateway:wait_log "the last good configuration is kept in"
  gateway:stop()
end

local BROKEN = {
  ["a syntax error"] = "moongate.listener {\n",
  ["an error when run"] = "local x = nil\nprint(x.y)\n",
  ["a problem"] = HEAD .. "moongate.listener { prot = 1 }\n",
}

describe("the last good configuration", function()
  it("is kept after a start and after every reload, for its owner alone #threads", h.test(function()
    local at = place(marker_script "one")
    local gateway = start(at)
    gateway:wait_log "the last good configuration is kept in"
    local text = read(at.kept)
    assert.is_not_nil(text:find "^%-%- The last good configuration, kept by moongate at %d+%-%d+%-%d+T%d+:%d+:%d+Z\n")
    assert.is_not_nil(text:find('"one"', 1, true))
    assert.equal(384, uv.fs_stat(at.kept).mode % 512) -- 0600
    assert.equal("script", gateway:ask_json("/status").source)
    write(at.script, marker_script "two")
    assert.equal(0, gateway:ask("reload").code)
    gateway:stop() -- writes to the end
    assert.is_not_nil(read(at.kept):find('"two"', 1, true))
    assert.equal(0, h.exec({ "check", at.kept }).code)
    local names = {}
    for name in function(scan) return (uv.fs_scandir_next(scan)) end, uv.fs_scandir(at.state) do names[#names + 1] = name end
    assert.same({ "last-good.lua" }, names)
  end))

  for what, text in pairs(BROKEN) do
    it("serves when the script has " .. what, h.test(function()
      local at = place(marker_script "one")
      local first = start(at)
      first:wait_log "the last good configuration is kept in"
      local objects = first:ask_json("/config").objects
      local before = first:get("/")
      first:stop()
      local kept = read(at.kept)
      write(at.script, text)
      local gateway = start(at)
      gateway:expect_log "."
      local date = kept:match "kept by moongate at (%S+)"
      assert.is_not_nil(gateway:log():find("error " .. at.script
        .. " is refused; the last good configuration serves, of " .. date .. " (" .. at.kept .. ")", 1, true), gateway:log())
      assert.is_not_nil(gateway:log():find "error %S+/gateway%.lua:%d+: ", gateway:log())
      local response = gateway:get("/")
      assert.equal("one", response.body)
      assert.equal(before.headers["x-odd"], response.headers["x-odd"])
      assert.equal("last-good", gateway:ask_json("/status").source)
      for i, object in ipairs(gateway:ask_json("/config").objects) do
        assert.same(objects[i].value, object.value)
      end
      assert.equal(kept, read(at.kept))
      assert.equal(1, gateway:ask("reload").code)
      assert.equal("last-good", gateway:ask_json("/status").source)
      write(at.script, marker_script "two")
      assert.equal(0, gateway:ask("reload").code)
      assert.equal("two", gateway:get("/").body)
      assert.equal("script", gateway:ask_json("/status").source)
      gateway:stop()
      assert.is_not_nil(read(at.kept):find('"two"', 1, true))
    end))
  end

  it("is kept where the settings say", h.test(function()
    local at = place ""
    write(at.script, marker_script("one", ("state = %q"):format(at.state)))
    keep(at, { args = {} })
    assert.is_not_nil(read(at.kept):find('"one"', 1, true))
    write(at.script, "nothing()\n")
    local gateway = start(at)
    gateway:expect_log "."
    assert.equal("one", gateway:get("/").body)
  end))

  it("does not serve without being asked for, and not where there is none", h.test(function()
    local at = place(marker_script "one")
    keep(at)
    write(at.script, "nothing()\n")
    local result = h.exec { "run", at.script, "--control", at.state .. "/control.sock" }
    assert.equal(1, result.code)
    assert.is_not_nil(result.stderr:find("gateway.lua:1: ", 1, true), result.stderr)
    os.remove(at.kept)
    result = h.exec { "run", at.script, "--control", at.state .. "/control.sock", "--state", at.state }
    assert.equal(1, result.code)
    assert.is_not_nil(result.stderr:find("gateway.lua:1: ", 1, true), result.stderr)
    assert.is_not_nil(result.stderr:find(at.kept .. ": cannot be read: no such file", 1, true), result.stderr)
    write(at.kept, "also_nothing()\n")
    result = h.exec { "run", at.script, "--control", at.state .. "/control.sock", "--state", at.state }
    assert.equal(1, result.code)
    assert.is_not_nil(result.stderr:find("last-good.lua:1: ", 1, true), result.stderr)
  end))

  it("does not stand in for a script whose port is taken", h.test(function()
    local at = place(marker_script "one")
    keep(at)
    local blocker = h.backend()
    write(at.script, (marker_script("two"):gsub("port = 0", "port = " .. blocker.port)))
    local result = h.exec { "run", at.script, "--control", at.state .. "/control.sock", "--state", at.state }
    assert.equal(1, result.code)
    assert.is_not_nil(result.stderr:find "in use", result.stderr)
  end))

  it("warns, and serves, where the directory is none", h.test(function()
    local at = place(marker_script "one")
    for _, dir in ipairs { at.state .. "/nowhere", at.script } do
      local gateway = start(at, { args = { "--state", dir } })
      gateway:wait_log "warn the last good configuration cannot be kept in %S+/last%-good.lua: "
      assert.equal("one", gateway:get("/").body)
      gateway:stop()
    end
  end))

  it("stays as it was when the disk is full", h.test(function()
    local at = place(marker_script "one")
    keep(at)
    local kept = read(at.kept)
    write(at.script, marker_script "two")
    local gateway = start(at, { shell = "trap '' XFSZ; ulimit -f 0;" }) -- no file may grow
    gateway:wait_log "warn the last good configuration cannot be kept in"
    assert.equal("two", gateway:get("/").body)
    gateway:stop()
    assert.equal(kept, read(at.kept))
    local names = 0
    for _ in function(scan) return (uv.fs_scandir_next(scan)) end, uv.fs_scandir(at.state) do names = names + 1 end
    assert.equal(1, names)
  end))

  it("holds as many objects as there are", h.test(function()
    local at = place(marker_script "one" .. [[
for i = 1, 20000 do
  moongate.route { path = "/r" .. i, name = "r" .. i, plugins = { { "direct-response", body = "b" .. i } } }
end
]])
    keep(at)
    write(at.script, "nothing()\n")
    local gateway = start(at)
    gateway:expect_log "."
    assert.equal("b20000", gateway:get("/r20000").body)
  end, 60000))

  -- Functions, a module, a plugin of its own with a schema, the environment, a file with odd bytes, the time and chance.
  local RUNS = HEAD .. [[
    moongate.settings { workers = 2 }
    local words = require "words"
    local word = os.getenv "MOONGATE_SPEC_WORD" or "nothing"
    local file = assert(io.open((debug.getinfo(1, "S").source:sub(2):gsub("gateway.lua$", "odd.bin"))))
    local odd = #file:read "*a"
    file:close()
    local started = os.time() .. "/" .. math.random(1e9)
    moongate.route { path = "/", name = "all", access = function(exchange)
      exchange:respond(200, table.concat({ words.first, word, odd, started }, " "))
    end }
    moongate.route { path = "/plugin", plugins = { { "polite", word = "hello" } } }
  ]]

  local function place_of_functions()
    local at = place(RUNS)
    local dir = at.script:match "^(.*)/"
    write(dir .. "/words.lua", 'return { first = "first" }\n')
    write(dir .. "/odd.bin", "a\0b\n\r\n12 0 3 4\n\255")
    assert(uv.fs_mkdir(dir .. "/moongate", 448))
    assert(uv.fs_mkdir(dir .. "/moongate/plugins", 448))
    assert(uv.fs_mkdir(dir .. "/moongate/plugins/polite", 448))
    write(dir .. "/moongate/plugins/polite/handler.lua",
      'return { name = "polite", version = "1", api = 1, access = function(exchange, conf) exchange:respond(200, conf.word) end }\n')
    write(dir .. "/moongate/plugins/polite/schema.lua", 'return { word = { type = "string" } }\n')
    return at, dir
  end

  it("has functions, and sees what the script saw", h.test(function()
    local at, dir = place_of_functions()
    uv.os_setenv("MOONGATE_SPEC_WORD", "word of then")
    local first = start(at)
    uv.os_unsetenv "MOONGATE_SPEC_WORD"
    first:wait_log "the last good configuration is kept in"
    local before = first:get("/").body
    assert.is_not_nil(before:find "^first word of then 16 %d+/%d+$", before)
    first:stop()
    local kept = read(at.kept)
    assert.equal(384, uv.fs_stat(at.kept).mode % 512) -- 0600: there may be secrets in it
    write(at.script, "moongate.listener {\n")
    os.remove(dir .. "/words.lua")
    os.remove(dir .. "/odd.bin")
    os.remove(dir .. "/moongate/plugins/polite/handler.lua")
    for _ = 1, 2 do
      local gateway = start(at)
      gateway:expect_log "."
      assert.equal("last-good", gateway:ask_json("/status").source)
      assert.equal(before, gateway:get("/").body)
      assert.equal("hello", gateway:get("/plugin").body)
      assert.equal(kept, read(at.kept))
      gateway:stop()
    end
    -- What was cut does not serve.
    for _, len in ipairs { #kept - 1, #kept - 40, math.floor(#kept / 2), 200 } do
      write(at.kept, kept:sub(1, len))
      local result = h.exec { "run", at.script, "--control", at.state .. "/control.sock", "--state", at.state }
      assert.equal(1, result.code, result.stderr)
      assert.is_not_nil(result.stderr:find(at.kept .. ": it is not whole", 1, true), result.stderr)
    end
  end))

  it("is data again when a reload has taken the functions away", h.test(function()
    local at = place_of_functions()
    local gateway = start(at)
    gateway:wait_log "the last good configuration is kept in"
    write(at.script, marker_script "two")
    assert.equal(0, gateway:ask("reload").code)
    gateway:stop()
    assert.is_not_nil(read(at.kept):find('"two"', 1, true))
    assert.is_nil(read(at.kept):find("words", 1, true))
  end))
end)
