-- The command line: check, version, and what run says when it cannot.
local h = require "test.support.harness"

local function exec(...)
  return h.exec { ... }
end

local function check(text)
  local path = h.write_file(text)
  local result = exec("check", path)
  result.all = result.stdout .. result.stderr
  return result
end

local GOOD = [[
local moongate = require "moongate"
moongate.listener { port = 8080 }
moongate.upstream { name = "users", endpoints = { "127.0.0.1:8000", { "127.0.0.1:8001", weight = 2 } } }
moongate.route { path = "/", backends = "users" }
]]

-- name, text, patterns that the message must have
local BAD = {
  { "a syntax error", 'local moongate = require "moongate"\nmoongate.listener {\n', { "gateway%.lua:%d+" } },
  { "a runtime error", 'local moongate = require "moongate"\nlocal x = nil\nprint(x.y)\n', { "gateway%.lua:3" } },
  { "an unknown key", GOOD .. 'moongate.listener { prot = 8081 }\n', { "gateway%.lua:5", "prot", "port" } },
  { "an unknown key of a route", GOOD .. '\nmoongate.route { path = "/x", backend = "users" }\n',
    { "gateway%.lua:6", "backend", "backends" } },
  { "a wrong type", GOOD .. 'moongate.listener { port = "eighty" }\n', { "gateway%.lua:5", "port", "eighty" } },
  { "a port out of range", GOOD .. "moongate.listener { port = 70000 }\n", { "gateway%.lua:5", "port", "70000" } },
  { "an unknown upstream", GOOD .. 'moongate.route { path = "/x", backends = "user" }\n',
    { "gateway%.lua:5", '"user"', "users" } },
  { "two upstreams of one name", GOOD .. 'moongate.upstream { name = "users", endpoints = { "127.0.0.1:1" } }\n',
    { "gateway%.lua:5", "users" } },
  { "a bad endpoint", GOOD .. 'moongate.upstream { name = "x", endpoints = { "127.0.0.1:99999" } }\n',
    { "gateway%.lua:5", "99999" } },
  { "an endpoint without a port", GOOD .. 'moongate.upstream { name = "x", endpoints = { "127.0.0.1" } }\n',
    { "gateway%.lua:5", "127%.0%.0%.1" } },
  { "a negative weight", GOOD .. 'moongate.upstream { name = "x", endpoints = { { "127.0.0.1:1", weight = -1 } } }\n',
    { "gateway%.lua:5", "weight" } },
  { "a path without a slash", GOOD .. 'moongate.route { path = "x", backends = "users" }\n', { "gateway%.lua:5", "path" } },
  { "an unknown setting", GOOD .. "moongate.settings { timeouts = { conect = 1 } }\n",
    { "gateway%.lua:5", "conect", "connect" } },
  { "a setting of the wrong type", GOOD .. 'moongate.settings { workers = "many" }\n', { "gateway%.lua:5", "workers" } },
  { "an upstream without a name", GOOD .. 'moongate.upstream { endpoints = { "127.0.0.1:1" } }\n', { "gateway%.lua:5", "name" } },
  { "a route without backends", GOOD .. 'moongate.route { path = "/x" }\n', { "gateway%.lua:5" } },
  { "a wildcard in the middle", GOOD .. 'moongate.route { hosts = { "a.example", "a.*.example" }, backends = "users" }\n',
    { "gateway%.lua:5", "hosts%[2%]", "a%.%*%.example", "leftmost label" } },
  { "a host with a port", GOOD .. 'moongate.route { hosts = { "a.example:80" }, backends = "users" }\n',
    { "gateway%.lua:5", "hosts%[1%]", "without a port" } },
  { "a host that is none", GOOD .. 'moongate.route { hosts = { "a_b.example/x" }, backends = "users" }\n',
    { "gateway%.lua:5", "hosts%[1%]", "without a scheme" } },
  { "an empty list of hosts", GOOD .. 'moongate.route { hosts = {}, backends = "users" }\n',
    { "gateway%.lua:5", "hosts", "empty list", "leave hosts out" } },
  { "an empty list of methods", GOOD .. 'moongate.route { path = "/x", methods = {}, backends = "users" }\n',
    { "gateway%.lua:5", "methods", "empty list" } },
  { "a method in lower case", GOOD .. 'moongate.route { path = "/x", methods = { "GET", "post" }, backends = "users" }\n',
    { "gateway%.lua:5", "methods%[2%]", '"post"', '"POST"' } },
  { "an unknown method", GOOD .. 'moongate.route { path = "/x", methods = { "PATHC" }, backends = "users" }\n',
    { "gateway%.lua:5", "methods%[1%]", '"PATHC"', '"PATCH"' } },
  { "a regex with a mistake", GOOD .. 'moongate.route { path = { regex = "/v[0-9" }, backends = "users" }\n',
    { "gateway%.lua:5", "path%.regex", "/v%[0%-9", "offset 6" } },
  { "a regex of a header with a mistake", GOOD .. 'moongate.route { headers = { ["x-v"] = { regex = "a)" } }, backends = "users" }\n',
    { "gateway%.lua:5", "headers%.x%-v%.regex", "offset 1" } },
  { "a regex of a query parameter with a mistake", GOOD
    .. 'moongate.route { matches = { { path = "/x" }, { query = { v = { regex = "*" } } } }, backends = "users" }\n',
    { "gateway%.lua:5", "matches%[2%]%.query%.v%.regex", "offset 0" } },
  { "a path that is not canonical", GOOD .. 'moongate.route { path = { exact = "/a/../b" }, backends = "users" }\n',
    { "gateway%.lua:5", "path%.exact", "/a/%.%./b", '"/b"' } },
  { "a path that is two things", GOOD .. 'moongate.route { path = { exact = "/a", regex = "/b" }, backends = "users" }\n',
    { "gateway%.lua:5", "path", "not both" } },
  { "a misspelt kind of path", GOOD .. 'moongate.route { path = { regexp = "/b" }, backends = "users" }\n',
    { "gateway%.lua:5", "path%.regexp", "regex" } },
  { "a header named in two cases", GOOD .. 'moongate.route { headers = { ["X-A"] = "1", ["x-a"] = "2" }, backends = "users" }\n',
    { "gateway%.lua:5", "headers%.x%-a", "twice" } },
  { "a header that is a number", GOOD .. 'moongate.route { headers = { ["x-a"] = 1 }, backends = "users" }\n',
    { "gateway%.lua:5", "headers%.x%-a", "found 1", "a text" } },
  { "a path beside matches", GOOD .. 'moongate.route { path = "/x", matches = { { path = "/y" } }, backends = "users" }\n',
    { "gateway%.lua:5", "path", "each of the matches" } },
  { "a match that is there already", GOOD .. 'moongate.route { name = "again", path = "/", backends = "users" }\n',
    { "gateway%.lua:5", "again", "line 4" } },
  { "two routes of one name", GOOD .. 'moongate.route { name = "/", path = "/x", backends = "users" }\n',
    { "gateway%.lua:5", "name", "line 4" } },
  { "a module that is nowhere", GOOD .. 'require "lib.keys"\n',
    { "gateway%.lua:5: module 'lib%.keys' not found; looked for [^\n]-/lib/keys%.lua, [^\n]-/lib/keys/init%.lua" } },
  { "moongate without its require", "moongate.listener { port = 8080 }\n",
    { "gateway%.lua:1", 'write local moongate = require "moongate" first' } },
  { "no table", GOOD .. "moongate.listener(8080)\n", { "gateway%.lua:5" } },
  { "an unknown noun", GOOD .. 'moongate.lisener { port = 8080 }\n', { "gateway%.lua:5", "lisener" } },
}

