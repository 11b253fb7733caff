--- moongate top: requests, errors and latencies by route and upstream, from what two readings of /metrics differ by.

local control = require "moongate.cli.control"
local gateway = require "moongate._core.gateway"
local json = require "moongate.cli.json"
local scrape = require "moongate.cli.scrape"

local ROWS_MAX, NAME_MAX, NAME_MIN = 20, 48, 12

local command = {
  usage = "usage: moongate top [--control PATH] [--interval SECONDS] [--count N] [--json]",
  help = [[
Shows what a running gateway does, anew every --interval (2) seconds: requests and errors (answers
of 5xx) a second, and the latencies that half (p50) and 99 of 100 (p99) of the requests stay
below, by route and by upstream, the busiest first. On a terminal it redraws in place, elsewhere
it appends; --json prints one object a refresh, with every route. --count ends it after so many
refreshes, else Ctrl-C does.]],
  options = {
    control = control.option, admin = control.option, interval = { value = "seconds" },
    count = { value = "count", max = 1000000 }, json = {},
  },
}

-- { status, metrics } of now.
local function read(parsed)
  local status, err = control.ask(control.path(parsed), "GET", "/status")
  if not status then
    return nil, err
  end
  local text, code = control.ask_raw(control.path(parsed), "GET", "/metrics")
  if not text then
    return nil, code
  elseif code ~= 200 then
    return nil, ("/metrics answers %d"):format(code)
  end
  return { status = status, metrics = scrape.read(text) }
end

local function rounded(number)
  return number and tonumber(("%.3f"):format(number))
end

local function milliseconds(seconds)
  return seconds and rounded(seconds * 1000)
end

local function row_of(name, before, after, seconds)
  local requests = after.requests - (before and before.requests or 0)
  local errors = after.errors - (before and before.errors or 0)
  return {
    name = name,
    requests_per_second = rounded(requests / seconds),
    errors_per_second = rounded(errors / seconds),
    error_percent = requests > 0 and rounded(100 * errors / requests) or 0,
    p50_ms = milliseconds(scrape.quantile(before, after, 0.5)),
    p99_ms = milliseconds(scrape.quantile(before, after, 0.99)),
  }
end

local function is_busier(a, b)
  if a.requests_per_second ~= b.requests_per_second then
    return a.requests_per_second > b.requests_per_second
  end
  return a.name < b.name
end

local function rows_of(before, after, seconds)
  local rows = {}
  for name, histogram in pairs(after) do
    rows[#rows + 1] = row_of(name, before[name], histogram, seconds)
  end
  table.sort(rows, is_busier)
  return rows
end

local function total(rows, key)
  local sum = 0
  for _, row in ipairs(rows) do sum = sum + row[key] end
  return rounded(sum)
end

-- A gateway that has started meanwhile counts from zero.
local function compare(before, after, interval)
  local seconds = (after.status.uptime_ms - before.status.uptime_ms) / 1000
  local earlier = before.metrics
  if seconds < 0 then
    seconds, earlier = after.status.uptime_ms / 1000, { routes = {}, upstreams = {} }
  end
  seconds = seconds > 0 and seconds or interval
  local routes = rows_of(earlier.routes, after.metrics.routes, seconds)
  local upstreams = rows_of(earlier.upstreams, after.metrics.upstreams, seconds)
  for i = #upstreams, 1, -1 do
    if upstreams[i].name == "" then -- what no upstream was asked for
      table.remove(upstreams, i)
    end
  end
  local requests, errors = total(routes, "requests_per_second"), total(routes, "errors_per_second")
  return {
    generation = after.status.generation, workers = after.status.workers,
    connections = after.metrics.connections, seconds = rounded(seconds),
    requests_per_second = requests, errors_per_second = errors,
    error_percent = requests > 0 and rounded(100 * errors / requests) or 0,
    routes = routes, upstreams = upstreams,
  }
end

-- Names come from a configuration: nothing in them moves the cursor.
local function shown(name)
  name = (name == "" and "(no route)" or name):gsub("%c", "?")
  return #name > NAME_MAX and name:sub(1, NAME_MAX - 2) .. ".." or name
end

local function latency(ms)
  return ms and ("%.1f"):format(ms) or "-"
end

local function add_table(lines, title, rows)
  local width = NAME_MIN
  for i = 1, math.min(#rows, ROWS_MAX) do width = math.max(width, #shown(rows[i].name)) end
  local format = "%-" .. width .. "s %11s %11s %8s %10s %10s"
  lines[#lines + 1] = ""
  lines[#lines + 1] = format:format(title, "requests/s", "errors/s", "errors", "p50 ms", "p99 ms")
  for i = 1, math.min(#rows, ROWS_MAX) do
    local row = rows[i]
    lines[#lines + 1] = format:format(shown(row.name), ("%.1f"):format(row.requests_per_second),
      ("%.1f"):format(row.errors_per_second), ("%.1f%%"):format(row.error_percent),
      latency(row.p50_ms), latency(row.p99_ms))
  end
  if #rows > ROWS_MAX then
    lines[#lines + 1] = ("and %d more"):format(#rows - ROWS_MAX)
  elseif #rows == 0 then
    lines[#lines + 1] = "none yet"
  end
end

local function lines_of(view)
  local lines = {
    ("generation %d, %d worker%s, %d connection%s, %.1f requests/s, %.1f errors/s (%.1f%%)"):format(
      view.generation, view.workers, view.workers == 1 and "" or "s", view.connections,
      view.connections == 1 and "" or "s", view.requests_per_second, view.errors_per_second,
      view.error_percent),
  }
  add_table(lines, "route", view.routes)
  add_table(lines, "upstream", view.upstreams)
  return lines
end

-- False: nobody reads any more.
local function show(view, is_json, is_terminal)
  local text
  if is_json then
    text = json.encode(view) .. "\n"
  elseif is_terminal then -- from the top, each line cleared behind its text, then what is left below
    text = "\27[H" .. table.concat(lines_of(view), "\27[K\n") .. "\27[K\n\27[J"
  else
    text = table.concat(lines_of(view), "\n") .. "\n\n"
  end
  return io.stdout:write(text) and io.stdout:flush()
end

---@param parsed table
---@return integer code
function command.run(parsed)
  local interval = parsed.interval or 2
  local is_terminal = not parsed.json and gateway.is_terminal()
  local before, err = read(parsed)
  if before and is_terminal then
    io.stdout:write "\27[2J"
  end
  local shown_count = 0
  while before and shown_count ~= parsed.count do
    gateway.sleep(interval)
    local after
    after, err = read(parsed)
    if after and not show(compare(before, after, interval), parsed.json, is_terminal) then
      return 0
    end
    before, shown_count = after, shown_count + 1
  end
  if not before then
    io.stderr:write("moongate: ", err, "\n")
    return 1
  end
  return 0
end

return command
