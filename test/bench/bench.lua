-- Runs the works: starts the backend and the proxies, takes turns between the proxies in each round, prints medians, ratios
-- and the bars. The proxy under load has one core for itself; the load generator and the backend share another.
package.path = "test/bench/?.lua;" .. package.path
local bed = require "bed"
local process = require "process"
local proxies = require "proxies"
local figures = require "figures"
local works = require "works"

io.stdout:setvbuf "line"
local options = bed.options("bench", "run [--only NAME[,NAME]]... [--rounds N] [--seconds S] [--json] [--list]", arg,
  { rounds = 3, seconds = 2 })
local command_line, median, number, sorted_keys, json = bed.command_line, bed.median, bed.number, bed.sorted_keys, bed.json

-- ---- proxies

local backend_port = process.free_port()
local h2_backend_port = process.free_port()
local grpc_port = process.free_port()

local function start_proxy(name)
  local proxy = proxies[name]
  local place = ("%s/%s.%d"):format(bed.dir, name, bed.serial())
  local at = { dir = place, port = process.free_port(), backend = backend_port, other = h2_backend_port, grpc = grpc_port,
    build = bed.build, binary = bed.binary }
  local function filled(text)
    return (tostring(text):gsub("%$(%l+)", function(key) return at[key] and tostring(at[key]) end))
  end
  os.execute(("mkdir -p '%s'"):format(place))
  if proxy.file then
    bed.write(place .. "/" .. proxy.file, filled(proxy.text))
  end
  if proxy.prepare and os.execute(filled(proxy.prepare)) ~= 0 then error(name .. ": " .. proxy.prepare) end
  local command = {}
  for i, word in ipairs(proxy.command) do command[i] = filled(word) end
  return { name = name, port = at.port, pid = bed.spawn(command, bed.proxy_core) }
end

local function stop_proxy(proxy)
  bed.stop(proxy.pid)
end

-- ---- load

local run = { seconds = options.seconds }
local loads = {} -- pids of load generators that run

local function start_load(proxy, given)
  local all = { seconds = options.seconds }
  for name, value in pairs(given) do all[name] = value end
  local pid = bed.start_load(proxy, all)
  loads[pid] = true
  return pid
end

local function report_of(proxy, pid)
  local report = bed.report_of(proxy, pid)
  loads[pid] = nil
  if report.errors > 0 then
    error(("%d requests failed"):format(report.errors), 0)
  end
  if report.p99_us and report.requests == 0 then -- else a stalled proxy would have the best figure
    error(("no answer came in the window; the load stood ready without a core for %d %% of it"):format(
      report.own_wait_ns / report.seconds / 1e7), 0)
  end
  return report
end

function run.load(proxy, given)
  return report_of(proxy, start_load(proxy, given))
end

--- A load in the background; the function it gives waits for its end.
function run.crowd(proxy, given)
  local pid = start_load(proxy, given)
  return function() return report_of(proxy, pid) end
end

function run.proxy(name)
  return run.started[name] or bed.fail("no proxy " .. name .. " in this work")
end

-- ---- works

local function take(work, figure, name)
  local proxy = figure.fresh and start_proxy(name) or run.started[name]
  local is_fine, value, notes = pcall(figure.take, run, work, proxy)
  for pid in pairs(loads) do
    bed.stop(pid)
    loads[pid] = nil
  end
  if figure.fresh then stop_proxy(proxy) end
  return is_fine and value, is_fine and notes or {}, tostring(value):gsub("%s+", " ")
end

-- A proxy that fails in one round takes no part in the rest of the work.
local function take_round(work, figure, name, result, round)
  if result.failure then return end
  local value, notes, failure = take(work, figure, name)
  if not value then
    if failure:find "interrupted" then error(failure, 0) end
    result.failure = failure
    return
  end
  result.values[round], result.rounds[round] = value, notes
end

local function medians(rounds)
  local out = {}
  for key in pairs(rounds[1] or {}) do
    local values = {}
    for i, notes in ipairs(rounds) do values[i] = notes[key] end
    out[key] = median(values)
  end
  return out
end