describe("moongate check", function()
  it("is content with a good file", h.test(function()
    local result = check(GOOD)
    assert.equal(0, result.code, result.all)
    assert.is_nil(result.all:find("error", 1, true))
  end))

  for _, case in ipairs(BAD) do
    it("names " .. case[1] .. " with its place and a hint", h.test(function()
      local result = check(case[2])
      assert.equal(1, result.code, result.all)
      for _, pattern in ipairs(case[3]) do
        assert.is_not_nil(result.all:find(pattern), ("no %s in:\n%s"):format(pattern, result.all))
      end
      assert.is_nil(result.all:find("stack traceback", 1, true), result.all)
    end))
  end

  it("tells all errors of a file, not only the first", h.test(function()
    local result = check(GOOD .. 'moongate.listener { prot = 1 }\nmoongate.route { path = "/x", backends = "nobody" }\n')
    assert.equal(1, result.code)
    assert.is_not_nil(result.all:find "gateway%.lua:5", result.all)
    assert.is_not_nil(result.all:find "gateway%.lua:6", result.all)
  end))

  it("tells of a broken listener, and not what would be wrong with routes without it", h.test(function()
    local result = check [[
local moongate = require "moongate"
moongate.listener { name = "web", port = 1, protocol = "https", tls = { certificates = { { cert = "none.crt", key = "none.key" } } } }
moongate.listener { name = "raw", port = 2, protocol = "tcp" }
moongate.listener { name = "more", port = 3, protocol = "tcp" }
moongate.upstream { name = "b", endpoints = { "127.0.0.1:1" } }
moongate.route { path = "/", backends = "b" }
moongate.route { listeners = { "raw" }, backends = "b", preread = function() end }
moongate.route { listeners = { "more" }, backends = "b" }
]]
    assert.equal(1, result.code)
    assert.is_not_nil(result.all:find("none.crt", 1, true), result.all)
    local _, count = result.all:gsub("gateway%.lua:%d", "")
    assert.equal(1, count, result.all)
  end))

  it("says which file is missing", h.test(function()
    local result = exec("check", "/nonexistent/gateway.lua")
    assert.equal(1, result.code)
    assert.is_not_nil((result.stdout .. result.stderr):find("/nonexistent/gateway.lua", 1, true))
  end))

  it("reads a pipe as it reads a file", h.test(function()
    local long = GOOD .. ("-- a comment\n"):rep(5000) -- more than a pipe holds, and than is read at once
    local path = h.write_file(long)
    local result = h.exec_program("/bin/sh", { "-c", ("cat %s | %s check /dev/stdin"):format(path, os.getenv "MOONGATE_BIN") })
    assert.equal(0, result.code, result.output)
    assert.is_not_nil(result.output:find "fine %(1 listener, 1 upstream, 1 route%)")
    assert.is_not_nil(exec("check", "/dev/zero").stderr:find "cannot be read: file too large")
  end))

  it("opens no port", h.test(function()
    local blocker = h.backend()
    local result = check(GOOD:gsub("8080", tostring(blocker.port)))
    assert.equal(0, result.code, result.all)
  end))
end)

