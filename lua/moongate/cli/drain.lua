--- moongate drain: a running gateway finishes what is under way and stops.

local control = require "moongate.cli.control"

local command = {
  usage = "usage: moongate drain [--control PATH] [--json]",
  help = [[
Tells a running gateway to take no more connections, to finish the exchanges that are under way
(settings timeouts.drain bounds how long) and to stop. Returns at once; a second SIGTERM or SIGINT
to the gateway ends it sooner.]],
  options = { control = control.option, admin = control.option, json = {} },
}

---@param parsed table
---@return integer code
function command.run(parsed)
  local answer, text = control.ask(control.path(parsed), "POST", "/drain")
  if not answer then
    io.stderr:write("moongate: ", text, "\n")
    return 1
  end
  io.stdout:write(parsed.json and text or "draining\n")
  return 0
end

return command
