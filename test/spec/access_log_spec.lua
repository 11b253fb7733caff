-- The access log: a line for each request, whole and soon, whatever the disk does; and never a request that waits for it.
local cjson = require "cjson"
local h = require "test.support.harness"
local uv = require "luv"

local GET = "GET %s HTTP/1.1\r\nHost: h.example\r\n%s\r\n"
local SMALL = 262144

local function read_file(path)
  local file = io.open(path, "rb")
  if not file then return "" end
  local text = file:read "*a"
  file:close()
  return text
end

local function lines_of(path)
  local lines = {}
  for line in read_file(path):gmatch "([^\n]*)\n" do lines[#lines + 1] = line end
  return lines
end

-- Waits until the file has that many lines (of all `paths` together); a second is what was promised.
local function wait_lines(count, ...)
  local paths = { ... }
  local lines
  local deadline = h.now_ms() + 1000 * h.loop.scale
  repeat
    lines = {}
    for _, path in ipairs(paths) do
      for _, line in ipairs(lines_of(path)) do lines[#lines + 1] = line end
    end
    if #lines >= count then break end
    h.pass(20)
  until h.now_ms() > deadline
  assert.equal(count, #lines)
  return lines
end

local dirs = {}

-- A new directory, removed after the test.
local function new_dir()
  local path, dir = h.write_file("", "x")
  os.remove(path)
  dirs[#dirs + 1] = dir
  return dir
end

local function remove_dirs()
  for _, dir in ipairs(dirs) do os.execute("rm -rf " .. dir) end
  dirs = {}
end

-- Starts a gateway that logs into a new file; gives both.
local function logging(options, log)
  local dir = new_dir()
  local path = dir .. "/access.log"
  log = log or {}
  log.file = log.file or path
  options.settings = options.settings or {}
  options.settings.access_log = log
  return h.gateway(options), path, dir
end

-- count requests on one connection.
local function ask(gateway, count, path, fields)
  local client = gateway:connect()
  for first = 1, count, 20 do
    local n = math.min(20, count - first + 1)
    client:send(GET:format(path or "/", fields or ""):rep(n))
    for _ = 1, n do assert.equal(200, assert(h.read_response(client)).status) end
  end
  client:close()
end

local function echo(more)
  local options = { upstreams = { echo = "builtin:echo" }, routes = { { path = "/", backends = "echo" } } }
  for key, value in pairs(more or {}) do options[key] = value end
  return options
end

describe("the access log", function()
  after_each(remove_dirs)

  it("has a line of JSON for each request", h.test(function()
    local backend = h.backend(h.always(h.http1.response("201 Created", "made\n", "X-Made: yes\r\n")))
    local gateway, path = logging({ backend = backend })
    local answer = gateway:request("POST /a%20b?c=d HTTP/1.1\r\nHost: h.example\r\nContent-Length: 3\r\n" ..
      "User-Agent: spec\r\nReferer: http://r.example/\r\n\r\nxyz")
    assert.equal(201, answer.status)
    local line = cjson.decode(wait_lines(1, path)[1])
    assert.is_not_nil(line.time:find "^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ$")
    assert.equal("127.0.0.1", line.client)
    assert.equal("POST", line.method)
    assert.equal("h.example", line.host)
    assert.equal("/a%20b", line.path)
    assert.equal("c=d", line.query)
    assert.equal("HTTP/1.1", line.protocol)
    assert.equal(201, line.status)
    assert.equal(3, line.request_bytes)
    assert.equal(5, line.response_bytes)
    assert.is_true(line.duration > 0 and line.duration < 10)
    assert.is_true(line.upstream_duration > 0 and line.upstream_duration <= line.duration)
    assert.equal("/", line.route)
    assert.equal("backend", line.upstream)
    assert.equal(backend:address(), line.endpoint)
    assert.equal(1, line.attempts)
    assert.equal(32, #line.id)
    assert.equal("spec", line.user_agent)
    assert.equal("http://r.example/", line.referer)
  end))

  it("has the fields that were asked for, in their order", h.test(function()
    local backend = h.backend(h.always(h.http1.response("200 OK", "x", "X-Made: a\r\nX-Made: b\r\n")))
    local gateway, path = logging({ backend = backend },
      { fields = { "status", "request.header.x-a", "response.header.x-made", "request.header.none", "complete" } })
    gateway:get("/", "X-A: 1\r\nX-A: 2\r\n")
    assert.same({ '{"status":200,"request.header.x-a":"1, 2","response.header.x-made":"a, b",' ..
      '"request.header.none":null,"complete":true}' }, wait_lines(1, path))
  end))

  it("names what the client asked for, whatever plugins make of it", h.test(function()
    local options = echo()
    options.routes[1].plugins = { { "url-rewrite", hostname = "inner.example", path = "/new" } }
    local gateway, path = logging(options, { format = "$host $path" })
    gateway:get "/old"
    assert.same({ "test.example /old" }, wait_lines(1, path))
  end))

  it("can be combined, or a text of one's own", h.test(function()
    local gateway, path = logging(echo(), { format = "combined" })
    gateway:get("/x?y", 'User-Agent: a "b"\r\n')
    assert.is_not_nil(wait_lines(1, path)[1]:find(
      '^127%.0%.0%.1 %- %- %[%d%d/%a%a%a/%d%d%d%d:%d%d:%d%d:%d%d %+0000%] "GET /x%?y HTTP/1%.1" 200 %d+ "%-" ' ..
      '"a \\x22b\\x22"$'))
    gateway, path = logging(echo(), { format = "$method $path$$ ${request.header.x-a} $upstream_duration|" })
    gateway:get("/x?y", "X-A: z\r\n")
    assert.same({ "GET /x$ z -|" }, wait_lines(1, path))
  end))

  it("tells of refused requests and of clients that went away", h.test(function()
    local backend = h.backend(h.once())
    local gateway, path = logging({ backend = backend, settings = { timeouts = { request_head = 0.2 } } },
      { format = "$status $method $path $route $complete" })
    gateway:request "GET /%zz HTTP/1.1\r\nHost: h.example\r\n\r\n"
    wait_lines(1, path)
    gateway:request "garbage\r\n\r\n"
    wait_lines(2, path)
    gateway:request "GET /slow HTTP/1.1\r\nHost:"
    wait_lines(3, path)
    local client = gateway:connect()
    client:send(GET:format("/held", ""))
    backend:wait_requests(1)
    client:close()
    local lines = wait_lines(4, path)
    assert.equal("400 GET /%zz - true", lines[1])
    assert.is_not_nil(lines[2]:find "^400 %S+ %S+ %- true$")
    assert.is_not_nil(lines[3]:find "^408 %S+ %S+ %- true$")
    assert.equal("499 GET /held / false", lines[4])
  end))

  it("is safe from what clients send (A67)", h.test(function()
    local gateway, path = logging(echo(), { fields = { "path", "query", "user_agent", "referer", "method",
      "request.header.x-a" } })
    local count = 0
    for byte = 0, 255 do
      local c = string.char(byte)
      gateway:request(("GET /a%sb?c%sd HTTP/1.1\r\nHost: h.example\r\n\r\n"):format(c, c))
      gateway:request(GET:format("/", ("User-Agent: a%sb\r\nReferer: %s\r\nX-A: %s\"\\\r\n"):format(c, c, c)))
      count = count + 2
    end
    gateway:get("/", "User-Agent: " .. ("\\"):rep(8000) .. "\r\n")
    for _, line in ipairs(wait_lines(count + 1, path)) do
      assert.is_nil(line:find "[%z\1-\31\127]")
      assert.is_true(#line < 6000)
      assert.equal("table", type(cjson.decode(line)))
    end
  end))

  it("has exactly as many lines as there were requests, from all workers #threads", h.test(function()
    local gateway, path = logging(echo { settings = { workers = 4 } }, { fields = { "status", "id" } })
    local tasks = {}
    for i = 1, 8 do tasks[i] = h.task(ask, gateway, 200) end
    for _, task in ipairs(tasks) do
      h.loop.wait(task.ended, 20000, "the requests", function() return task.done end)
    end
    local ids = {}
    for _, line in ipairs(wait_lines(1600, path)) do
      local record = cjson.decode(line)
      assert.is_nil(ids[record.id])
      ids[record.id] = true
    end
    assert.equal(1600, gateway:metrics().moongate_access_log_lines_total)
  end, 60000))

  it("is whole when the gateway leaves", h.test(function()
    local gateway, path = logging(echo())
    ask(gateway, 100)
    gateway:stop()
    assert.equal(100, #lines_of(path))
  end))

  it("loses no line when it is reopened under load #threads", h.test(function()
    local gateway, path = logging(echo { settings = { workers = 2 } }, { format = "$path" })
    local paths, tasks = { path }, {}
    for i = 1, 4 do tasks[i] = h.task(ask, gateway, 500, "/" .. i) end
    for i = 1, 5 do
      gateway:wait_metrics("load", function(m) return m.moongate_access_log_lines_total >= i * 300 end)
      local old = path .. "." .. i
      assert(os.rename(path, old))
      paths[#paths + 1] = old
      gateway:signal "sigusr1"
      gateway:wait_log(("reopened[^\n]*\n.*"):rep(i - 1) .. "reopened")
      assert.is_not_nil(uv.fs_stat(path))
    end
    for _, task in ipairs(tasks) do
      h.loop.wait(task.ended, 20000, "the requests", function() return task.done end)
    end
    wait_lines(2000, unpack(paths))
  end, 60000))

  local function reload(gateway, log, code)
    gateway:rewrite(echo { settings = { workers = 2, access_log = log } })
    local answer = gateway:ask "reload"
    assert.equal(code or 0, answer.code, answer.stderr)
    return answer.stderr
  end

  it("goes elsewhere with a reload, and loses no line on the way #threads", h.test(function()
    local gateway, path, dir = logging(echo { settings = { workers = 2 } }, { format = "$path", buffer_bytes = SMALL })
    local paths, tasks = { path }, {}
    for i = 1, 4 do tasks[i] = h.task(ask, gateway, 500, "/" .. i) end
    for i = 1, 5 do
      gateway:wait_metrics("load", function(m) return m.moongate_access_log_lines_total >= i * 300 end)
      paths[#paths + 1] = dir .. "/log." .. math.floor(i / 2) -- every second time only the rings change
      if paths[#paths] == paths[#paths - 1] then paths[#paths] = nil end
      reload(gateway, { file = paths[#paths], format = "$path", buffer_bytes = i % 2 == 1 and 2 * SMALL or SMALL })
    end
    for _, task in ipairs(tasks) do
      h.loop.wait(task.ended, 20000, "the requests", function() return task.done end)
    end
    wait_lines(2000, unpack(paths))
    assert.equal(0, gateway:metrics().moongate_access_log_dropped_total)
    gateway:get "/last"
    local lines = wait_lines(#lines_of(paths[#paths]) + 1, paths[#paths])
    assert.equal("/last", lines[#lines])
  end, 60000))

  it("begins and ends with a reload #threads", h.test(function()
    local path = new_dir() .. "/later.log"
    local gateway = h.gateway(echo { settings = { workers = 2 } })
    gateway:get "/before"
    for i = 1, 2 do
      reload(gateway, { file = path, format = "$path" })
      gateway:get "/during"
      wait_lines(i, path)
      reload(gateway, nil)
      gateway:get "/after"
    end
    gateway:signal "sigusr1"
    gateway:wait_log "no access log to reopen"
    gateway:stop()
    assert.same({ "/during", "/during" }, lines_of(path))
  end))

  it("refuses a reload to a file that cannot be opened, with its place, and goes on in the old one", h.test(function()
    local gateway, path = logging(echo { settings = { workers = 2 } }, { format = "$path" })
    gateway:expect_log "."
    for _ = 1, 2 do
      local text = reload(gateway, { file = "/nowhere/x.log", format = "$path" }, 1)
      assert.is_not_nil(text:find 'gateway.lua:%d+: settings: access_log.file: cannot open "/nowhere/x.log"', text)
    end
    gateway:get "/kept"
    assert.same({ "/kept" }, wait_lines(1, path))
    local port = h.backend():address():match ":(%d+)" -- the log is open already when this is refused
    gateway:rewrite(h.gateway_config(echo { settings = { workers = 2, access_log = { file = path .. ".new" } } }) ..
      ('moongate.listener { port = %s, address = "127.0.0.1" }\n'):format(port))
    assert.equal(1, gateway:ask("reload").code)
    gateway:get "/kept"
    wait_lines(2, path)
    assert.same({}, lines_of(path .. ".new"))
  end))

  it("keeps the old file when the new one cannot be opened", h.test(function()
    local gateway, path, dir = logging(echo(), { format = "$path" })
    assert(os.rename(path, path .. ".old"))
    assert(os.rename(dir, dir .. ".gone"))
    gateway:signal "sigusr1"
    gateway:wait_log "cannot be reopened"
    assert(os.rename(dir .. ".gone", dir))
    gateway:get "/kept"
    assert.same({ "/kept" }, wait_lines(1, path .. ".old"))
  end))

  it("goes to the standard output", h.test(function()
    local gateway = h.gateway(echo { settings = { access_log = { file = "stdout", format = "$path" } } })
    gateway:get "/out"
    gateway:stop()
    assert.equal("/out\n", gateway.stdout)
  end))

  it("that nobody reads holds up no request; lines are dropped whole and counted", h.test(function()
    local dir = new_dir()
    local fifo = dir .. "/fifo"
    assert.equal(0, os.execute("mkfifo " .. fifo))
    local reader = h.spawn("/bin/sh", { args = { "-c", "exec 3<>" .. fifo .. "; echo $$; exec cat <&3" } })
    local pid = tonumber(reader:wait_output "(%d+)\n")
    local gateway = h.gateway(echo { settings = { access_log = { file = fifo, buffer_bytes = SMALL,
      format = "$path" } } })
    uv.kill(pid, "sigstop")
    ask(gateway, 1000, "/" .. ("x"):rep(1000))
    local metrics = gateway:metrics()
    assert.is_true(metrics.moongate_access_log_dropped_total > 0)
    assert.equal(1000, metrics.moongate_access_log_dropped_total + metrics.moongate_access_log_lines_total)
    uv.kill(pid, "sigcont")
    local wanted = metrics.moongate_access_log_lines_total
    h.loop.wait(reader.changed, 3000, "all lines", function()
      return select(2, reader.output:gsub("\n", "")) > wanted
    end)
    assert.equal(("/" .. ("x"):rep(1000) .. "\n"):rep(wanted), reader.output:match "^%d+\n(.*)")
    gateway:stop()
  end, 30000))

  it("on a device that is full: requests are served, lines dropped and counted", h.test(function()
    local gateway = h.gateway(echo { settings = { access_log = { file = "/dev/full", buffer_bytes = SMALL } } })
    ask(gateway, 1000)
    gateway:wait_log "warn access log \"/dev/full\": .*dropped"
    local metrics = gateway:metrics()
    assert.is_true(metrics.moongate_access_log_dropped_total > 0)
    assert.equal(1, metrics.moongate_access_log_stuck)
    gateway:stop()
    assert.is_not_nil(gateway:log():find "%d+ lines could not be written")
  end))

  it("on a full disk: whole lines, and on again within a second of there being room", h.test(function()
    local dir = new_dir()
    if os.execute(("mount -t tmpfs -o size=1m tmpfs %s 2>/dev/null"):format(dir)) ~= 0 then
      pending "mounting a tmpfs needs root"
    end
    local ok, err = pcall(function()
      local path, filler = dir .. "/access.log", dir .. "/filler"
      assert.equal(0, os.execute(("head -c 700000 /dev/zero >%s"):format(filler)))
      local gateway = h.gateway(echo { settings = { access_log = { file = path, buffer_bytes = SMALL } } })
      ask(gateway, 1000, "/" .. ("y"):rep(1000))
      gateway:wait_log "warn access log"
      local metrics = gateway:metrics()
      assert.is_true(metrics.moongate_access_log_dropped_total > 0)
      assert.equal(1000, metrics.moongate_access_log_dropped_total + metrics.moongate_access_log_lines_total)
      assert(os.remove(filler))
      local lines = wait_lines(metrics.moongate_access_log_lines_total, path)
      for _, line in ipairs(lines) do assert.equal(200, cjson.decode(line).status) end
      gateway:wait_metrics("a working log", function(m) return m.moongate_access_log_stuck == 0 end, 1000)
      ask(gateway, 10)
      wait_lines(#lines + 10, path)
      gateway:stop()
    end)
    os.execute("umount " .. dir)
    if not ok then error(err, 0) end
  end, 30000))

  it("costs nothing while nothing is asked", h.test(function()
    local gateway = logging(echo { settings = { workers = 2 } })
    ask(gateway, 10)
    h.pass(1200 * h.loop.scale)
    local function switches()
      local sum = 0
      for name in io.popen("cat /proc/" .. gateway.pid .. "/task/*/status"):read("*a"):gmatch(
        "\nvoluntary_ctxt_switches:%s+(%d+)") do sum = sum + tonumber(name) end
      return sum
    end
    local before = switches()
    h.pass(1000)
    assert.is_true(switches() - before <= 2, switches() - before .. " wake-ups in a second")
  end))
end)

describe("a wrong access log", function()
  local function check(log)
    local path, dir = h.write_file(h.config { upstreams = { echo = "builtin:echo" },
      routes = { { path = "/", backends = "echo" } }, settings = { access_log = log } })
    local result = h.exec { "check", path }
    os.remove(path)
    uv.fs_rmdir(dir)
    assert.not_equal(0, result.code)
    return result.stderr .. result.stdout
  end

  it("is told with its key and what would be right", h.test(function()
    assert.is_not_nil(check { format = "json" }:find("access_log.file", 1, true))
    assert.is_not_nil(check { file = "x", fields = { "statsu" } }:find 'no field "statsu".-did you mean "status"')
    assert.is_not_nil(check { file = "x", format = "$metod" }:find 'no field "metod".-did you mean "method"')
    assert.is_not_nil(check { file = "x", format = "combinde" }:find 'no format "combinde"')
    assert.is_not_nil(check { file = "x", format = "$path", fields = { "path" } }:find "fields go with")
    assert.is_not_nil(check { file = "x", format = "$path\n" }:find "control character")
    assert.is_not_nil(check { file = "x", buffer_bytes = 5 }:find("access_log.buffer_bytes", 1, true))
  end))

  it("that cannot be opened is no start", h.test(function()
    local path, dir = h.write_file(h.config { upstreams = { echo = "builtin:echo" },
      routes = { { path = "/", backends = "echo" } }, settings = { access_log = { file = "/nowhere/x.log" } } })
    local result = h.exec { "run", path }
    os.remove(path)
    uv.fs_rmdir(dir)
    assert.not_equal(0, result.code)
    assert.is_not_nil(result.stderr:find 'cannot open "/nowhere/x.log"')
  end))
end)
