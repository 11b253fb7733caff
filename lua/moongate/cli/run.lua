--- moongate run FILE: serves until it is told to stop.

local control = require "moongate.cli.control"
local gateway = require "moongate._core.gateway"

local command = {
  usage = "usage: moongate run FILE [--workers N] [--admin ADDRESS:PORT] [--control PATH]",
  help = [[
Serves what the script FILE describes until SIGTERM or Ctrl-C, which drains; twice stops at once.
SIGHUP reloads, SIGUSR1 reopens the access log. --workers overrides settings.workers; --admin
opens a port for /metrics, /healthz and /readyz; --control names the socket that the other
commands ask.]],
  options = {
    workers = { value = "count" }, admin = { value = "text" }, control = { value = "text" },
  },
}

---@param parsed table
---@return integer code
function command.run(parsed)
  if #parsed ~= 1 then
    io.stderr:write(command.usage, "\n")
    return 2
  end
  local is_fine, _, text = gateway.run {
    file = parsed[1], workers = parsed.workers, admin = parsed.admin,
    control = parsed.control or control.default_path(),
  }
  io.stderr:write(text)
  return is_fine and 0 or 1
end

return command