describe("the command line", function()
  it("tells its version", h.test(function()
    local result = exec "version"
    assert.equal(0, result.code)
    assert.is_not_nil(result.stdout:find "^moongate %d+%.%d+%.%d+")
  end))

  it("without a command says what there is, and fails", h.test(function()
    local result = h.exec {}
    assert.is_not_equal(0, result.code)
    local all = result.stdout .. result.stderr
    for _, word in ipairs { "run", "check", "version" } do assert.is_not_nil(all:find(word, 1, true), all) end
  end))

  it("help is no failure", h.test(function()
    for _, word in ipairs { "--help", "help" } do
      local result = exec(word)
      assert.equal(0, result.code, word)
      assert.is_not_nil(result.stdout:find("check", 1, true))
    end
  end))

  it("an unknown command is named", h.test(function()
    local result = exec "chekc"
    assert.is_not_equal(0, result.code)
    assert.is_not_nil((result.stdout .. result.stderr):find("chekc", 1, true))
  end))

  it("an unknown option is named", h.test(function()
    local path = h.write_file(GOOD)
    local result = exec("run", path, "--wrkers", "2")
    assert.is_not_equal(0, result.code)
    assert.is_not_nil((result.stdout .. result.stderr):find("--wrkers", 1, true))
  end))

  it("an option without its value is named", h.test(function()
    local path = h.write_file(GOOD)
    local result = exec("run", path, "--workers")
    assert.is_not_equal(0, result.code)
    assert.is_not_nil((result.stdout .. result.stderr):find("--workers", 1, true))
  end))

  it("run refuses a bad file with the same message", h.test(function()
    local path = h.write_file(GOOD .. "moongate.listener { prot = 1 }\n")
    local result = exec("run", path)
    assert.equal(1, result.code)
    assert.is_not_nil(result.stderr:find "gateway%.lua:5")
  end))

  it("run on a port in use says which, and fails", h.test(function()
    local blocker = h.backend()
    local path = h.write_file((GOOD:gsub("port = 8080", 'address = "127.0.0.1", port = ' .. blocker.port)))
    local result = exec("run", path)
    assert.equal(1, result.code, result.stderr)
    assert.is_not_nil(result.stderr:find(tostring(blocker.port), 1, true), result.stderr)
    assert.is_not_nil(result.stderr:find "in use", result.stderr)
  end))

  it("a second gateway on the same port is refused", h.test(function()
    local first = h.gateway { backend = h.backend() }
    local path = h.write_file((GOOD:gsub("port = 8080", 'address = "127.0.0.1", port = ' .. first.port)))
    local result = exec("run", path)
    assert.equal(1, result.code, result.stderr)
    assert.is_not_nil(result.stderr:find "in use", result.stderr)
    assert.equal(200, first:get("/").status)
  end))
end)
