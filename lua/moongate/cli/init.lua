--- The command line: finds the command, runs it, gives the exit code (0 fine, 1 failed, 2 wrong usage).

local options = require "moongate.cli.options"

local commands = { "run", "check", "version", "help" }
local later = { explain = true, reload = true, drain = true, test = true, dev = true, new = true,
  top = true }

local usage = [[
Moongate, a programmable proxy.

  moongate run FILE [--workers N] [--admin ADDRESS:PORT]
                               serve what FILE describes; Ctrl-C finishes what is under way and stops
  moongate check FILE [--json] say what is wrong with FILE, where, and what would be right
  moongate version [--json]    say which version this is
  moongate help                this text

A first FILE:

  local moongate = require "moongate"
  moongate.listener { port = 8080 }
  moongate.upstream { name = "echo", endpoints = { "builtin:echo" } }
  moongate.route { path = "/", backends = "echo" }
]]

local function fail(message)
  io.stderr:write("moongate: ", message, "\n")
  return 2
end

local function help()
  io.stdout:write(usage)
  return 0
end

---@param arguments string[]
---@return integer code
return function(arguments)
  local name = table.remove(arguments, 1)
  if name == "help" or name == "--help" or name == "-h" then
    return help()
  elseif name == "--version" then
    name = "version"
  elseif not name then
    io.stderr:write(usage)
    return 2
  end
  if later[name] then
    return fail(("%q is not supported yet"):format(name))
  end
  local is_known = false
  for _, command in ipairs(commands) do
    is_known = is_known or command == name
  end
  if not is_known then
    local near = options.nearest(name, commands)
    return fail(("there is no command %q; %s"):format(name,
      near and ("did you mean %q?"):format(near) or "see moongate help"))
  end
  for _, argument in ipairs(arguments) do
    if argument == "--help" or argument == "-h" then
      return help()
    end
  end
  local command = require("moongate.cli." .. name)
  local parsed, err = options.parse(arguments, command.options)
  if not parsed then
    return fail(("%s\n%s"):format(err, command.usage))
  end
  return command.run(parsed)
end
