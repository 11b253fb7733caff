-- moongate check --diff: what a file would change in the gateway that runs.
local h = require "test.support.harness"
local cjson = require "cjson.safe"

local BASE = [[
local moongate = require "moongate"
moongate.settings { workers = 1, timeouts = { response = 10 } }
moongate.listener { port = 0, address = "127.0.0.1" }
moongate.upstream { name = "users", endpoints = { "127.0.0.1:8000", { "127.0.0.1:8001", weight = 2 } } }
moongate.upstream { name = "echo", endpoints = { "builtin:echo" } }
moongate.route { name = "users", path = "/users", backends = "users" }
moongate.route { path = { regex = "/v[0-9]+" }, methods = { "GET" }, backends = "echo" }
moongate.route { path = { regex = "/v.*" }, backends = "echo" }
]]

local function replaced(from, to)
  local at, stop = BASE:find(from, 1, true)
  return BASE:sub(1, at - 1) .. to .. BASE:sub(stop + 1)
end

describe("check --diff", function()
  local gateway
  setup(function()
    h.open(function() gateway = h.gateway { config = BASE } end)
  end)
  teardown(function() h.close() end)

  local function ask(text, ...)
    return gateway:ask("check", h.write_file(text), "--diff", ...)
  end

  local function found(text)
    local answer = ask(text, "--json")
    assert.equal(3, answer.code, answer.stderr)
    return assert(cjson.decode(answer.stdout))
  end

  it("finds no difference where there is none, wherever the file lies", h.test(function()
    local answer = ask("-- a comment\n\n" .. BASE)
    assert.equal(0, answer.code, answer.stdout .. answer.stderr)
    assert.is_not_nil(answer.stdout:find "fine, no difference from configuration 1")
    answer = ask(BASE, "--json")
    assert.equal(0, answer.code)
    assert.same({}, cjson.decode(answer.stdout).changed)
  end))

  it("names objects that come and go", h.test(function()
    local answer = ask(replaced('name = "users", path', 'name = "people", path'))
    assert.equal(3, answer.code, answer.stderr)
    assert.is_not_nil(answer.stdout:find('- route "users"\n', 1, true), answer.stdout)
    assert.is_not_nil(answer.stdout:find '\n%+ route "people" %(%S+gateway.lua:6%)\n')
    local view = found(BASE .. 'moongate.route { path = "/v.*", backends = "echo" }\n')
    assert.same({ { kind = "route", name = "/v.*", line = 9 } }, view.added)
    assert.same({}, view.removed)
    assert.same({}, view.changed)
  end))

  it("names the key paths that change, with old and new", h.test(function()
    local view = found(replaced("response = 10", 'response = 20, connect = 1'))
    assert.same({ { kind = "settings", name = "", line = 2, keys = {
      { path = "timeouts.connect", new = 1 }, { path = "timeouts.response", old = 10, new = 20 },
    } } }, view.changed)
    view = found(replaced("weight = 2", "weight = 3"))
    assert.same({ { path = "endpoints[2].weight", old = 2, new = 3 } }, view.changed[1].keys)
    local answer = ask(replaced('{ "127.0.0.1:8001", weight = 2 }', '"127.0.0.1:8001"'))
    assert.is_not_nil(answer.stdout:find('~ upstream "users"', 1, true), answer.stdout)
    assert.is_not_nil(answer.stdout:find('endpoints[2]: {"1":"127.0.0.1:8001","weight":2} -> "127.0.0.1:8001"', 1, true),
      answer.stdout)
    answer = ask(replaced("timeouts = { response = 10 }", "trusted_hops = 1"))
    assert.is_not_nil(answer.stdout:find("    trusted_hops: (none) -> 1\n", 1, true), answer.stdout)
    assert.is_not_nil(answer.stdout:find('    timeouts: {"response":10} -> (none)\n', 1, true), answer.stdout)
  end))

  it("sees another order of routes", h.test(function()
    local line = 'moongate.route { path = { regex = "/v.*" }, backends = "echo" }\n'
    local text = BASE:sub(1, -#line - 1):gsub("(moongate.route { name)", line:gsub("%%", "%%%%") .. "%1")
    local view = found(text)
    assert.is_true(view.reordered)
    assert.same({}, view.changed)
    assert.is_not_nil(ask(text).stdout:find "the order of routes")
  end))

  it("says what is wrong with the file", h.test(function()
    local answer = ask(BASE .. "moongate.listener { prot = 1 }\n")
    assert.equal(1, answer.code)
    assert.is_not_nil(answer.stderr:find "gateway.lua:9: .*prot")
    answer = ask("nothing()", "--json")
    assert.equal(1, answer.code)
    assert.equal(1, cjson.decode(answer.stdout).problems[1].line)
  end))

  it("without a gateway says so", h.test(function()
    local answer = h.exec { "check", h.write_file(BASE), "--diff", "--admin", "/nonexistent/moongate.sock" }
    assert.equal(1, answer.code)
    assert.is_not_nil(answer.stderr:find "no gateway answers at /nonexistent/moongate.sock")
  end))

  it("is empty again after a reload", h.test(function()
    local own = h.gateway { config = BASE }
    local text = replaced("response = 10", "response = 20")
    own:rewrite(text)
    assert.equal(3, own:ask("check", own.path, "--diff").code)
    assert.equal(0, own:ask("reload").code)
    local answer = own:ask("check", own.path, "--diff")
    assert.equal(0, answer.code, answer.stdout)
    assert.is_not_nil(answer.stdout:find "configuration 2")
  end))
end)
