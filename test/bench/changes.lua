-- What changes and large tables cost: reloads under load, 10,000 routes, scrapes of /metrics beside traffic, reloads without
-- end, endpoints that come and go. Each work gives figures by name, some with a bar. The proxy has one core, everything else the other.
package.path = "test/bench/?.lua;" .. package.path
local bed = require "bed"
local process = require "process"

local SIGHUP = 1
local HOSTS, ROUTES_PER_HOST = 1000, 10
local MARKER = "x-generation"

io.stdout:setvbuf "line"
local options = bed.options("changes",
  "changes [--only NAME[,NAME]]... [--seconds S] [--still S] [--reloads N] [--rate N] [--rounds N] [--json] [--list]", arg,
  { seconds = 60, still = 0, reloads = 100, rate = 17500, rounds = 3 })
if options.still == 0 then options.still = options.seconds end
local backend_port = process.free_port()

-- ---- the proxy

local BASE = [[
local moongate = require "moongate"
moongate.listener { port = %d, address = "127.0.0.1" }
moongate.upstream { name = "backend", endpoints = { "127.0.0.1:%d" } }
moongate.route {
  path = "/", backends = "backend", plugins = { { "response-headers", set = { ["%s"] = "%d" } } },
}
]]

local MANY = [[
for host = 0, %d do
  for service = 0, %d do
    moongate.route {
      hosts = { ("host-%%d.example.com"):format(host) }, path = "/128/service-" .. service, backends = "backend",
    }
  end
end
]]

-- One half of all generations has another route table than the generation before. Their sizes come round every ten, so that
-- none is the largest yet after memory has been read for the first time.
local function small_config(port, generation)
  local table_number = math.floor(generation / 2)
  return BASE:format(port, backend_port, MARKER, generation) ..
    ('for i = 1, %d do moongate.route { path = "/%d/" .. i, backends = "backend" } end\n'):format(
      20 + 5 * (table_number % 5), 100000 + table_number)
end

-- Half of the kept connections' requests are answered in place.
local ANSWERED = [[
moongate.route {
  path = "/answered",
  plugins = {
    { "response-headers", set = { ["%s"] = "%d" } },
    { "direct-response", body = ("x"):rep(128) },
  },
}
]]

local function reloading_config(port, generation)
  return small_config(port, generation) .. ANSWERED:format(MARKER, generation)
end

local function one_config(port)
  return BASE:format(port, backend_port, MARKER, 1)
end

-- `spare`: an endpoint that no request goes to, `path`: of a route that takes none.
local function many_config(port, spare, path)
  return BASE:format(port, backend_port, MARKER, 1) .. MANY:format(HOSTS - 1, ROUTES_PER_HOST - 1) ..
    ('moongate.upstream { name = "spare", endpoints = { "127.0.0.1:%d" } }\n'):format(spare or 1) ..
    ('moongate.route { path = "/spare/%d", backends = "spare" }\n'):format(path or 1)
end

local function start_proxy(name, config)
  local place = ("%s/%s.%d"):format(bed.dir, name, bed.serial())
  local proxy = { name = name, port = process.free_port(), admin_port = process.free_port(), file = place .. ".lua" }
  bed.write(proxy.file, config(proxy.port, 1))
  proxy.pid = bed.spawn({ bed.binary, "run", proxy.file, "--workers", 1, "--admin", "127.0.0.1:" .. proxy.admin_port,
    "--control", place .. ".sock" }, bed.proxy_core)
  for _ = 1, 500 do
    if process.ask(proxy.admin_port, "GET", "/readyz") == 200 then return proxy end
    process.sleep(0.02)
  end
  error("the proxy does not start: " .. bed.output(proxy.pid), 0)
end

-- Replaces the file in one step, as an editor does.
local function rewrite(proxy, text)
  bed.write(proxy.file .. ".new", text)
  assert(os.rename(proxy.file .. ".new", proxy.file))
end

-- Returns when every worker serves it: took_ms, and of that compiling, in ms.
local function reload(proxy)
  local status, body = process.ask(proxy.admin_port, "POST", "/reload")
  local took_ms = tonumber(body:match '"took_ms":(%d+)')
  if status ~= 200 or not body:find('"fine":true', 1, true) then
    error(("a reload failed: %s %s\n%s"):format(tostring(status), body, bed.output(proxy.pid)), 0)
  end
  return took_ms, tonumber(body:match '"compile_us":(%d+)') / 1000
