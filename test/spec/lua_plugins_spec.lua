-- Plugins in Lua, by name: handler and schema beside the script; their tables are checked like any other, and reach the phases
-- with defaults.
local cjson = require "cjson"
local h = require "test.support.harness"
local uv = require "luv"

local function write(dir, name, text)
  local at = dir
  for part in name:gmatch "([^/]+)/" do
    at = at .. "/" .. part
    uv.fs_mkdir(at, 448)
  end
  local file = assert(io.open(dir .. "/" .. name, "w"))
  file:write(text)
  file:close()
end

local HANDLER = [[
  local cjson = require "cjson"
  return { name = "demo", version = "1.0", api = 1,
    access = function(exchange, conf) exchange:respond(200, cjson.encode(conf)) end }]]

local SCHEMA = [[
  return {
    key = { type = "string", required = true },
    limit = { type = "integer", default = 10, min = 1, max = 100 },
    ratio = { type = "number" },
    is_on = { type = "boolean", default = true },
    mode = { type = "string", one_of = { "strict", "lenient" }, default = "strict" },
    hosts = { type = "list", items = { type = "string" } },
    labels = { type = "map", values = { type = "string" } },
    limits = { type = "table", fields = { per_second = { type = "integer", default = 5 }, burst = { type = "integer" } } },
  }]]

local function files_of(handler, schema)
  return { ["plugins/demo/handler.lua"] = handler or HANDLER, ["plugins/demo/schema.lua"] = schema }
end

local function write_all(script, files, options)
  local path, dir = h.write_file(h.script_config(script, options or {}))
  for name, text in pairs(files) do write(dir, name, text) end
  return path, dir
end

local function route(conf)
  return ([[moongate.route { name = "r", path = "/", plugins = { { "demo", %s } } }]]):format(conf)
end

local function refuses(script, files, pattern)
  local path = write_all(script, files)
  local result = h.exec({ "check", path }, { ms = 30000 })
  local text = result.stdout .. result.stderr
  assert.equal(1, result.code, text)
  for _, one in ipairs(type(pattern) == "table" and pattern or { pattern }) do
    assert.is_not_nil(text:find(one), one .. " in: " .. text)
  end
  return text
end