-- name -> { median, values, notes }; the proxies take turns.
local function measure(work, names)
  local figure, results = figures[work.figure], {}
  run.started = {}
  for _, name in ipairs(names) do
    results[name] = { values = {}, rounds = {} }
    if not figure.fresh then run.started[name] = start_proxy(name) end
  end
  for round = 1, options.rounds * (figure.turns or 1) do
    for i = 1, #names do
      local name = names[(i + round - 2) % #names + 1] -- another one begins each round
      take_round(work, figure, name, results[name], round)
    end
  end
  for _, proxy in pairs(run.started) do stop_proxy(proxy) end
  for _, result in pairs(results) do
    if not result.failure then
      result.median = median(result.values)
      result.notes = medians(result.rounds)
    end
    result.rounds = nil
  end
  return results
end

-- "ok", "MISS", "missing" (the verdict needs a proxy that is not here, or failed), or "" where nothing is asked.
local function judge(work, names, results)
  local own, ratios = results[names[1]], {}
  if not own then return "missing", ratios end
  if own.failure then return "MISS", ratios end
  for name, result in pairs(results) do
    if name ~= names[1] and result.median then ratios[name] = own.median / result.median end
  end
  local verdict = (work.bars or work.most) and "ok" or ""
  for name, bar in pairs(work.bars or {}) do
    if not ratios[name] then
      verdict = verdict == "ok" and "missing" or verdict
    elseif ratios[name] > bar then
      verdict = "MISS"
    end
  end
  if work.most and own.median > work.most then verdict = "MISS" end
  for key, most in pairs(work.most_notes or {}) do
    if own.notes[key] > most then verdict = "MISS" end
  end
  return verdict, ratios
end

-- ---- output

local function notes_text(notes)
  local parts = {}
  for _, key in ipairs(sorted_keys(notes)) do parts[#parts + 1] = key .. " " .. number(notes[key]) end
  return table.concat(parts, ", ")
end

local function print_work(work, names, results, ratios, verdict)
  local bar = work.most and ("at most %s %s"):format(number(work.most), figures[work.figure].unit) or ""
  print(("\n%s: %s  %s  %s"):format(work.name, work.title, bar, verdict))
  for i, name in ipairs(names) do
    local result, ratio = results[name], ""
    if not result then
      print(("  %-12s missing (%s)"):format(name, proxies[name].package or proxies[name].needs))
    elseif result.failure then
      print(("  %-12s FAILED: %s"):format(name, result.failure))
    else
      if ratios[name] then
        local most = work.bars and work.bars[name]
        ratio = ("%.2f%s"):format(ratios[name], most and (" (at most %.2f)"):format(most) or "")
      end
      print(("  %-12s %10s %-3s %-20s %s"):format(name, number(result.median), figures[work.figure].unit, ratio,
        notes_text(result.notes)))
    end
  end
end

-- ---- main

local function present(names)
  local out = {}
  for _, name in ipairs(names) do
    if process.has(proxies[name].needs) then out[#out + 1] = name end
  end
  return out
end

local function print_versions()
  for _, name in ipairs { "moongate", "nginx", "haproxy" } do
    local proxy = proxies[name]
    print(("%-10s %s"):format(name, process.has(proxy.needs) and command_line(proxy.version) or
      ("MISSING: make deps-bench installs " .. tostring(proxy.package))))
  end
  print(("%d rounds of %s s, medians; the proxy on core %d, load and backend on core %d"):format(options.rounds,
    number(options.seconds), bed.proxy_core, bed.load_core))
  if bed.proxy_core == bed.load_core then print "ONE CORE ONLY: CPU per request still compares, latencies do not" end
end

local function main()
  local all, is_fine = {}, true
  if not options.json then print_versions() end
  bed.start_backend(backend_port)
  if process.has "nghttpd" then bed.start_h2_backend(h2_backend_port) end
  bed.spawn({ bed.build .. "/bench/grpc", "serve", grpc_port }, bed.load_core)
  for _, work in ipairs(bed.chosen(works, options)) do
    local names = work.proxies or { "moongate", "nginx", "haproxy" }
    local results = measure(work, present(names))
    local verdict, ratios = judge(work, names, results)
    is_fine = is_fine and (verdict == "ok" or verdict == "")
    all[#all + 1] = { name = work.name, title = work.title, unit = figures[work.figure].unit, ratios = ratios,
      proxies = results, bars = work.bars, most = work.most,
      most_notes = work.most_notes, verdict = verdict }
    if not options.json then print_work(work, names, results, ratios, verdict) end
  end
  if options.json then print(json { rounds = options.rounds, seconds = options.seconds, works = all }) end
  return is_fine
end

bed.run(works, options, main)
