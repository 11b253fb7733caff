-- System calls that fail in the real world (strictness F06, P17): by fiu-run, which puts itself before the C library, and by strace
-- for what libfiu does not know (accept4, epoll_ctl, splice, pipe2). Whatever fails, nothing crashes, no socket is lost,
-- and a client gets what the backend sent, a clean 5xx, or a connection that ends. Errors that the kernel cannot give there
-- (EAGAIN from a socket that is ready, EPIPE from one whose peer is there) are not asked for: an edge is told once, and who
-- cannot write to an upstream any more reads what it had to say.
local h = require "test.support.harness"

local ENOMEM, EMFILE = 12, 24
local EADDRNOTAVAIL, ENETUNREACH, ECONNRESET, ENOBUFS, ECONNREFUSED = 99, 101, 104, 105, 111
local EINTR = 4

local BODY = ("0123456789abcdef"):rep(4096)

local function needs(program)
  local is_sanitized = os.getenv "MOONGATE_BUILD" and os.getenv "MOONGATE_BUILD" ~= "release"
  if is_sanitized then pending "a sanitizer's runtime goes with neither LD_PRELOAD nor ptrace" end
  local probe = { ["fiu-run"] = { "-x", "true" }, strace = { "-D", "-qq", "-o", "/dev/null", "true" } }
  local ran = h.exec_program(program, probe[program])
  if ran.code ~= 0 then pending(program .. " does not run here: " .. ran.output) end
end

