--- moongate reload: a running gateway takes its configuration anew; returns when every worker serves it.

local control = require "moongate.cli.control"

local command = {
  usage = "usage: moongate reload [--control PATH] [--json]",
  help = [[
Tells a running gateway to run its script anew, and returns when every worker serves the result. A
script with a problem changes nothing: the problems are printed, the old configuration serves on,
the exit code is 1. No connection is lost.]],
  options = { control = control.option, admin = control.option, json = {} },
}

---@param parsed table
---@return integer code
function command.run(parsed)
  local answer, text = control.ask(control.path(parsed), "POST", "/reload")
  if not answer then
    io.stderr:write("moongate: ", text, "\n")
    return 1
  end
  if parsed.json then
    io.stdout:write(text)
  elseif answer.fine then
    print(("configuration %d serves (%d ms)"):format(answer.generation, answer.took_ms))
  else
    io.stderr:write(answer.text, ("refused; configuration %d still serves\n"):format(
      answer.generation))
  end
  return answer.fine and 0 or 1
end

return command
