--- moongate connections: what the client connections of a running gateway do.

local control = require "moongate.cli.control"

local command = {
  usage = "usage: moongate connections [--control PATH] [--limit N] [--json]",
  help = [[
Lists client connections of a running gateway: state (idle, head, exchange, tunnel, ending), age,
requests begun, client, listener, and the route, upstream and endpoint of the request under way.
At most --limit (100) of them, shared out among the workers: those with a request first, then
tunnels, then idle ones, the oldest first.]],
  options = {
    control = control.option, admin = control.option, limit = { value = "count", max = 1000 },
    json = {},
  },
}

local COLUMNS = {
  "id", "state", "age", "requests", "client", "listener", "route", "upstream", "endpoint",
}

-- Names come from a configuration: nothing in them moves the cursor. JSON's null is no text either.
local function shown(value)
  local kind = type(value)
  return (kind == "string" or kind == "number") and tostring(value):gsub("%c", "?") or "-"
end

local function age(ms)
  local seconds = ms / 1000
  if seconds < 60 then
    return ("%.1fs"):format(seconds)
  end
  return seconds < 3600 and ("%dm%02ds"):format(seconds / 60, seconds % 60)
    or ("%dh%02dm"):format(seconds / 3600, seconds % 3600 / 60)
end

local function print_table(rows)
  local widths = {}
  for column, name in ipairs(COLUMNS) do
    widths[column] = #name
    for _, row in ipairs(rows) do widths[column] = math.max(widths[column], #row[column]) end
  end
  local function print_row(cells)
    local out = {}
    for column, cell in ipairs(cells) do
      out[column] = column < #COLUMNS and cell .. (" "):rep(widths[column] - #cell) or cell
    end
    print(table.concat(out, "  "))
  end
  print_row(COLUMNS)
  for _, row in ipairs(rows) do print_row(row) end
end

local function print_answer(answer)
  local rows, total = {}, 0
  for i, connection in ipairs(answer.connections) do
    rows[i] = {}
    connection.age = age(connection.age_ms)
    for column, name in ipairs(COLUMNS) do rows[i][column] = shown(connection[name]) end
  end
  for _, worker in ipairs(answer.workers) do total = total + worker.downstream + worker.tunnels end
  print_table(rows)
  if total > #rows then
    print(("%d of %d; --limit shows more"):format(#rows, total))
  end
  for _, worker in ipairs(answer.missing) do
    io.stderr:write(("moongate: worker %d does not answer\n"):format(worker))
  end
end

---@param parsed table
---@return integer code
function command.run(parsed)
  local target = "/connections" .. (parsed.limit and "?limit=" .. parsed.limit or "")
  local answer, text = control.ask(control.path(parsed), "GET", target)
  if not answer then
    io.stderr:write("moongate: ", text, "\n")
    return 1
  end
  if parsed.json then
    io.stdout:write(text)
  else
    print_answer(answer)
  end
  return #answer.missing == 0 and 0 or 1
end

return command
