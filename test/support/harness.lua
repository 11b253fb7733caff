-- What specs use: opens and closes everything a test needs, and runs its body as a task.
--
--   local h = require "test.support.harness"
--   it("answers", h.test(function()
--     local backend = h.backend()
--     local gateway = h.gateway { backend = backend }
--     assert.equal(200, gateway:get("/").status)
--   end))
--
-- Everything opened in a test is closed at its end; gateways are stopped and judged (test.support.gateway). Between h.open and
-- h.close (in setup and teardown) things live for several tests.
local uv = require "luv"
local backend = require "test.support.backend"
local dns = require "test.support.dns"
local gateway = require "test.support.gateway"
local http1 = require "test.support.http1"
local loop = require "test.support.loop"
local netns = require "test.support.netns"
local stream = require "test.support.stream"

local h = {
  http1 = http1, loop = loop, stream = stream, task = loop.task, pass = loop.pass, turn = loop.turn,
  config = gateway.config, literal = gateway.literal,
  exec = gateway.exec, write_file = gateway.write_file, read_response = http1.read_response,
  dead_port = backend.dead_port, has_binary = function(options) return gateway.binary(options) ~= nil end,
}

local kept = {}   -- closed by h.close
local scope       -- of the running body

local function adopt(thing)
  if scope then scope[#scope + 1] = thing end
  return thing
end

-- Clients first, then gateways, then backends, so that stopping a gateway finds no open exchange.
local function close_all(things, is_judged)
  local err
  for _, thing in ipairs(things) do
    if not thing.pid and not thing.server then pcall(thing.close, thing) end
  end
  for _, thing in ipairs(things) do
    if thing.pid then
      local ok, why = pcall(is_judged and thing.stop or thing.kill, thing)
      if not ok then err = err or why end
    end
  end
  for _, thing in ipairs(things) do
    if thing.server then thing:close() end
  end
  if err then error(err, 0) end
end

local function run(body, things, ms, closes)
  local ok, err = pcall(loop.run, function()
    scope = things
    body()
    if closes then close_all(things, true) end
  end, ms)
  scope = nil
  local function sweep()
    if closes and #kept == 0 then loop.sweep() end
  end
  if not ok then
    local logs = {}
    for _, thing in ipairs(things) do
      if thing.pid and thing.log then logs[#logs + 1] = thing:log() end
    end
    pcall(close_all, things, false)
    sweep()
    local tail = #logs > 0 and "\nlog of the gateway:\n" .. table.concat(logs, "\n"):sub(-3000) or ""
    error(type(err) == "string" and err .. tail or err, 0)
  end
  sweep()
end

-- Runs body as a task and closes what it opened.
function h.run(body, ms)
  run(body, {}, ms, true)
end

-- A test function for `it`; pending when the binary is missing (busted's words live in the environment of the spec).
function h.test(body, ms)
  return function()
    if not gateway.binary() then
      getfenv(body).pending "MOONGATE_BIN names no binary"
    end
    h.run(body, ms)
  end
end

-- For setup: as run, but what was opened stays until h.close.
function h.open(body)
  if gateway.binary() then run(body, kept, nil, false) end
end

-- For teardown: closes what h.open opened, judging gateways.
function h.close()
  local things = kept
  kept = {}
  local ok, err = pcall(loop.run, function() close_all(things, true) end)
  loop.sweep()
  if not ok then error(err, 0) end
end

function h.backend(script, options)
  return adopt(backend.new(script, options))
end

h.each, h.always, h.answer_all = backend.each, backend.always, backend.answer_all
h.once, h.duplex = backend.once, backend.duplex

-- A port whose handshake never completes.
function h.black_hole()
  local port, close = backend.black_hole()
  adopt { close = close }
  return port
end

--- A network namespace; nil, and why not.
function h.netns()
  local self, why = netns.new()
  return self and adopt(self), why
end

function h.gateway(options)
  local self = adopt(gateway.start(options))
  self.adopt = adopt
  return self
end

-- The configuration text that these options stand for.
function h.gateway_config(options)
  return gateway.config(options)
end

-- A configuration that ends with this script (which has `moongate`), and an upstream "backend"; options as for gateway_config,
-- without routes. The same options give the same text in front, for a reload.
function h.script_config(script, options)
  local own = { routes = {} }
  for key, value in pairs(options or {}) do own[key] = value end
  return gateway.config(own) .. script .. "\n"
end

-- A gateway that runs this script. gateway:reload_script(script) writes another one and asks for a reload, which must work;
-- gateway:expect_idle() is expect_quiet, and no function of a script runs or waits.
function h.script(script, options)
  options = options or {}
  options.backend = options.backend or h.backend()
  options.config = h.script_config(script, options)
  local self = h.gateway(options)
  function self.reload_script(_, text)
    self:rewrite(h.script_config(text, options))
    local answer = self:ask "reload"
    if answer.code ~= 0 then error("the reload failed: " .. answer.stderr, 2) end
  end
  function self.expect_idle(_, ms)
    self:expect_quiet(ms)
    self:wait_metrics("idle scripts", function(metrics) return metrics.moongate_coroutines_live == 0 end, ms)
  end
  self.backend = options.backend
  return self
end

-- dnsmasq with these hosts (name -> addresses); pending where there is none.
function h.dnsmasq(hosts, options)
  local self = dns.dnsmasq(hosts, options)
  return self and adopt(self)
end

-- A name server that answers by script (test.support.dns).
function h.name_server(script)
  return adopt(dns.server(script))
end
h.dns_reply = dns.reply

-- A raw connection to any port of the loopback.
function h.connect(port, options)
  local client, err = stream.try_connect(port, options)
  if client then adopt(client) end
  return client, err
end

-- Starts another program; killed at the end of the test. options as of uv.spawn.
function h.spawn(path, options)
  local self = { changed = loop.signal(), output = "" }
  local pipes = { uv.new_pipe(false), uv.new_pipe(false) }
  local handle, pid
  handle, pid = uv.spawn(path, { args = options.args, stdio = { nil, unpack(pipes) }, env = options.env },
    function(code)
      self.code = code
      handle:close()
      self.changed:fire()
    end)
  if not handle then return nil, pid end
  local open_count = #pipes
  for _, pipe in ipairs(pipes) do
    pipe:read_start(function(_, bytes)
      if not bytes then
        open_count = open_count - 1
        pipe:close()
      end
      self.is_silent = open_count == 0
      self.output = self.output .. (bytes or "")
      self.changed:fire()
    end)
  end
  function self.signal(_, name)
    if self.code == nil then uv.kill(pid, name) end
  end
  function self.close()
    self:signal "sigkill"
  end
  function self.wait_exit(_, ms)
    loop.wait(self.changed, ms or 10000, function() return path .. " to exit:\n" .. self.output end,
      function() return self.code ~= nil and self.is_silent end)
    return self.code
  end
  function self.wait_output(_, pattern, ms)
    loop.wait(self.changed, ms or 10000, function() return pattern .. " in the output:\n" .. self.output end,
      function() return self.output:find(pattern) ~= nil or self.code ~= nil end)
    return self.output:match(pattern)
  end
  return adopt(self)
end

-- Runs another program to its end: { code, output }.
function h.exec_program(path, args)
  local self, err = h.spawn(path, { args = args })
  if not self then return { code = -1, output = err } end
  self:wait_exit()
  return self
end

function h.now_ms()
  return uv.hrtime() / 1e6
end

-- What a busy machine may add to anything: the test and the gateway wait for a core.
local SLACK_MS = 700

function h.check_took(took_ms, min_ms, max_ms)
  if min_ms and took_ms < min_ms then error(("took only %.0f ms, not %d"):format(took_ms, min_ms), 2) end
  if max_ms and took_ms > (max_ms + SLACK_MS) * loop.scale then
    error(("took %.0f ms, not at most %d (and %d for a busy machine)"):format(took_ms, max_ms, SLACK_MS), 2)
  end
end

-- Runs fn, which must take so long; gives what it gives.
function h.takes(min_ms, max_ms, fn)
  local start = h.now_ms()
  local result = fn()
  h.check_took(h.now_ms() - start, min_ms, max_ms)
  return result
end

return h
