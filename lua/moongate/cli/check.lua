--- moongate check FILE: what is wrong with a configuration, where, and what would be right.

local gateway = require "moongate._core.gateway"
local json = require "moongate.cli.json"

local function counted(count, noun)
  return ("%d %s%s"):format(count, noun, count == 1 and "" or "s")
end

local command = {
  usage = "usage: moongate check FILE [--json]",
  help = [[
Runs the script FILE and checks what it says, without opening a port: every problem with its line,
the key path and what would be right. Exit code 0: fine, 1: problems.]],
  options = { json = {} },
}

---@param parsed table
---@return integer code
function command.run(parsed)
  if #parsed ~= 1 then
    io.stderr:write(command.usage, "\n")
    return 2
  end
  local is_fine, problems, text, counts = gateway.check { file = parsed[1] }
  if parsed.json then
    print(json.encode { file = parsed[1], fine = is_fine, problems = problems })
  elseif is_fine then
    print(("%s: fine (%s, %s, %s)"):format(parsed[1], counted(counts.listeners, "listener"),
      counted(counts.upstreams, "upstream"), counted(counts.routes, "route")))
  else
    io.stderr:write(text)
  end
  return is_fine and 0 or 1
end

return command
