--- The command line: finds the command, runs it, gives the exit code (0 fine, 1 failed, 2 wrong usage, 3 differences).

local json = require "moongate.cli.json"
local options = require "moongate.cli.options"

local commands = {
  "run", "check", "explain", "reload", "drain", "top", "connections", "version", "help",
}
local later = { test = true, dev = true, new = true }

local usage = [[
Moongate, a programmable proxy.

Serving
  moongate run FILE [--workers N] [--admin ADDRESS:PORT] [--control PATH] [--state DIR]
                        serve what FILE describes; Ctrl-C finishes what is under way and stops
Before it is live
  moongate check FILE   say what is wrong with FILE, where, and what would be right
  moongate check FILE --diff
                        and what it would change in the gateway that runs
  moongate explain METHOD URL [--config FILE] [--header NAME:VALUE]
                        which route, plugins and upstream a request would meet
A gateway that runs
  moongate reload       take its configuration anew; the old one serves on when the new one is wrong
  moongate drain        finish what is under way and stop
  moongate top          requests, errors and latencies by route and upstream, as they come
  moongate connections  what its client connections do
This program
  moongate version      which version this is
  moongate help         this text; moongate COMMAND --help says more about one

--json prints for programs. A running gateway is found by its control socket: --control PATH, else
$MOONGATE_ADMIN, else $XDG_RUNTIME_DIR/moongate.sock, else /run/moongate.sock.
Exit codes: 0 fine, 1 failed (or no route matches), 2 wrong usage, 3 check --diff found differences.

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

-- For programs: what each command takes.
local function command_list()
  local list = {}
  for _, name in ipairs(commands) do
    local command = name ~= "help" and require("moongate.cli." .. name)
      or { usage = "usage: moongate help [--json]", help = "Prints what commands there are." }
    local line = command.usage:gsub("^usage: ", "")
    list[#list + 1] = { name = name, usage = line, help = command.help }
  end
  return list
end

local function help(arguments)
  local parsed, err = options.parse(arguments, { json = {}, help = {} })
  if not parsed then
    return fail(err)
  end
  io.stdout:write(parsed.json and json.encode { commands = command_list() } .. "\n" or usage)
  return 0
end

---@param arguments string[]
---@return integer code
return function(arguments)
  local name = table.remove(arguments, 1)
  if name == "help" or name == "--help" or name == "-h" then
    return help(arguments)
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
  local command = require("moongate.cli." .. name)
  for _, argument in ipairs(arguments) do
    if argument == "--help" or argument == "-h" then
      io.stdout:write(command.usage, "\n\n", command.help, "\n")
      return 0
    end
  end
  local parsed, err = options.parse(arguments, command.options)
  if not parsed then
    return fail(("%s\n%s"):format(err, command.usage))
  end
  return command.run(parsed)
end
