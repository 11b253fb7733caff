--- moongate version: which version this is, and of what it is made.

local gateway = require "moongate._core.gateway"
local json = require "moongate.cli.json"

local command = {
  usage = "usage: moongate version [--json]",
  help = [[
Prints the version of this program and of the libraries in it.]],
  options = { json = {} },
}

---@param parsed table
---@return integer code
function command.run(parsed)
  if parsed.json then
    print(json.encode { version = gateway.version, luajit = gateway.luajit, libuv = gateway.libuv })
  else
    print(("moongate %s (%s, libuv %s)"):format(gateway.version, gateway.luajit, gateway.libuv))
  end
  return 0
end

return command