end

local function generation_of(proxy)
  local _, body = process.ask(proxy.admin_port, "GET", "/status")
  return tonumber(body:match '"generation":(%d+)')
end

local function sleep_until(at_ns)
  local left = at_ns - process.now_ns()
  if left > 0 then process.sleep(left / 1e9) end
end

local function most(values)
  local out = 0
  for _, value in ipairs(values) do out = math.max(out, value) end
  return out
end

-- ---- figures of a work: { name, value, unit, most = bar, least = bar }, in order

local function figures_of(list)
  local function add(name, value, unit, bars)
    local figure = { name = name, value = value, unit = unit or "" }
    for key, bar in pairs(bars or {}) do figure[key] = bar end
    list[#list + 1] = figure
  end
  return add
end

-- ---- reloads

local LOADS = { "kept", "closing", "slow", "tunnel" }

local function start_loads(proxy, seconds)
  local is_open = options.rate > 0
  local given = {
    kept = { connections = 64, rate = math.floor(options.rate * 0.95), seconds = seconds, marker = MARKER, pipeline = 16,
      also = "/answered" },
    closing = { connections = is_open and 32 or 4, rate = math.floor(options.rate * 0.05), close = 1, seconds = seconds,
      marker = MARKER },
    slow = { mode = "slow", response = math.floor(seconds * 1048576), seconds = seconds },
    tunnel = { mode = "tunnel", seconds = seconds },
  }
  local pids = {}
  for _, name in ipairs(LOADS) do pids[name] = bed.start_load(proxy, given[name]) end
  return function()
    local reports = {}
    for _, name in ipairs(LOADS) do reports[name] = bed.report_of(proxy, pids[name]) end
    return reports
  end
end

-- Reloads spread over the time: when each was asked for and had been answered, how long it took, memory after each.
local function reload_often(proxy, seconds)
  local asked, answered, took, memory = {}, {}, {}, {}
  local step_ns = seconds * 1e9 / (options.reloads + 1)
  local start = process.now_ns() + 0.5e9 -- the generators' warm-up
  for i = 1, options.reloads do
    rewrite(proxy, reloading_config(proxy.port, i + 1))
    sleep_until(start + i * step_ns)
    memory[i - 1] = process.memory(proxy.pid)
    asked[i + 1] = process.now_ns()
    took[i] = reload(proxy)
    answered[i + 1] = process.now_ns()
  end
  sleep_until(start + (options.reloads + 0.9) * step_ns)
  memory[options.reloads] = process.memory(proxy.pid)
  return { asked = asked, answered = answered, took = took, memory = memory }
end

-- How late each generation was seen at most (s), how many were not, and how many were seen after their successor served.
local function judge_markers(reports, history)
  local latest, unseen, old = 0, 0, 0
  for generation = 2, options.reloads + 1 do
    local first
    for _, name in ipairs { "kept", "closing" } do
      local seen, before = reports[name].seen[generation], reports[name].seen[generation - 1]
      if seen then first = math.min(first or math.huge, seen.first_ns) end
      if before and before.last_sent_ns > history.answered[generation] then old = old + 1 end
    end
    if first then latest = math.max(latest, (first - history.asked[generation]) / 1e9) else unseen = unseen + 1 end
  end
  return latest, unseen, old
end

local function add_failures(add, reports)
  local sums = { requests = 0, errors = 0, resets = 0, stale = 0 }
  for _, report in pairs(reports) do
    for key, value in pairs(sums) do sums[key] = value + report[key] end
  end
  add("requests", sums.requests, "", { least = 1e6 * math.min(1, options.seconds / 60) })
  add("of these on new connections", reports.closing.requests)
  add("of these sent together with one before", reports.kept.pipelined)
  add("failed", sums.errors, "", { most = 0 })
  add("requests that the generator never came to send", reports.kept.unsent + reports.closing.unsent)
  add("connection resets", sums.resets, "", { most = 0 })
  add("kept connections closed under a request", sums.stale)
  add("bytes of the slow download", reports.slow.exchanged, "B", { least = math.floor(options.seconds * 1048576) })
  add("lines through the tunnel", reports.tunnel.requests)
end

local function add_memory(add, memory)
  local from, to = math.max(1, math.floor(options.reloads / 5)), options.reloads
  for _, kind in ipairs { "rss", "anonymous", "pss" } do -- pss moves with other processes that come and go: no bar
    add(("%s after reload %d"):format(kind, from), memory[from][kind] / 1024, "KiB")
    add(("%s after reload %d"):format(kind, to), memory[to][kind] / 1024, "KiB")
    add(kind .. " growth", (memory[to][kind] / memory[from][kind] - 1) * 100, "%", kind == "rss" and { most = 3 })
  end
end

local works = {}

works[1] = { name = "reloads", title = "reloads under load", take = function(add)
  local proxy = start_proxy("still", reloading_config)
  local still = start_loads(proxy, options.still)()
  bed.stop(proxy.pid)
  proxy = start_proxy("reloading", reloading_config)
  local wait = start_loads(proxy, options.seconds)
  local history = reload_often(proxy, options.seconds)
  local reports = wait()
  add_failures(add, reports)
  local latest, unseen, old = judge_markers(reports, history)
  add("reloads", options.reloads)
  add("a reload took, median", bed.median(history.took), "ms")
  add("a reload took, at most", most(history.took), "ms")
  add("generation first seen after, at most", latest, "s", { most = 1 })
  add("generations never seen", unseen, "", { most = 0 })
  add("generations seen after the next one served", old, "", { most = 0 })
  for _, name in ipairs { "kept", "closing", "tunnel" } do
    add(name .. ": p99 without reloads", still[name].p99_us, "us")
    add(name .. ": p99 with reloads", reports[name].p99_us, "us")
    add(name .. ": p99, ratio", reports[name].p99_us / still[name].p99_us, "x", name ~= "tunnel" and { most = 2 })
  end
  add("disturbed without reloads", still.kept.wait_ns / still.kept.seconds / 1e7, "%")
  add("disturbed with reloads", reports.kept.wait_ns / reports.kept.seconds / 1e7, "%")
  add_memory(add, history.memory)
  bed.stop(proxy.pid)
end }

-- ---- many routes

local function check_ms(file)
  local start = process.now_ns()
  local pid = bed.spawn({ bed.binary, "check", file }, bed.load_core)
  if process.wait(pid) ~= 0 then error("check refuses " .. file .. ": " .. bed.output(pid), 0) end
  return (process.now_ns() - start) / 1e6
end

-- One endpoint of 2, or one route of 10,002, is another.
local function reload_ms(proxy, what)
  proxy[what] = (proxy[what] or 1) + 1
  rewrite(proxy, many_config(proxy.port, proxy.endpoint, proxy.route))
  return reload(proxy)
end

-- Microseconds of CPU for a request.
local function cpu_us(proxy, route_count)
  local given = { connections = 64, seconds = 2, routes = route_count }
  local report = bed.report_of(proxy, bed.start_load(proxy, given))
  if report.errors > 0 then error(("%d requests failed"):format(report.errors), 0) end
  return report.cpu_ns / report.requests / 1000
end

works[2] = { name = "routes", title = "10,000 routes of 1,000 hosts", take = function(add)
  local one, many = start_proxy("one", one_config), start_proxy("many", many_config)
  local count = HOSTS * ROUTES_PER_HOST
  local checks, cpu = {}, { one = {}, many = {}, hot = {} }
  local took, compiled = { route = {}, endpoint = {} }, { route = {}, endpoint = {} }
  add("memory with 1 route", process.memory(one.pid).rss / 1024, "KiB")
  add("memory with 10,000 routes", process.memory(many.pid).rss / 1024, "KiB")
  for round = 1, options.rounds do
    checks[round] = check_ms(many.file)
    for _, what in ipairs { "route", "endpoint" } do
      took[what][round], compiled[what][round] = reload_ms(many, what)
    end
    cpu.one[round] = cpu_us(one, count)
    cpu.many[round] = cpu_us(many, count)
    cpu.hot[round] = cpu_us(many, ROUTES_PER_HOST)
  end
  local base = bed.median(cpu.one)
  add("moongate check", bed.median(checks), "ms")
  for _, what in ipairs { "route", "endpoint" } do
    add(("a reload with another %s took"):format(what), bed.median(took[what]), "ms")
    add("  of that compiling", bed.median(compiled[what]), "ms", what == "endpoint" and { most = 10 })
  end
  add("a request, 1 route", base, "us")
  add("a request, 10,000 routes, 10 in use", bed.median(cpu.hot), "us")
  add("  ratio", bed.median(cpu.hot) / base, "x", { most = 1.1 })
  add("a request, 10,000 routes, all in use", bed.median(cpu.many), "us")
  add("  ratio", bed.median(cpu.many) / base, "x")
  bed.stop(one.pid)
  bed.stop(many.pid)
end }

-- ---- scrapes

local function scrape_often(proxy, seconds)
  local took, len = {}, 0
  local start = process.now_ns() + 0.5e9
  for i = 1, math.floor(seconds / 0.2) do
    sleep_until(start + i * 0.2e9)
    local begin = process.now_ns()
    local status, body = process.ask(proxy.admin_port, "GET", "/metrics")
    if status ~= 200 then error("a scrape failed: " .. tostring(status), 0) end
    took[#took + 1], len = (process.now_ns() - begin) / 1e6, #body
  end
  return took, len
end

-- Every route counts under its own name, where as it is shipped 2,000 do.
local function named_config(port)
  return many_config(port) .. ("moongate.settings { metrics = { series = %d } }\n"):format(2 * HOSTS * ROUTES_PER_HOST)
end

local function measure_scrapes(add, name, config)
  local proxy = start_proxy("scraped", config)
  local seconds = math.min(10, options.seconds)
  local given = { connections = 64, rate = math.floor(options.rate / 3), seconds = seconds, routes = HOSTS * ROUTES_PER_HOST }
  cpu_us(proxy, HOSTS * ROUTES_PER_HOST) -- every route has its series
  local still, scraped, disturbed, took, len = {}, {}, {}, nil, nil
  for round = 1, options.rounds do
    still[round] = bed.report_of(proxy, bed.start_load(proxy, given)).p99_us
    local pid = bed.start_load(proxy, given)
    took, len = scrape_often(proxy, seconds)
    local report = bed.report_of(proxy, pid)
    if report.errors > 0 then error(("%d requests failed"):format(report.errors), 0) end
    scraped[round], disturbed[round] = report.p99_us, report.wait_ns / report.seconds / 1e7
  end
  add(name .. ": size of a scrape", len / 1024, "KiB")
  add(name .. ": a scrape took, median", bed.median(took), "ms")
  add(name .. ": a scrape took, at most", most(took), "ms")
  add(name .. ": p99 without scrapes", bed.median(still), "us")
  add(name .. ": p99 with scrapes", bed.median(scraped), "us")
  add(name .. ": ratio", bed.median(scraped) / bed.median(still), "x")
  add(name .. ": disturbed", bed.median(disturbed), "%")
  bed.stop(proxy.pid)
end

works[3] = { name = "scrape", title = "/metrics each 200 ms beside traffic on 10,000 routes", take = function(add)
  measure_scrapes(add, "2,000 series", many_config)
  measure_scrapes(add, "10,000 series", named_config)
end }

-- ---- a leak

local POINTS = { [20] = true, [100] = true, [500] = true, [1000] = true }

local function hang_up(proxy, generation)
  rewrite(proxy, small_config(proxy.port, generation))
  process.signal(proxy.pid, SIGHUP)
  for _ = 1, 2000 do
    if generation_of(proxy) == generation then return end
    process.sleep(0.002)
  end
  error("SIGHUP was not answered by generation " .. generation .. ": " .. bed.output(proxy.pid), 0)
end

works[4] = { name = "leak", title = "1,000 SIGHUPs without load", take = function(add)
  local proxy = start_proxy("leak", small_config)
  local at = {}
  for i = 1, 1000 do
    hang_up(proxy, i + 1)
    if POINTS[i] then
      process.sleep(1) -- what was replaced is swept
      at[i] = process.memory(proxy.pid)
      add(("rss after %d"):format(i), at[i].rss / 1024, "KiB")
      add(("anonymous after %d"):format(i), at[i].anonymous / 1024, "KiB")
    end
  end
  add("growth from 100 to 1,000", (at[1000].rss / at[100].rss - 1) * 100, "%", { most = 3 })
  bed.stop(proxy.pid)
end }

-- ---- endpoints that come and go

local UPSTREAMS, CHANGES = 100, 50

local ENDPOINTS = [[
local moongate = require "moongate"
moongate.settings { resolver = { servers = { "127.0.0.1:%d" } } }
moongate.listener { port = %d, address = "127.0.0.1" }
moongate.route { path = "/", backends = "svc-0" }
for i = 0, %d do
  local host, service = math.floor(i / %d), i %% %d
  moongate.upstream { name = "svc-" .. i, endpoints = { ("svc-%%d.test:%%d"):format(i, %d) } }
  moongate.route {
    hosts = { ("host-%%d.example.com"):format(host) }, path = "/128/service-" .. service, backends = "svc-" .. i,
  }
end
]]

-- How often the endpoints of all upstreams have changed, as the gateway knows them: each is a number written as an address.
local function changes_seen(proxy)
  local sum, count = 0, 0
  for i = 0, UPSTREAMS - 1 do
    local url = ("http://host-%d.example.com/128/service-%d"):format(math.floor(i / ROUTES_PER_HOST), i % ROUTES_PER_HOST)
    local _, body = process.ask(proxy.admin_port, "GET", "/explain?url=" .. url:gsub("[:/]", "%%%0"):gsub("%%:", "%%3A")
      :gsub("%%/", "%%2F"))
    local least = math.huge
    for high, low in body:gmatch '"address":"127%.%d+%.(%d+)%.(%d+):%d+","weight"' do
      count = count + 1
      least = math.min(least, (tonumber(high) - 1) * 250 + tonumber(low) - 1)
    end
    sum = sum + least
  end
  return sum, count
end

-- Below the ports that connections leave from: one of those would keep a server on any address from its port.
local function low_port()
  return 20000 + process.free_port() % 10000
end

local function start_endpoints(name, rate, ttl)
  local dns_port, any_port = low_port(), low_port()
  local backend = bed.spawn({ bed.build .. "/bench/backend", any_port, "any" }, bed.load_core)
  local dns = bed.spawn({ "luajit", "test/bench/dns.lua", dns_port, rate, ttl }, bed.load_core)
  for _ = 1, 500 do
    process.sleep(0.02)
    local is_there, text = pcall(bed.output, dns) -- its file may come later
    if is_there and text:find "ready" then break end
  end
  local proxy = start_proxy(name, function(port)
    return ENDPOINTS:format(dns_port, port, UPSTREAMS - 1, ROUTES_PER_HOST, ROUTES_PER_HOST, any_port)
  end)
  proxy.dns, proxy.backend = dns, backend
  return proxy
end

local function stop_endpoints(proxy)
  bed.stop(proxy.pid)
  bed.stop(proxy.dns)
  bed.stop(proxy.backend)
end

-- One run; memory[i] at the i-th tenth of it.
local function take_endpoints(name, rate, ttl, seconds)
  local proxy, memory = start_endpoints(name, rate, ttl), {}
  local given = { connections = 64, rate = math.floor(options.rate / 3), routes = UPSTREAMS }
  given.seconds = 3 -- every endpoint has been met, once at least
  bed.report_of(proxy, bed.start_load(proxy, given))
  given.seconds = seconds
  local seen, count = changes_seen(proxy)
  local begin = process.now_ns()
  local pid = bed.start_load(proxy, given)
  for i = 1, 10 do
    sleep_until(begin + 0.5e9 + i * seconds * 0.098e9)
    memory[i] = process.memory(proxy.pid)
  end
  local report = bed.report_of(proxy, pid)
  report.changes = (changes_seen(proxy) - seen) / ((process.now_ns() - begin) / 1e9)
  report.memory, report.endpoints = memory, count
  stop_endpoints(proxy)
  return report
end

works[5] = { name = "endpoints", title = "50 endpoint changes a second on 5,000 endpoints", take = function(add)
  local p99, cpu, disturbed = { still = {}, asked = {}, changing = {} }, { still = {}, asked = {}, changing = {} }, {}
  local given = { still = { 0, 86400 }, asked = { 0, 1 }, changing = { CHANGES, 1 } }
  local last, errors, seconds = nil, 0, math.min(options.seconds, 20)
  for round = 1, options.rounds do
    for _, name in ipairs { "still", "asked", "changing" } do
      local is_last = name == "changing" and round == options.rounds
      local report = take_endpoints(name, given[name][1], given[name][2], is_last and options.seconds or seconds)
      p99[name][round], cpu[name][round] = report.p99_us, report.cpu_ns / report.requests / 1000
      errors = errors + report.errors + report.resets
      if name == "changing" then last, disturbed[round] = report, report.wait_ns / report.seconds / 1e7 end
    end
  end
  add("endpoints", last.endpoints)
  add("changes a second that the gateway took", last.changes, "", { least = CHANGES * 0.9 })
  add("failed, or reset", errors, "", { most = 0 })
  add("p99 without changes", bed.median(p99.still), "us")
  add("p99, names asked for each second", bed.median(p99.asked), "us")
  add("p99 with changes", bed.median(p99.changing), "us")
  add("  ratio to none", bed.median(p99.changing) / bed.median(p99.still), "x", { most = 1.1 })
  add("  ratio to names asked for", bed.median(p99.changing) / bed.median(p99.asked), "x")
  for _, name in ipairs { "still", "asked", "changing" } do
    add("CPU of a request, " .. name, bed.median(cpu[name]), "us")
  end
  add("disturbed with changes", bed.median(disturbed), "%")
  add("rss after a fifth", last.memory[2].rss / 1024, "KiB")
  add("rss at the end", last.memory[10].rss / 1024, "KiB")
  add("rss growth", (last.memory[10].rss / last.memory[2].rss - 1) * 100, "%", { most = 3 })
end }

-- ---- output

local function is_missed(figure)
  return (figure.most and figure.value > figure.most) or (figure.least and figure.value < figure.least) or false
end

local function bar_text(figure)
  local bar, word = figure.most or figure.least, figure.most and "at most" or "at least"
  if not bar then return "" end
  return ("%s %s  %s"):format(word, bed.number(bar), is_missed(figure) and "MISS" or "ok")
end

-- What was missed, by name; a work without bars has nothing to judge.
local function verdict_of(figures)
  local bar_count, missed = 0, {}
  for _, figure in ipairs(figures) do
    if figure.most or figure.least then bar_count = bar_count + 1 end
    if is_missed(figure) then missed[#missed + 1] = figure.name end
  end
  if bar_count == 0 then return "no bar" end
  if #missed == 0 then return ("PASS, all %d bars met"):format(bar_count) end
  return ("FAIL, %d of %d bars missed: %s"):format(#missed, bar_count, table.concat(missed, "; "))
end

local function print_work(work, figures)
  print(("\n%s: %s"):format(work.name, work.title))
  for _, figure in ipairs(figures) do
    print((("  %-44s %12s %-4s %s"):format(figure.name, bed.number(figure.value), figure.unit, bar_text(figure))
      :gsub("%s+$", "")))
  end
  print("  verdict: " .. verdict_of(figures))
end

local function main()
  local all, is_fine = {}, true
  local backend = bed.start_backend(backend_port)
  if bed.proxy_core == bed.load_core and not options.json then print "ONE CORE ONLY: latencies mean little" end
  for _, work in ipairs(bed.chosen(works, options)) do
    local figures = {}
    local ran, err = pcall(work.take, figures_of(figures))
    if not process.is_alive(backend) then error("the backend was killed in " .. work.name .. ": no figures", 0) end
    if not ran then error(err, 0) end
    for _, figure in ipairs(figures) do
      figure.missed = is_missed(figure)
      is_fine = is_fine and not figure.missed
    end
    all[#all + 1] = { name = work.name, title = work.title, figures = figures }
    if not options.json then print_work(work, figures) end
  end
  if options.json then
    print(bed.json { seconds = options.seconds, reloads = options.reloads, rate = options.rate, works = all })
  end
  return is_fine
end

bed.run(works, options, main)
