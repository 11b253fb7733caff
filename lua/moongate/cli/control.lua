--- Asking a running gateway over its control socket: one HTTP exchange, JSON both ways.

local gateway = require "moongate._core.gateway"

local control = {}

--- The option that commands share: which gateway. --control names the socket as it does for `run`; --admin is what it was called first.
control.option = { value = "text" }

--- The socket that the options of a command name, or nil.
---@param parsed table
---@return string?
function control.path(parsed)
  return parsed.control or parsed.admin
end

--- The control socket that is meant when none is named: $MOONGATE_ADMIN, else below $XDG_RUNTIME_DIR, else /run.
---@return string path
function control.default_path()
  local path, dir = os.getenv "MOONGATE_ADMIN", os.getenv "XDG_RUNTIME_DIR"
  if path and path ~= "" then
    return path
  end
  return dir and dir ~= "" and dir .. "/moongate.sock" or "/run/moongate.sock"
end

--- Text for a query string.
---@param text string
---@return string
function control.escape(text)
  return (text:gsub("[^%w%-._~]", function(c) return ("%%%02X"):format(c:byte()) end))
end

local function decode(body)
  local is_there, cjson = pcall(require, "cjson.safe")
  if not is_there then
    return nil, "the Lua module cjson is missing: install the package lua-cjson"
  end
  return cjson.decode(body)
end

control.decode = decode

--- One exchange, its answer as it comes.
---@param path string? of the control socket
---@param method "GET"|"POST"
---@param target string "/metrics"
---@return string? body
---@return string|integer err, or the status
function control.ask_raw(path, method, target)
  path = path or control.default_path()
  local question = ("%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s\r\n"):format(
    method, target, method == "POST" and "Content-Length: 0\r\n" or "")
  local raw, err = gateway.ask(path, question)
  if not raw then
    local hint = "is it running? --control PATH names another"
    return nil, ("no gateway answers at %s: %s; %s"):format(path, err, hint)
  end
  local status, rest = raw:match "^HTTP/1%.1 (%d%d%d)[^\n]*\n(.*)$"
  local body = rest and rest:match "\r?\n\r?\n(.*)$"
  if not body then
    return nil, ("%s: the answer is not HTTP"):format(path)
  end
  return body, tonumber(status)
end

---@param path string? of the control socket
---@param method "GET"|"POST"
---@param target string "/reload"
---@return table? answer decoded JSON
---@return string err, or the JSON text as it came
---@return integer? status
function control.ask(path, method, target)
  local body, status = control.ask_raw(path, method, target)
  if not body then
    return nil, status
  end
  local answer, why = decode(body)
  if not answer then
    return nil, ("%s answers %s: %s"):format(path or control.default_path(), status, why or body)
  end
  return answer, body, status
end

return control
