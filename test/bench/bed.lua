-- What every run stands on: its options, the cores, a directory, the child processes with their output, the load generator's
-- reports.
local process = require "process"

local bed = { build = "build-bench" }
bed.binary = os.getenv "MOONGATE_BIN" or bed.build .. "/moongate"

--- The first line that a shell command prints.
---@param text string
---@return string
function bed.command_line(text)
  local pipe = assert(io.popen(text))
  local line = pipe:read "*l"
  pipe:close()
  return line or ""
end

-- The cores of this process: the last for the proxy, the first for the rest.
local function cores()
  local list = {}
  for part in bed.command_line("taskset -cp $$"):match ": (.*)":gmatch "[^,]+" do
    local first, last = part:match "^(%d+)-?(%d*)$"
    for core = tonumber(first), tonumber(last ~= "" and last or first) do list[#list + 1] = core end
  end
  return list[#list], list[1]
end

bed.proxy_core, bed.load_core = cores()
bed.dir = bed.command_line "mktemp -d"

local outputs = {} -- of the processes that run, by pid
local spawn_count = 0

---@param arguments string[]
---@param core integer
---@return integer pid
function bed.spawn(arguments, core)
  spawn_count = spawn_count + 1
  local out = ("%s/out.%d"):format(bed.dir, spawn_count)
  local pid = process.start(arguments, core, out)
  outputs[pid] = out
  return pid
end

--- A number that no other call gives.
---@return integer
function bed.serial()
  spawn_count = spawn_count + 1
  return spawn_count
end

---@param pid integer
---@return string text what it has printed
function bed.output(pid)
  local file = assert(io.open(outputs[pid], "r"))
  local text = file:read "*a"
  file:close()
  return text
end

---@param pid integer
function bed.stop(pid)
  process.stop(pid)
  outputs[pid] = nil
end

function bed.stop_all()
  for pid in pairs(outputs) do process.stop(pid) end
  os.execute(("rm -rf '%s'"):format(bed.dir))
end

function bed.write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

function bed.start_backend(port)
  return bed.spawn({ bed.build .. "/bench/backend", port }, bed.load_core)
end

--- nghttpd, with files of the lengths that they are called by.
function bed.start_h2_backend(port)
  local root = bed.dir .. "/h2"
  os.execute(("mkdir -p '%s'"):format(root))
  bed.write(root .. "/128", ("x"):rep(128))
  return bed.spawn({ "nghttpd", "--no-tls", "--address=127.0.0.1", "-d", root, port }, bed.load_core)
end

-- ---- the command line

local program

function bed.fail(text)
  io.stderr:write(program, ": ", text, "\n")
  os.exit(2)
end

--- Reads the command line: --json, --list, --only NAME[,NAME] (any number of times), and numbers.
---@param name string the program's, before its errors
---@param usage string
---@param arguments string[]
---@param numbers table<string, number> what may be given, with its default
---@return table options also `only`, a set of names; empty: all
function bed.options(name, usage, arguments, numbers)
  local options = { only = {} }
  program = name
  for key, default in pairs(numbers) do options[key] = default end
  local i = 1
  while i <= #arguments do
    local key, value = arguments[i]:match "^%-%-(%l+)$", arguments[i + 1]
    if key == "json" or key == "list" then
      options[key] = true
      i = i - 1
    elseif key == "only" and value then
      for only in value:gmatch "[^,]+" do options.only[only] = true end
    elseif numbers[key or ""] and tonumber(value) then
      options[key] = tonumber(value)
    else
      bed.fail("usage: " .. usage)
    end
    i = i + 2
  end
  return options
end

--- The works that --only names, or all that have no group.
function bed.chosen(works, options)
  local out, all = {}, not next(options.only)
  for _, work in ipairs(works) do
    if all and not work.group or options.only[work.name] or work.group and options.only[work.group] then out[#out + 1] = work end
  end
  return out
end

--- Ends the program: lists the works, or runs main, which says whether all bars were met. Nothing started is left behind.
function bed.run(works, options, main)
  local ran, is_fine = true, true
  if options.list then
    for _, work in ipairs(works) do print(("%-10s %s"):format(work.name, work.title)) end
  else
    ran, is_fine = pcall(main)
  end
  bed.stop_all()
  if not ran then bed.fail(tostring(is_fine)) end
  os.exit(is_fine and 0 or 1)
end

-- ---- load

--- Starts the load generator against a proxy, { name, port, pid }.
---@param proxy table
---@param given table options of the generator
---@return integer pid
function bed.start_load(proxy, given)
  local arguments = { bed.build .. "/bench/load", proxy.port, "--pid", proxy.pid }
  for name, value in pairs(given) do
    arguments[#arguments + 1] = "--" .. name
    arguments[#arguments + 1] = value
  end
  return bed.spawn(arguments, bed.load_core)
end

--- Waits for a load's end. The report's numbers by name; `seen` by number of the marker: { count, first_ns, last_sent_ns }.
---@param proxy table
---@param pid integer
---@return table report
function bed.report_of(proxy, pid)
  local status = process.wait(pid)
  local text, report = bed.output(pid), { seen = {} }
  outputs[pid] = nil
  for name, value in text:gmatch '"([%w_]+)":([%d.]+)' do report[name] = tonumber(value) end
  for number, count, first, last in text:gmatch "%[(%d+),(%d+),(%d+),(%d+)%]" do
    report.seen[tonumber(number)] =
      { count = tonumber(count), first_ns = tonumber(first), last_sent_ns = tonumber(last) }
  end
  if status ~= 0 or not report.seconds then
    error(("%s: the load generator ended with %d and said: %s\nthe proxy said: %s"):format(
      proxy.name, status, text, bed.output(proxy.pid)), 0)
  end
  return report
end

-- ---- figures

function bed.median(values)
  local sorted = {}
  for i, value in ipairs(values) do sorted[i] = value end
  table.sort(sorted)
  local middle = math.floor((#sorted + 1) / 2)
  return #sorted % 2 == 1 and sorted[middle] or (sorted[middle] + sorted[middle + 1]) / 2
end

function bed.sorted_keys(of)
  local keys = {}
  for key in pairs(of) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

function bed.number(value)
  return (value < 10 and "%.2f" or value < 1000 and "%.1f" or "%.0f"):format(value)
end

function bed.json(value)
  if type(value) == "string" then return (("%q"):format(value):gsub("\\\n", "\\n")) end
  if type(value) ~= "table" then return tostring(value) end
  local parts = {}
  if #value > 0 then
    for i, item in ipairs(value) do parts[i] = bed.json(item) end
    return "[" .. table.concat(parts, ",") .. "]"
  end
  for _, key in ipairs(bed.sorted_keys(value)) do
    parts[#parts + 1] = ("%q:%s"):format(key, bed.json(value[key]))
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

return bed