-- Answers that tell what was asked for: GET the long body, POST how much had come.
-- `closes`: each on a connection of its own.
local function answering_backend(closes)
  local fields = closes and "Connection: close\r\n" or ""
  return h.backend(h.each(function(request)
    local body = request.target == "/long" and BODY or "short\n"
    if request.method == "POST" then body = #request.body .. " bytes\n" end
    return ("HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s"):format(fields, #body, body)
  end))
end

local REQUESTS = {
  { "GET /short HTTP/1.1\r\nHost: h.example\r\n\r\n", "short\n" },
  { "GET /long HTTP/1.1\r\nHost: h.example\r\n\r\n", BODY },
  { "POST /body HTTP/1.1\r\nHost: h.example\r\nContent-Length: 20000\r\n\r\n" .. ("x"):rep(20000), "20000 bytes\n" },
}

-- `rounds` of 8 clients that ask at once, on kept connections where they last. Gives how often each status came;
-- [0]: the connection ended without a whole answer.
local function drive(gateway, rounds)
  local clients, seen = {}, {}
  local function note(status) seen[status] = (seen[status] or 0) + 1 end
  for round = 1, rounds do
    for i = 1, 8 do
      clients[i] = clients[i] or gateway:connect()
      clients[i]:send(REQUESTS[(round + i) % 3 + 1][1])
    end
    for i = 1, 8 do
      local response = h.read_response(clients[i])
      local is_whole = response and response.complete
      note(is_whole and response.status or 0)
      if is_whole and response.status == 200 then
        assert.is_true(response.body == REQUESTS[(round + i) % 3 + 1][2], "another body")
      elseif is_whole then
        assert.is_true(response.status >= 500, response.head)
        assert.is_not_nil(response.body:find "^5%d%d %a+", response.body)
      end
      if not is_whole or response.headers.connection == "close" then
        clients[i]:close()
        clients[i] = nil
      end
    end
  end
  for _, client in pairs(clients) do client:close() end
  return seen
end

-- Sockets that are open when nothing is going on, but for the connections that wait in the pool.
-- `most`: as many as there may be; the two figures are of different moments, so a larger one is looked at again.
local function settled(gateway, most)
  local count
  gateway:expect_quiet()
  for _ = 1, 30 do
    count = gateway:socket_count() - gateway:metrics().moongate_upstream_connections_live
    if not most or count <= most then break end
    h.pass(100)
  end
  return count
end

local function fiu_gateway(options)
  local prefix = os.tmpname()
  options.under = { "fiu-run", "-x", "-f", prefix }
  local gateway = h.gateway(options)
  local function control(command)
    local done = h.exec_program("fiu-ctrl", { "-f", prefix, "-c", command, tostring(gateway.pid) })
    assert.equal(0, done.code, done.output)
  end
  function gateway.fail(_, name, errno, probability)
    control(("enable_random name=%s,failinfo=%d,probability=%g"):format(name, errno, probability))
  end
  function gateway.heal(_, name) control("disable name=" .. name) end
  function gateway.forget()
    for _, suffix in ipairs { "", "-" .. gateway.pid .. ".in", "-" .. gateway.pid .. ".out" } do os.remove(prefix .. suffix) end
  end
  return gateway
end

local function shown(seen)
  local parts = {}
  for status, count in pairs(seen) do parts[#parts + 1] = ("%d: %d"):format(status, count) end
  table.sort(parts)
  return table.concat(parts, ", ")
end

local function sum(seen)
  local all = 0
  for _, count in pairs(seen) do all = all + count end
  return all
end

describe("with failing system calls", function()
  -- What fails, with which errors, what clients may see besides 200, and what the log says.
  local CASES = {
    { "socket", "posix/io/net/socket", { EMFILE, ENOBUFS, ENOMEM }, { 502, 503 }, "too many open files" },
    { "connect", "posix/io/net/connect", { ECONNREFUSED, ENETUNREACH, EADDRNOTAVAIL, ENOMEM }, { 502, 503 }, "network is unreachable" },
    { "recv", "posix/io/net/recv", { ECONNRESET, ENOMEM, EINTR }, { 0, 502 }, "connection reset by peer" },
    { "send", "posix/io/net/send", { ENOBUFS, ENOMEM, EINTR }, { 0, 502, 503 }, "no buffer space" },
    { "sendmsg", "posix/io/net/sendmsg", { ENOBUFS, ENOMEM, EINTR }, { 0, 502, 503 }, "out of memory" },
  }
  for _, case in ipairs(CASES) do
    local name, point, errors, allowed, logged = unpack(case)
    it(name .. ": what fails is an answer, or a connection", h.test(function()
      needs "fiu-run"
      local gateway = fiu_gateway { backend = answering_backend(name == "socket" or name == "connect") }
      assert.equal(200, gateway:request("POST /log-level?level=debug HTTP/1.1\r\nHost: localhost\r\n\r\n",
        { port = gateway.admin_port }).status)
      assert.equal(24, drive(gateway, 3)[200])
      local before = settled(gateway)
      local failed = 0
      for _, errno in ipairs(errors) do
        gateway:fail(point, errno, 0.05)
        local seen = drive(gateway, 40)
        gateway:heal(point)
        local bad = sum(seen) - (seen[200] or 0)
        for _, status in ipairs(allowed) do bad = bad - (seen[status] or 0) end
        assert.equal(0, bad, ("errno %d: %s"):format(errno, shown(seen)))
        failed = failed + sum(seen) - (seen[200] or 0)
        assert.equal(24, drive(gateway, 3)[200])
      end
      assert.is_true(failed > 0)
      gateway:wait_log(logged)
      local after = settled(gateway)
      assert.is_true(after <= before, ("%d sockets, then %d"):format(before, after))
      gateway:forget()
    end, 60000))
  end

  local SCRIPT = [[
    moongate.route { path = "/", name = "all", access = function(exchange)
      local words = {}
      for i = 1, tonumber(exchange.request.args.count or 0) do words[i] = ("word"):rep(20) .. i end
      exchange:respond(200, tostring(#table.concat(words) > 0))
    end }
  ]]

  it("mmap and open: what a script or a reload cannot have is an error of theirs", h.test(function()
    needs "fiu-run"
    local options = { settings = { workers = 1 } }
    local gateway = fiu_gateway { config = h.script_config(SCRIPT, options) }
    for _, pattern in ipairs { "not enough memory", "is refused, the old one serves", "too many open files" } do
      gateway:expect_log(pattern)
    end
    assert.equal("true", gateway:get("/?count=10").body)
    local before = settled(gateway)
    gateway:fail("posix/mm/mmap", ENOMEM, 1)
    local statuses = {}
    for i = 1, 60 do -- the C code around the script needs some, too
      local status = gateway:get("/?count=" .. (i % 3 == 0 and 10 or 400000)).status
      statuses[status] = (statuses[status] or 0) + 1
    end
    assert.equal(60, (statuses[500] or 0) + (statuses[200] or 0), shown(statuses))
    assert.is_true(statuses[500] >= 40, shown(statuses))
    gateway:wait_log "not enough memory"
    gateway:rewrite(h.script_config(SCRIPT .. " -- another", options))
    local answer = gateway:ask "reload"
    assert.equal(1, answer.code, answer.stderr)
    assert.is_not_nil(answer.stderr:find "memory", answer.stderr)
    gateway:heal "posix/mm/mmap"
    gateway:fail("posix/io/oc/open", EMFILE, 1)
    answer = gateway:ask "reload"
    assert.equal(1, answer.code, answer.stderr)
    assert.is_not_nil(answer.stderr:find "too many open files", answer.stderr)
    gateway:heal "posix/io/oc/open"
    assert.equal("true", gateway:get("/?count=1000").body)
    assert.equal(0, gateway:ask("reload").code)
    assert.equal("true", gateway:get("/?count=1000").body)
    assert.is_true(settled(gateway, before) <= before)
    gateway:forget()
  end, 60000))

  -- `inject`: what strace does with which call, from which of its uses on, how often.
  local function strace_gateway(options, calls, ...)
    local trace = os.tmpname()
    options.under = { "strace", "-D", "-f", "-qq", "-o", trace, "-e", "trace=" .. calls }
    for _, inject in ipairs { ... } do
      options.under[#options.under + 1] = "-e"
      options.under[#options.under + 1] = "inject=" .. inject
    end
    local gateway = h.gateway(options)
    -- How many calls have failed so far; the file is gone then.
    function gateway.take_failed_count()
      local file = assert(io.open(trace))
      local _, count = file:read "*a":gsub("%(INJECTED%)", "")
      file:close()
      os.remove(trace)
      return count
    end
    return gateway
  end

  local function drive_all(gateway, rounds)
    assert.same({ [200] = 8 * rounds }, drive(gateway, rounds))
  end

  it("accept4: a connection that failed is nothing, exhaustion a pause", h.test(function()
    needs "strace"
    local errors = { "ECONNABORTED", "EINTR", "EPROTO", "EMFILE", "ENOBUFS" }
    for _, name in ipairs(errors) do
      local gateway = strace_gateway({ backend = answering_backend() }, "accept4", ("accept4:error=%s:when=2+3"):format(name))
      drive_all(gateway, 6)
      local pauses = gateway:metrics().moongate_accept_paused_total
      assert.equal(name == "EMFILE" or name == "ENOBUFS", pauses > 0, name)
      if pauses > 0 then gateway:wait_log "accepting pauses: .*ulimit" end
      assert.is_true(gateway:take_failed_count() > 1, name)
      gateway:expect_quiet()
    end
  end, 60000))

  it("accept4: where every one fails, the worker waits, and leaves when it is told to", h.test(function()
    needs "strace"
    local gateway = strace_gateway({ backend = answering_backend() }, "accept4", "accept4:error=EPERM:when=10+")
    drive_all(gateway, 1)
    gateway:connect()
    gateway:wait_log "accepting pauses: operation not permitted\n"
    local before = gateway:cpu_ticks()
    h.pass(500)
    local ticks = gateway:cpu_ticks() - before
    assert.is_true(ticks <= 25, ticks .. " ticks in half a second") -- each refused call stops for strace
    assert.is_true(gateway:take_failed_count() >= 64)
  end, 30000))

  it("epoll_ctl: a connection that cannot be watched is closed, or not made", h.test(function()
    needs "strace"
    local gateway = strace_gateway({ backend = answering_backend(true) }, "epoll_ctl", "epoll_ctl:error=ENOSPC:when=40+11")
    local before = settled(gateway)
    local seen = drive(gateway, 40)
    assert.is_true((seen[200] or 0) > 200, shown(seen))
    assert.is_true(gateway:take_failed_count() > 1)
    assert.equal(320, (seen[200] or 0) + (seen[0] or 0) + (seen[502] or 0) + (seen[503] or 0), shown(seen))
    local ok, after
    for _ = 1, 10 do -- the admin's own connections fail, too
      ok, after = pcall(settled, gateway)
      if ok then break end
    end
    assert.is_true(ok, tostring(after))
    assert.is_true(after <= before, ("%d sockets, then %d"):format(before, after))
  end, 60000))

  it("a gateway that cannot start says why", h.test(function()
    needs "strace"
    local file, dir = h.write_file(h.gateway_config { routes = {}, settings = { workers = 2 } })
    local CALLS = { epoll_create1 = { 1, 2, 3, 4 }, eventfd2 = { 1, 2 }, pipe2 = { 2, 3 }, clone3 = { 1, 2 }, socket = { 1 }, bind = { 1 } }
    for call, firsts in pairs(CALLS) do
      for _, first in ipairs(firsts) do
        local ran = h.exec_program("strace", { "-f", "-qq", "-o", "/dev/null", "-e", "trace=" .. call, "-e",
          ("inject=%s:error=ENOMEM:when=%d+"):format(call, first), os.getenv "MOONGATE_BIN", "run", file, "--control",
          dir .. "/control" })
        local what = ("%s, from the %d. on: %d\n%s"):format(call, first, ran.code, ran.output)
        assert.equal(1, ran.code, what)
        assert.is_not_nil(ran.output:find "cannot [a-z]+.*: " , what)
      end
    end
  end, 30000))

  it("pipe2: without a pipe what would be spliced is copied", h.test(function()
    needs "strace"
    local gateway = strace_gateway({ backend = answering_backend() }, "pipe2", "pipe2:error=EMFILE:when=4+")
    drive_all(gateway, 20)
    gateway:take_failed_count()
    gateway:expect_quiet()
  end, 30000))

  it("splice: what fails is a broken response, never another one", h.test(function()
    needs "strace"
    local gateway = strace_gateway({ backend = answering_backend() }, "splice", "splice:error=ENOMEM:when=20+17")
    local before = settled(gateway)
    local seen = drive(gateway, 60)
    assert.is_true((seen[200] or 0) > 300, shown(seen))
    assert.equal(480, (seen[200] or 0) + (seen[0] or 0) + (seen[502] or 0) + (seen[503] or 0), shown(seen))
    assert.is_true(gateway:take_failed_count() > 1)
    assert.is_true(settled(gateway, before) <= before)
  end, 60000))
end)
