-- The real binary under test: started fresh on port 0, its ports read from its log, stopped and judged at the end.
-- A gateway that leaves with another code than 0, leaves late, prints a sanitizer report or an error line that the spec did
-- not announce (expect_log) fails the test.
local cjson = require "cjson.safe"
local uv = require "luv"
local http1 = require "test.support.http1"
local loop = require "test.support.loop"
local stream = require "test.support.stream"

local Gateway = {}
Gateway.__index = Gateway

local gateway = { start_ms = 10000, stop_ms = 5000 }

local SANITIZER = { "ERROR: AddressSanitizer", "runtime error:", "LeakSanitizer", "ThreadSanitizer",
  "MemorySanitizer" }

-- Path of the binary, or nil when there is none. With options.is_test the one with test filters, which is built beside it.
function gateway.binary(options)
  local path = os.getenv "MOONGATE_BIN"
  if path and options and options.is_test then path = path .. "-test" end
  if path and uv.fs_access(path, "X") then return path end
end

local function literal(value, indent)
  if type(value) ~= "table" then
    return type(value) == "string" and ("%q"):format(value) or tostring(value)
  end
  local keys, parts = {}, {}
  for i = 1, #value do parts[i] = literal(value[i], indent) end
  for key in pairs(value) do
    if type(key) == "string" then keys[#keys + 1] = key end
  end
  table.sort(keys)
  for _, key in ipairs(keys) do
    parts[#parts + 1] = ("[%q] = %s"):format(key, literal(value[key], indent))
  end
  return "{ " .. table.concat(parts, ", ") .. " }"
end

gateway.literal = literal

local function merged(base, over)
  local out = {}
  for key, value in pairs(base) do out[key] = value end
  for key, value in pairs(over or {}) do
    out[key] = type(value) == "table" and type(out[key]) == "table" and merged(out[key], value) or value
  end
  return out
end

local function endpoints_of(given)
  if type(given) ~= "table" or given.address then given = { given } end
  local out = {}
  for i, endpoint in ipairs(given) do
    local is_backend = type(endpoint) == "table" and endpoint.address
    out[i] = is_backend and endpoint:address() or endpoint
  end
  return out
end

-- The text of a configuration script.
-- options: settings; upstreams = { name = backend | "address" | { endpoint ... } }; backend (an upstream of that name);
-- routes (default: "/" to the upstream "backend"); listener; upstream: further keys of every upstream.
function gateway.config(options)
  local out = { 'local moongate = require "moongate"' }
  local function call(noun, value) out[#out + 1] = ("moongate.%s %s"):format(noun, literal(value)) end
  call("settings", merged({ workers = 1 }, options.settings))
  call("listener", merged({ port = 0, address = "127.0.0.1" }, options.listener))
  local upstreams = merged({}, options.upstreams)
  if options.backend then upstreams.backend = options.backend end
  local names = {}
  for name in pairs(upstreams) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    call("upstream", merged({ name = name, endpoints = endpoints_of(upstreams[name]) }, options.upstream))
  end
  for _, route in ipairs(options.routes or { { path = "/", backends = "backend" } }) do call("route", route) end
  return table.concat(out, "\n") .. "\n"
end

-- Writes text to a new file in a new directory; gives the path.
function gateway.write_file(text, name)
  local dir = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/moongate-spec-XXXXXX"))
  local path = dir .. "/" .. (name or "gateway.lua")
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  return path, dir
end

local function remove_file(path, dir)
  os.remove(path)
  uv.fs_rmdir(dir)
end

local function on_line(self, line)
  self.lines[#self.lines + 1] = line
  if line:find(" info admin on ", 1, true) then
    self.admin_port = tonumber(line:match "admin on %S*:(%d+)")
  elseif line:find(" info listening on ", 1, true) then
    self.ports[#self.ports + 1] = tonumber(line:match "listening on %S*:(%d+)")
    self.port = self.ports[1]
  elseif line:find " info ready %(" then
    self.is_ready = true
  end
end

local function on_output(self, bytes)
  local text = self.rest .. bytes
  for line in text:gmatch "([^\n]*)\n" do on_line(self, line) end
  self.rest = text:match "[^\n]*$"
  self.changed:fire()
end

local function spawn(self, path, args)
  local out, err = uv.new_pipe(false), uv.new_pipe(false)
  local handle, pid
  handle, pid = uv.spawn(path, { args = args, stdio = { nil, out, err, self.options.inherit }, env = self.env, cwd = self.cwd },
    function(code, signal)
      self.code, self.exit_signal = code, signal
      handle:close()
      self.changed:fire()
    end)
  assert(handle, pid)
  self.pid, self.process = pid, handle
  local open = 2
  local function collect(pipe, take)
    pipe:read_start(function(_, bytes)
      if bytes then return take(bytes) end
      open = open - 1
      self.is_silent = open == 0
      pipe:close()
      self.changed:fire()
    end)
  end
  collect(err, function(bytes) on_output(self, bytes) end)
  collect(out, function(bytes) self.stdout = self.stdout .. bytes end)
end

local function blank(options)
  return setmetatable({
    changed = loop.signal(), lines = {}, rest = "", stdout = "", ports = {}, expected = {}, options = options,
    env = options.env, cwd = options.cwd,
  }, Gateway)
end

-- Runs the binary with these arguments until it exits: { code, signal, stdout, lines, stderr }.
function gateway.exec(args, options)
  local self = blank(options or {})
  spawn(self, gateway.binary(options), args)
  local ok = loop.try_wait(self.changed, options and options.ms or 10000, function()
    return self.code ~= nil and self.is_silent
  end)
  if not ok then
    uv.kill(self.pid, "sigkill")
    error("still running: " .. table.concat(args, " ") .. "\n" .. self:log())
  end
  self.stderr = self:log()
  return self
end

-- Starts `moongate run`. options as for gateway.config, or config = text, or file = path; args = more arguments;
-- shell = text put before the command in a shell ("ulimit -n 64;"); under = words put before it, a program that becomes it
-- ({ "fiu-run", "-x" }); inherit = descriptor that becomes its number 3;
-- is_admin = false for none; is_test = true for the binary with test filters.
function gateway.start(options)
  local self = blank(options)
  local path = options.file
  if not path then
    path, self.dir = gateway.write_file(options.config or gateway.config(options))
    self.path = path
  end
  self.control = options.control or ("%s/moongate-spec-%d-%d.sock"):format(uv.os_tmpdir(), uv.os_getpid(), uv.hrtime())
  local args = { "run", path, "--control", self.control }
  if options.is_admin ~= false then
    args[#args + 1] = "--admin"
    args[#args + 1] = "127.0.0.1:0"
  end
  for _, arg in ipairs(options.args or {}) do args[#args + 1] = arg end
  if options.under then
    local words = { unpack(options.under) }
    words[#words + 1] = gateway.binary(options)
    for _, arg in ipairs(args) do words[#words + 1] = arg end
    spawn(self, table.remove(words, 1), words)
  elseif options.shell then
    table.insert(args, 1, gateway.binary(options))
    for i, arg in ipairs(args) do args[i] = "'" .. arg .. "'" end
    spawn(self, "/bin/sh", { "-c", options.shell .. " exec " .. table.concat(args, " ") })
  else
    spawn(self, gateway.binary(options), args)
  end
  local ok = loop.try_wait(self.changed, gateway.start_ms, function()
    return self.is_ready or self.code ~= nil
  end)
  if not ok or self.code then
    self:kill()
    error(("the gateway did not start (exit code %s):\n%s"):format(tostring(self.code), self:log()), 2)
  end
  return self
end

function Gateway:log()
  return table.concat(self.lines, "\n") .. self.rest
end

-- Announces that an error line with this pattern may come.
function Gateway:expect_log(pattern)
  self.expected[#self.expected + 1] = pattern
end

function Gateway:wait_log(pattern, ms)
  loop.wait(self.changed, ms or 5000, function()
    return ("a log line %q in:\n%s"):format(pattern, self:log())
  end, function() return self:log():find(pattern) ~= nil end)
end

-- Waits until the drain has reached every worker: none listens any more.
function Gateway:wait_draining()
  self:wait_log " info draining"
  while true do
    local probe, err = stream.try_connect(self.port)
    if not probe then
      if err ~= "ECONNREFUSED" then error("the draining gateway: " .. err, 2) end
      return
    end
    probe:close()
    loop.pass(2)
  end
end

function Gateway:connect(options)
  local client, err = stream.try_connect(options and options.port or self.port, options)
  if not client then error("cannot connect to the gateway: " .. err, 2) end
  if self.adopt then self.adopt(client) end
  return client
end

-- One request on a connection of its own, which is closed afterwards; the response.
function Gateway:request(bytes, options)
  local client = self:connect(options)
  client:send(bytes)
  local response, err = http1.read_response(client, options)
  client:close()
  if not response then error(("no response (%s) to %q"):format(err, bytes:sub(1, 200)), 2) end
  return response
end

function Gateway:get(path, fields, options)
  return self:request(("GET %s HTTP/1.1\r\nHost: test.example\r\n%s\r\n"):format(path, fields or ""), options)
end

-- The response of the admin listener.
function Gateway:admin(path)
  local response = self:request(("GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"):format(path),
    { port = self.admin_port })
  if response.complete == false then
    error(("%s: broken off (%s) after %d bytes of %s"):format(path, tostring(response.ended), #response.body,
      tostring(response.headers["content-length"])), 2)
  end
  return response
end

-- Runs a command that asks this gateway: { code, stdout, stderr }.
function Gateway:ask(...)
  local args = { ... }
  args[#args + 1] = "--admin"
  args[#args + 1] = self.control
  return gateway.exec(args)
end

-- A document of the control surface, decoded.
function Gateway:ask_json(path)
  local response = self:request(("GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"):format(path),
    { port = self.admin_port })
  if response.status ~= 200 then error(("%s: %d %s"):format(path, response.status, response.body), 2) end
  return assert(cjson.decode(response.body))
end

-- Replaces the configuration file of the gateway, in one step, as an editor does.
function Gateway:rewrite(options)
  local text = type(options) == "string" and options or gateway.config(options)
  local file = assert(io.open(self.path .. ".new", "w"))
  file:write(text)
  file:close()
  assert(os.rename(self.path .. ".new", self.path))
end

-- All series of /metrics: 'name' or 'name{labels}' -> number.
function Gateway:metrics()
  local out = {}
  for line in (self:admin("/metrics").body):gmatch "[^\n]+" do
    local name, value = line:match "^([^#%s][^%s]*)%s+(%S+)$"
    if name then out[name] = tonumber(value) end
  end
  return out
end

-- Waits until wanted(metrics) is true, asking again and again; gives the metrics.
function Gateway:wait_metrics(what, wanted, ms)
  local deadline = uv.hrtime() + (ms or 5000) * 1e6 * loop.scale
  while true do
    local metrics = self:metrics()
    if wanted(metrics) then return metrics end
    if uv.hrtime() > deadline then
      local text = {}
      for name, value in pairs(metrics) do text[#text + 1] = name .. " " .. value end
      table.sort(text)
      error(("metrics never showed %s:\n%s"):format(what, table.concat(text, "\n")), 2)
    end
    loop.pass(10)
  end
end

local QUIET = { "moongate_exchanges_live", "moongate_arenas_live", "moongate_connections_live", "moongate_pipes_live",
  "moongate_buffer_bytes" }

-- Waits until nothing of the traffic is left alive (pooled upstream connections may stay idle).
function Gateway:expect_quiet(ms)
  self:wait_metrics("quiet", function(metrics)
    for _, name in ipairs(QUIET) do
      if metrics[name] == nil then error("no metric " .. name, 0) end
      if metrics[name] ~= 0 then return false end
    end
    return metrics.moongate_upstream_connections_live == metrics.moongate_upstream_idle
  end, ms)
end

-- CPU time used so far, in clock ticks (10 ms), and resident memory in KiB.
function Gateway:cpu_ticks()
  local file = assert(io.open("/proc/" .. self.pid .. "/stat"))
  local text = file:read "*a"
  file:close()
  local fields, i = {}, 0
  for word in text:match("%) (.*)"):gmatch "%S+" do
    i = i + 1
    fields[i] = word
  end
  return tonumber(fields[12]) + tonumber(fields[13])
end

function Gateway:rss_kb()
  local file = assert(io.open("/proc/" .. self.pid .. "/status"))
  local text = file:read "*a"
  file:close()
  return tonumber(text:match "VmRSS:%s+(%d+)")
end

-- Sockets that the process has open.
function Gateway:socket_count()
  local path = "/proc/" .. self.pid .. "/fd"
  local count, dir = 0, assert(uv.fs_scandir(path))
  for name in function() return (uv.fs_scandir_next(dir)) end do
    if (uv.fs_readlink(path .. "/" .. name) or ""):find "^socket:" then count = count + 1 end
  end
  return count
end

function Gateway:signal(name)
  if self.code == nil then uv.kill(self.pid, name or "sigterm") end
end

--- What `body` sends has all come before the gateway looks at any of it.
function Gateway:frozen(body)
  self:signal "sigstop"
  loop.pass(10)
  body()
  loop.pass(50)
  self:signal "sigcont"
end

function Gateway:wait_exit(ms)
  loop.wait(self.changed, ms or gateway.stop_ms, function()
    return "the gateway to exit:\n" .. self:log()
  end, function() return self.code ~= nil and self.is_silent end)
  return self.code, self.exit_signal
end

local function is_announced(self, line)
  for _, pattern in ipairs(self.expected) do
    if line:find(pattern) then return true end
  end
  return false
end

-- The log must hold no sanitizer report and no error line that was not announced.
function Gateway:judge_log()
  local log = self:log()
  for _, mark in ipairs(SANITIZER) do
    if log:find(mark, 1, true) then error("sanitizer report:\n" .. log, 0) end
  end
  for _, line in ipairs(self.lines) do
    if line:find("^%S+ error ") and not is_announced(self, line) then
      error("error line that was not announced: " .. line, 0)
    end
  end
end

function Gateway:kill()
  if self.code == nil then uv.kill(self.pid, "sigkill") end
  if self.path then remove_file(self.path, self.dir) end
  self.path = nil
end

-- SIGTERM, then: exit code 0 in time, and a clean log. Idempotent.
function Gateway:stop()
  if self.is_stopped then return end
  self.is_stopped = true
  self:signal "sigterm"
  local ok, err = pcall(self.wait_exit, self)
  self:kill()
  if not ok then error(err, 0) end
  self:judge_log()
  if self.code ~= 0 or self.exit_signal ~= 0 then
    error(("exit code %d, signal %d:\n%s"):format(self.code, self.exit_signal, self:log()), 0)
  end
end

return gateway
