--- moongate explain METHOD URL: which listener, route, plugins and upstream a request would meet, and why.

local control = require "moongate.cli.control"
local gateway = require "moongate._core.gateway"
local json = require "moongate.cli.json"

local command = {
  usage = "usage: moongate explain METHOD URL [--config FILE] [--header NAME:VALUE] "
    .. "[--control PATH] [--json]",
  help = [[
Says which listener, route, plugins and upstream a request would meet, and why none if none: of
the running gateway, or with --config of a script before it is live. --header may be given several
times. No request is sent. Exit code 0: a route matches, 1: none does.]],
  options = {
    config = { value = "text" }, header = { value = "text", repeats = true }, json = {},
    control = control.option, admin = control.option,
  },
}

local function query_of(parsed)
  local parts = {
    "method=" .. control.escape(parsed[1]:upper()), "url=" .. control.escape(parsed[2]),
  }
  for _, header in ipairs(parsed.header or {}) do
    parts[#parts + 1] = "header=" .. control.escape(header)
  end
  return table.concat(parts, "&")
end

-- From a file, or from the gateway that runs. The answer and its JSON; or nil, what is wrong, and the file's problems.
local function ask(parsed)
  local query = query_of(parsed)
  if not parsed.config then
    return control.ask(control.path(parsed), "GET", "/explain?" .. query)
  end
  local text, problems, report = gateway.explain({ file = parsed.config }, query)
  if not text then
    return nil, report, problems
  end
  local answer, err = control.decode(text)
  return answer, answer and text or err
end

local function line(name, value)
  if value and value ~= "" then
    print(("%-10s %s"):format(name, value))
  end
end

local function listed(items, format)
  local out = {}
  for i, item in ipairs(items or {}) do out[i] = format(item) end
  return table.concat(out, ", ")
end

local function endpoint_text(endpoint)
  return ("%s (weight %d)"):format(endpoint.address, endpoint.weight)
end

local function listener_text(listener)
  local hostname = listener.hostname and ", " .. listener.hostname or ""
  return ("%s (%s%s)"):format(listener.address, listener.name, hostname)
end

local function print_answer(answer)
  if not answer.matched then
    line("answer", ("%d: %s"):format(answer.status, answer.reason))
  end
  line("listener", listed(answer.listeners, listener_text))
  if not answer.matched then
    line("plugins", listed(answer.plugins, tostring))
    return
  end
  line("path", answer.path)
  line("route", ("%s (%s:%d)"):format(answer.route.name, answer.route.file, answer.route.line))
  line("plugins", listed(answer.plugins, tostring))
  for _, upstream in ipairs(answer.upstreams or {}) do
    local weight = upstream.weight and (" (weight %d)"):format(upstream.weight) or ""
    line("upstream", upstream.name .. weight)
    line("endpoints", upstream.builtin and "builtin:" .. upstream.builtin
      or upstream.original and "original:dst" or listed(upstream.endpoints, endpoint_text))
  end
end

---@param parsed table
---@return integer code 0: a route matches
function command.run(parsed)
  if #parsed ~= 2 then
    io.stderr:write(command.usage, "\n")
    return 2
  end
  if not parsed[2]:find "^%a+://" then
    io.stderr:write(("moongate: %q is not a URL; expected http://host/path\n"):format(parsed[2]))
    return 2
  end
  local answer, text, problems = ask(parsed)
  if not answer and parsed.json and type(problems) == "table" then
    print(json.encode { file = parsed.config, fine = false, problems = problems })
    return 1
  elseif not answer then
    io.stderr:write(text, text:sub(-1) == "\n" and "" or "\n")
    return 1
  end
  if parsed.json then
    io.stdout:write(text)
  else
    print_answer(answer)
  end
  return answer.matched and 0 or 1
end

return command
