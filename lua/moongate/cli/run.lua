--- moongate run FILE: serves until it is told to stop.

local gateway = require "moongate._core.gateway"

local command = {
  usage = "usage: moongate run FILE [--workers N] [--admin ADDRESS:PORT]",
  options = { workers = { value = "count" }, admin = { value = "text" } },
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
  }
  io.stderr:write(text)
  return is_fine and 0 or 1
end

return command
