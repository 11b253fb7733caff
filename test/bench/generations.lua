-- Reloads without end, of code and of data, with a little traffic: the curve of resident memory, which must be flat.
--
--   MOONGATE_BIN=build-bench/moongate luajit test/bench/generations.lua [CODE RELOADS] [DATA RELOADS]
package.path = "./?.lua;" .. package.path
local h = require "test.support.harness"

local CODE, DATA = tonumber(arg[1] or 1000), tonumber(arg[2] or 10000)
local FLAT_FROM, GROWTH_MAX = 20, 1.15
local WARM_UP, WARM_UP_BATCH = 40000, 100
local MARKS = { [0] = true, [1] = true, [5] = true, [10] = true }

local SCRIPT = [[
  local cjson = require "cjson"
  local ballast = {}
  for i = 1, 5000 do ballast[i] = { name = "entry " .. i } end
  moongate.init_worker(function() moongate.sleep(0.001) end)
  moongate.timer.every(0.05, function() moongate.sleep(0.001) end)
  for i = 1, 50 do
    moongate.route { path = "/" .. i, backends = "backend", plugins = { { "request-headers", set = { ["x-n"] = "%d" } } },
      access = function(exchange) exchange.vars.started = moongate.now() moongate.sleep(0.001) end,
      header_filter = function(exchange) exchange.response.headers["x-mark"] = "%s" .. #ballast end,
      body_filter = function(exchange)
        for piece in exchange.response:chunks() do exchange.response:write(piece) end
      end,
      log = function(exchange) cjson.encode(exchange.vars) end }
  end]]

local function is_mark(n)
  return MARKS[n] or n % (n <= 100 and 20 or n <= 1000 and 100 or 1000) == 0
end

-- That many reloads; the resident memory after the first ones, and at the end.
local function soak(gateway, what, count, text_of)
  local client, early = gateway:connect { port = gateway.admin_port }, nil
  local start = h.now_ms()
  print(("%-6s %8s %10s %8s %8s"):format(what, "reloads", "RSS KiB", "states", "ms each"))
  for n = 0, count do
    if n > 0 then
      gateway:rewrite(text_of(n))
      client:send "POST /reload HTTP/1.1\r\nHost: localhost\r\n\r\n"
      local response = h.read_response(client, { ms = 30000 })
      if response.status ~= 200 then error(response.raw) end
    end
    if n == FLAT_FROM then h.loop.pass(1000) early = gateway:rss_kb() end
    if is_mark(n) then
      print(("%-6s %8d %10d %8d %8.1f"):format("", n, gateway:rss_kb(), gateway:metrics().moongate_lua_states,
        n > 0 and (h.now_ms() - start) / n or 0))
    end
  end
  h.loop.pass(1000)
  local late = gateway:rss_kb()
  client:close()
  print(("%-6s from %d to %d KiB: %s"):format("", early or late, late,
    late <= GROWTH_MAX * (early or late) and "flat" or "it grows"))
  return late <= GROWTH_MAX * (early or late)
end

-- Without a reload memory grows, too, for the first 20,000 requests of a Lua state: traces are compiled, the heap finds its size.
local function warm_up(gateway)
  local client = gateway:connect()
  local request = ("GET /1 HTTP/1.1\r\nHost: h\r\n\r\n"):rep(WARM_UP_BATCH)
  local before = gateway:rss_kb()
  for _ = 1, WARM_UP / WARM_UP_BATCH do
    client:send(request)
    for _ = 1, WARM_UP_BATCH do h.read_response(client, { ms = 30000 }) end
  end
  client:close()
  print(("%-6s %d requests: from %d to %d KiB"):format("warm", WARM_UP, before, gateway:rss_kb()))
end

io.stdout:setvbuf "line"
local is_flat
h.run(function()
  local backend = h.backend(function(connection)
    connection.idle_ms = 3600 * 1000 -- pooled connections may rest for as long
    h.answer_all(connection)
  end)
  local options = { backend = backend, settings = { workers = 2 } }
  local gateway = h.gateway { config = h.script_config(SCRIPT:format(0, "first"), options) }
  local is_over, answered = false, 0
  for i = 1, 4 do
    h.task(function()
      local client = gateway:connect()
      while not is_over do
        client:send(("GET /%d HTTP/1.1\r\nHost: h\r\n\r\n"):format(i))
        if h.read_response(client, { ms = 30000 }).status ~= 200 then error "a request was lost" end
        answered = answered + 1
        h.loop.pass(5)
      end
      client:close()
    end)
  end
  local is_code_flat = soak(gateway, "code", CODE, function(n)
    return h.script_config(SCRIPT:format(0, "code " .. n), options)
  end)
  warm_up(gateway)
  -- The script is the same, so its functions stay: everything else is made anew.
  local text = h.script_config(SCRIPT:format(0, "code " .. CODE), options)
  local is_data_flat = soak(gateway, "data", DATA, function() return text end)
  is_over = true
  h.loop.pass(200)
  print(("%d requests answered meanwhile"):format(answered))
  is_flat = is_code_flat and is_data_flat
end, 3600 * 1000)
os.exit(is_flat and 0 or 1)