describe("a plugin in Lua", function()
  it("gets its table with defaults", h.test(function()
    local path = write_all(route 'key = "k", limits = { burst = 2 }, hosts = { "a", "b" }, labels = { x = "y" }',
      files_of(HANDLER, SCHEMA))
    local gateway = h.gateway { file = path }
    assert.same({ key = "k", limit = 10, is_on = true, mode = "strict", hosts = { "a", "b" }, labels = { x = "y" },
      limits = { per_second = 5, burst = 2 } }, cjson.decode(gateway:get("/").body))
  end))

  it("without a schema takes nothing", h.test(function()
    local gateway = h.gateway { file = write_all([[moongate.route { path = "/", plugins = { "demo" } }]], files_of()) }
    assert.equal("{}", gateway:get("/").body)
    refuses(route "key = 1", files_of(), 'plugins%[1%].key: unknown key')
  end))

  local CASES = {
    { "", "plugins%[1%].key: missing" },
    { "key = 7", { "plugins%[1%].key: found 7", "expected string" } },
    { 'key = "k", limt = 3', { "plugins%[1%].limt: unknown key", 'did you mean "limit"' } },
    { 'key = "k", limit = 0', { "plugins%[1%].limit: found 0", "expected 1 to 100" } },
    { 'key = "k", limit = 1.5', { "plugins%[1%].limit: found 1.5", "expected a whole number" } },
    { 'key = "k", limit = "1"', { 'plugins%[1%].limit: found "1"', "expected integer" } },
    { 'key = "k", ratio = {}', { "plugins%[1%].ratio: found a table", "expected number" } },
    { 'key = "k", is_on = 1', { "plugins%[1%].is_on: found 1", "expected boolean" } },
    { 'key = "k", mode = "strickt"', { 'plugins%[1%].mode: found "strickt"', 'did you mean "strict"' } },
    { 'key = "k", hosts = "a"', { 'plugins%[1%].hosts: found "a"', "expected list" } },
    { 'key = "k", hosts = { "a", 2 }', { "plugins%[1%].hosts%[2%]: found 2", "expected string" } },
    { 'key = "k", hosts = { x = "a" }', { "plugins%[1%].hosts: expected a list" } },
    { 'key = "k", labels = { x = 1 }', { "plugins%[1%].labels.x: found 1", "expected string" } },
    { 'key = "k", labels = { "x" }', { "plugins%[1%].labels: expected names" } },
    { 'key = "k", limits = { per_secnd = 1 }', { "plugins%[1%].limits.per_secnd: unknown key", 'did you mean "per_second"' } },
    { 'key = "k", limits = { per_second = "x" }', { "plugins%[1%].limits.per_second: found \"x\"" } },
    { 'key = function() end', { "holds data, and here a function" } },
    { 'key = "k", labels = { x = function() end }', { "holds data, and here a function" } },
  }
  for _, case in ipairs(CASES) do
    it("refuses { " .. case[1] .. " } with its key path", h.test(function()
      local text = refuses(route(case[1]), files_of(HANDLER, SCHEMA), case[2])
      assert.is_not_nil(text:find 'gateway.lua:%d+: route "r": ', text)
    end))
  end

  it("tells all that is wrong at once", h.test(function()
    refuses(route 'limit = 0, mode = 1, nothing = 2', files_of(HANDLER, SCHEMA),
      { "key: missing", "limit: found 0", "mode: found 1", "nothing: unknown key" })
  end))

  it("that is not there is named, with the nearest", h.test(function()
    refuses([[moongate.route { path = "/", plugins = { "demmo" } }]], files_of(), 'there is no plugin "demmo"')
    refuses([[moongate.route { path = "/", plugins = { "redirekt" } }]], {}, 'did you mean "redirect"')
    refuses([[moongate.route { path = "/", plugins = { "../../etc" } }]], {}, 'there is no plugin "../../etc"')
  end))

  local BROKEN = {
    ["of another api"] = { "return { version = '1', api = 2 }", "api = 2; this gateway has api = 1" },
    ["without an api"] = { "return { version = '1' }", "api = nil" },
    ["that is no table"] = { "return 7", "returns number, not a table" },
    ["with a misspelt phase"] = { "return { api = 1, acces = function() end }", "acces, which is no phase; did you mean access" },
    ["with a phase that is no function"] = { "return { api = 1, access = 1 }", "access of handler.lua is number" },
    ["with a syntax error"] = { "return {", "handler.lua:1:" },
    ["that fails"] = { "error 'no luck'", "handler.lua:1: no luck" },
    ["that does not come to an end"] = { "while true do end", "does not come to an end" },
    ["that configures"] = { "require('moongate').route { path = '/x' } return { api = 1 }", "while the script is evaluated" },
    ["that requires what is not there"] = { "require 'no.such' return { api = 1 }", "module 'no.such' not found" },
  }
  for what, case in pairs(BROKEN) do
    it(what .. " is refused", h.test(function()
      refuses([[moongate.route { path = "/", plugins = { "demo" } }]], files_of(case[1]), { 'plugin "demo"', case[2] })
    end, 60000))
  end

  local SCHEMAS = {
    ["that is no table"] = { "return 7", "schema.lua returns no table" },
    ["with an unknown type"] = { "return { key = { type = 'strin' } }", 'no type of schemas: "strin"' },
    ["with a field that is no table"] = { "return { key = 'string' }", "." },
    ["that fails"] = { "error 'no luck'", "schema.lua:1: no luck" },
  }
  for what, case in pairs(SCHEMAS) do
    it("whose schema is one " .. what .. " is refused", h.test(function()
      refuses(route 'key = "x"', files_of(HANDLER, case[1]), { 'plugin "demo"', case[2] })
    end))
  end

  it("whose default cannot be made fails its requests, and nothing else", h.test(function()
    local schema = [[return { deep = { type = "map", fields = 5 }, key = { type = "string" } }]]
    local path = write_all(route 'deep = { x = "y" }', files_of(HANDLER, schema))
    local result = h.exec { "check", path }
    if result.code ~= 0 then return end -- refused: better still
    local gateway = h.gateway { file = path }
    gateway:expect_log "."
    for _ = 1, 3 do assert.is_true(gateway:get("/").status >= 200) end
  end))

  it("runs in every phase, in list order, with the table of each use", h.test(function()
    local handler = [[
      local function mark(phase)
        return function(exchange, conf)
          exchange.vars.trace = (exchange.vars.trace or "") .. conf.mark .. phase .. " "
          if phase == "header_filter" then exchange.response.headers["x-trace"] = exchange.vars.trace end
          if phase == "log" then require("moongate").log.info("trace " .. exchange.vars.trace) end
        end
      end
      return { api = 1, version = "1", rewrite = mark "rewrite", access = mark "access", header_filter = mark "header_filter",
        log = mark "log" }]]
    local path = write_all([[moongate.route { path = "/", backends = "backend",
      plugins = { { "demo", mark = "a" }, { "request-headers", set = { ["x-c"] = "1" } }, { "demo", mark = "b" } },
      access = function(exchange) exchange.vars.trace = exchange.vars.trace .. "inline " end }]],
      files_of(handler, [[return { mark = { type = "string", required = true } }]]), { backend = h.backend() })
    local gateway = h.gateway { file = path }
    assert.equal("arewrite brewrite aaccess baccess inline aheader_filter bheader_filter", gateway:get("/").headers["x-trace"]
      :match "^(.-) ?$")
    gateway:wait_log "trace .*alog blog"
  end))

  it("has an init_worker, which may refuse the start", h.test(function()
    local path = write_all([[moongate.route { path = "/", plugins = { "demo" } }]], files_of [[
      local state = "not started"
      return { api = 1, version = "1", init_worker = function() require("moongate").sleep(0.05) state = "started" end,
        access = function(exchange) exchange:respond(200, state) end }]])
    local gateway = h.gateway { file = path }
    assert.equal("started", gateway:get("/").body)
    path = write_all([[moongate.route { path = "/", plugins = { "demo" } }]], files_of [[
      return { api = 1, version = "1", access = function() end, init_worker = function() error "not today" end }]])
    local result = h.exec { "run", path, "--control", path .. ".sock" }
    assert.is_true(result.code ~= 0)
    assert.is_not_nil(result.stderr:find "handler.lua:1: not today", result.stderr)
  end))

  it("whose file changes makes a new generation", h.test(function()
    local handler = [[return { api = 1, version = "1", access = function(exchange) exchange:respond(200, "%s") end }]]
    local path, dir = write_all([[moongate.route { path = "/", plugins = { "demo" } }]], files_of(handler:format "old"))
    local gateway = h.gateway { file = path }
    assert.equal("old", gateway:get("/").body)
    write(dir, "plugins/demo/handler.lua", handler:format "new")
    assert.equal(0, gateway:ask("reload").code)
    assert.equal("new", gateway:get("/").body)
  end))
end)
