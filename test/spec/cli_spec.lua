-- What all commands have in common: --help, --json, and that the shell's completion knows their options.
local h = require "test.support.harness"
local cjson = require "cjson.safe"

local function commands()
  local result = h.exec { "help", "--json" }
  assert.equal(0, result.code, result.stderr)
  local list = assert(cjson.decode(result.stdout)).commands
  assert.is_true(#list >= 8)
  return list
end

local function completion()
  local file = assert(io.open "cmake/package/moongate.bash")
  local text = file:read "*a"
  file:close()
  return text
end

describe("every command", function()
  it("says what it does", h.test(function()
    for _, command in ipairs(commands()) do
      assert.is_true(#command.help > 20, command.name)
      if command.name ~= "help" then
        local result = h.exec { command.name, "--help" }
        assert.equal(0, result.code)
        assert.equal("usage: " .. command.usage .. "\n\n" .. command.help .. "\n", result.stdout)
        for line in result.stdout:gmatch "[^\n]+" do assert.is_true(#line <= 100, line) end
      end
    end
  end))

  it("but run prints JSON when asked to", h.test(function()
    for _, command in ipairs(commands()) do
      assert.equal(command.name ~= "run", command.usage:find("--json", 1, true) ~= nil, command.name)
    end
    local gateway = h.gateway { upstreams = { backend = { "builtin:echo" } } }
    for _, arguments in ipairs {
      { "check", gateway.path }, { "check", gateway.path, "--diff" }, { "explain", "GET", "http://h.example/" },
      { "reload" }, { "connections" }, { "top", "--count", "1", "--interval", "0.1" }, { "drain" },
    } do
      arguments[#arguments + 1] = "--json"
      local result = gateway:ask(unpack(arguments))
      assert.equal(0, result.code, result.stderr)
      assert.is_table(cjson.decode(result.stdout), arguments[1])
    end
    gateway:wait_exit()
    assert.is_string(cjson.decode(h.exec({ "version", "--json" }).stdout).version)
  end))

  it("explains with as many headers as are given", h.test(function()
    local path = h.write_file [[
local moongate = require "moongate"
moongate.listener { port = 8080 }
moongate.upstream { name = "both", endpoints = { "builtin:echo" } }
moongate.upstream { name = "one", endpoints = { "builtin:echo" } }
moongate.route { path = "/", backends = "one" }
moongate.route { path = "/", headers = { ["x-a"] = "1", ["x-b"] = "2" }, backends = "both" }
]]
    local function upstream(...)
      local result = h.exec { "explain", "GET", "http://h.example/", "--config", path, ... }
      assert.equal(0, result.code, result.stderr)
      return result.stdout:match "upstream%s+(%w+)"
    end
    assert.equal("both", upstream("--header", "x-a: 1", "--header", "x-b: 2"))
    assert.equal("both", upstream("--header=x-b: 2", "--header=x-a: 1"))
    assert.equal("one", upstream("--header", "x-a: 1"))
  end))

  it("takes an option that is given twice, or a value that is none's, for a mistake", h.test(function()
    for arguments, message in pairs {
      [{ "reload", "--control", "/tmp/a", "--control", "/tmp/b" }] = "--control is given twice",
      [{ "reload", "--json=yes" }] = "--json takes no value",
    } do
      local result = h.exec(arguments)
      assert.equal(2, result.code)
      assert.is_not_nil(result.stderr:find(message, 1, true), result.stderr)
    end
  end))

  it("explains a broken file in JSON, too", h.test(function()
    local path = h.write_file "nothing()\n"
    local result = h.exec { "explain", "GET", "http://h.example/", "--config", path, "--json" }
    assert.equal(1, result.code)
    assert.equal(1, cjson.decode(result.stdout).problems[1].line)
  end))

  it("is completed with its options", h.test(function()
    local text = completion()
    local words = " " .. text:match '%-W "(run [^"]*)"' .. " "
    for _, command in ipairs(commands()) do
      assert.is_not_nil(words:find(" " .. command.name .. " ", 1, true), command.name)
      local line
      for names, rest in text:gmatch "\n        ([%w |]+)%) mapfile([^\n]*)" do
        if (" " .. names .. " "):find(" " .. command.name .. " ", 1, true) and rest:find("--help", 1, true) then line = rest end
      end
      assert.is_string(line, command.name)
      for option in command.usage:gmatch "%-%-%l+" do
        assert.is_not_nil(line:find(option .. " ", 1, true), command.name .. " " .. option)
      end
    end
  end))

  it("keeps text outside ASCII as it is in JSON", h.test(function()
    local path = h.write_file 'require("moongate").listener { prot = 1, ["größe"] = 1 }\n'
    local result = h.exec { "check", path, "--json" }
    assert.is_not_nil(result.stdout:find("größe", 1, true), result.stdout)
  end))
end)
