--- moongate check FILE: what is wrong with a configuration, where, and what would be right; --diff: what it would change.

local control = require "moongate.cli.control"
local diff = require "moongate.cli.diff"
local gateway = require "moongate._core.gateway"
local json = require "moongate.cli.json"

local SAME, PROBLEMS, USAGE, DIFFERENT = 0, 1, 2, 3

local command = {
  usage = "usage: moongate check FILE [--diff [--control PATH]] [--json]",
  help = [[
Runs the script FILE and checks what it says, without opening a port: every problem with its line,
the key path and what would be right. With --diff also what a reload with FILE would change in the
running gateway: objects added (+), removed (-) and changed (~), with old and new values of their
keys. Functions, and values of keys that name secrets, are not compared: both sides hide them. Exit
code 0: fine (and no difference), 1: problems, or no gateway answers, 3: differences.]],
  options = { diff = {}, control = control.option, admin = control.option, json = {} },
}

local function counted(count, noun)
  return ("%d %s%s"):format(count, noun, count == 1 and "" or "s")
end

local function refuse(parsed, problems, text)
  if parsed.json then
    print(json.encode { file = parsed[1], fine = false, problems = problems })
  else
    io.stderr:write(text)
  end
  return PROBLEMS
end

-- Nothing of a configuration moves the cursor.
local function shown(text)
  return (text:gsub("%c", "?"))
end

local function title(item)
  return item.name == "" and item.kind or ('%s "%s"'):format(item.kind, shown(item.name))
end

local function value_text(value)
  return value == nil and "(none)" or shown(json.encode(value))
end

local function print_diff(file, generation, found)
  print(("%s differs from configuration %d, which serves:"):format(file, generation))
  for _, item in ipairs(found.removed) do print("- " .. title(item)) end
  for _, item in ipairs(found.added) do
    print(("+ %s (%s:%d)"):format(title(item), file, item.line))
  end
  for _, item in ipairs(found.changed) do
    print(("~ %s (%s:%d)"):format(title(item), file, item.line))
    for _, key in ipairs(item.keys) do
      print(("    %s: %s -> %s"):format(shown(key.path), value_text(key.old), value_text(key.new)))
    end
  end
  if found.reordered then
    print "~ the order of routes, which decides between expressions that both match"
  end
end

local function run_diff(parsed)
  local text, problems, report = gateway.model { file = parsed[1] }
  if not text then
    return refuse(parsed, problems, report)
  end
  local config, err = control.ask(control.path(parsed), "GET", "/config")
  local objects
  if config then
    objects, err = control.decode(text)
  end
  if not objects then
    io.stderr:write("moongate: ", err, "\n")
    return PROBLEMS
  end
  local found, is_same = diff.of(config.objects, objects)
  if parsed.json then
    found.file, found.generation, found.fine = parsed[1], config.generation, true
    print(json.encode(found))
  elseif is_same then
    print(("%s: fine, no difference from configuration %d, which serves"):format(parsed[1],
      config.generation))
  else
    print_diff(parsed[1], config.generation, found)
  end
  return is_same and SAME or DIFFERENT
end

---@param parsed table
---@return integer code
function command.run(parsed)
  if #parsed ~= 1 then
    io.stderr:write(command.usage, "\n")
    return USAGE
  end
  if parsed.diff then
    return run_diff(parsed)
  end
  local is_fine, problems, text, counts = gateway.check { file = parsed[1] }
  if not is_fine then
    return refuse(parsed, problems, text)
  end
  if parsed.json then
    local warnings = {}
    for line in counts.warnings:gmatch "[^\n]+" do warnings[#warnings + 1] = line end
    print(json.encode { file = parsed[1], fine = true, problems = problems,
      warnings = #warnings > 0 and warnings or nil })
  else
    for line in counts.warnings:gmatch "[^\n]+" do io.stderr:write("warning: ", line, "\n") end
    print(("%s: fine (%s, %s, %s)"):format(parsed[1], counted(counts.listeners, "listener"),
      counted(counts.upstreams, "upstream"), counted(counts.routes, "route")))
  end
  return 0
end

return command
