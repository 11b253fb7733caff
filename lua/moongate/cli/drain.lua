--- moongate drain: a running gateway finishes what is under way and stops.

local control = require "moongate.cli.control"

local command = {
  usage = "usage: moongate drain [--admin PATH] [--json]",
  options = { admin = control.option, json = {} },
}

---@param parsed table
---@return integer code
function command.run(parsed)
  local answer, text = control.ask(parsed.admin, "POST", "/drain")
  if not answer then
    io.stderr:write("moongate: ", text, "\n")
    return 1
  end
  io.stdout:write(parsed.json and text or "draining\n")
  return 0
end

return command
