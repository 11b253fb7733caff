-- How each kind of figure is taken from one proxy in one round. `take(run, work, proxy)` gives the figure and, where it has
-- something to tell, notes by name; `turns` says how often it is taken in a round. `run` (bench.lua) offers
-- load(proxy, options) -> report, crowd(proxy, options) -> wait().
local bed = require "bed"
local process = require "process"

local figures = {}

-- How long the proxy, or the load generator, stood ready while something else had its core: over a few percent, latencies mean
-- nothing. (The backend shares the load's core and disturbs it by right.)
local function disturbed(report, notes)
  notes["disturbed_%"] = report.wait_ns / report.seconds / 1e7
  notes["load_waited_%"] = report.own_wait_ns / report.seconds / 1e7
  return notes
end

local function merged(base, over)
  local out = {}
  for key, value in pairs(base) do out[key] = value end
  for key, value in pairs(over) do out[key] = value end
  return out
end

--- CPU time of the proxy's process for a request. The machine's speed changes within seconds: many short turns, so that all meet
--- the same of it.
figures.cpu = {
  unit = "us",
  turns = 5, -- for each round
  take = function(run, work, proxy)
    local report = run.load(proxy, merged({ seconds = run.seconds / figures.cpu.turns, warmup = 0.2 }, work.load))
    return report.cpu_ns / report.requests / 1000, disturbed(report, { rate = report.requests / report.seconds })
  end,
}

--- The same by h2load, which knows HTTP/2: so many requests, those that open the connections included.
figures.h2 = {
  unit = "us",
  take = function(run, work, proxy)
    local count = math.floor(work.load.rate * run.seconds)
    local scheme = work.load.tls and "https" or "http"
    local before = process.cpu_ns(proxy.pid)
    local pid = bed.spawn({ "h2load", "-n", count, "-c", work.load.connections, "-m", work.load.streams,
      ("%s://127.0.0.1:%d/%d"):format(scheme, proxy.port, work.load.response) }, bed.load_core)
    process.wait(pid)
    local text = bed.output(pid)
    local done = tonumber(text:match "(%d+) succeeded")
    if done ~= count then error(("h2load: %s"):format(text:match "requests: [^\n]*" or text), 0) end
    return (process.cpu_ns(proxy.pid) - before) / count / 1000, { rate = tonumber(text:match "([%d.]+) req/s") }
  end,
}

--- CPU time of the proxy's process for a message there and back, by grpc.c.
figures.grpc = {
  unit = "us",
  take = function(run, work, proxy)
    local count = math.floor(work.load.rate * run.seconds)
    local before = process.cpu_ns(proxy.pid)
    local pid = bed.spawn({ bed.build .. "/bench/grpc", "load", proxy.port, work.load.connections, work.load.streams,
      work.load.message, count }, bed.load_core)
    process.wait(pid)
    local done, seconds = bed.output(pid):match "^(%d+) messages in ([%d.]+) seconds"
    if tonumber(done) ~= count then error("grpc: " .. bed.output(pid), 0) end
    return (process.cpu_ns(proxy.pid) - before) / count / 1000, { rate = count / tonumber(seconds) }
  end,
}

--- 99th percentile of latency, open loop, at a share of a proxy's peak rate, which is measured once.
figures.latency = {
  unit = "us",
  take = function(run, work, proxy)
    local others = work.others
    if not others.rate then
      local best = 0
      for _ = 1, 3 do
        local report = run.load(run.proxy(others.peak_of), others.closed)
        best = math.max(best, report.requests / report.seconds)
      end
      others.rate = math.floor(best * others.share)
    end
    local report = run.load(proxy, merged(work.load, { rate = others.rate }))
    return report.p99_us, disturbed(report, { rate = others.rate, p50_us = report.p50_us })
  end,
}

--- Resident bytes that one more idle connection costs. The proxy is new, and warm from a short load.
figures.idle = {
  unit = "B",
  fresh = true,
  take = function(run, work, proxy)
    local protocol = work.load.protocol
    run.load(proxy, { connections = 64, response = 128, seconds = 0.3, tls = work.load.tls, protocol = protocol,
      mode = protocol and "idle" })
    local report = run.load(proxy, merged(work.load, { mode = "idle", seconds = 0.5 }))
    return (report.rss_after - report.rss_before) / work.load.connections
  end,
}

-- The reports of measured clients beside a crowd, and of the crowd, which has come in their warm-up and stays `longer` than they.
local function beside_crowd(run, work, proxy, longer)
  local wait = run.crowd(proxy, merged(work.others.crowd, { seconds = run.seconds + 4 + longer }))
  local beside = run.load(proxy, merged(work.load, { warmup = 4 }))
  return beside, wait()
end

--- p99 of measured clients beside a crowd of slow ones, as a multiple of the same without them; and the memory they cost.
figures.slow = {
  unit = "x",
  fresh = true,
  take = function(run, work, proxy)
    local alone = run.load(proxy, work.load)
    local beside, crowd = beside_crowd(run, work, proxy, 1)
    return beside.p99_us / alone.p99_us, disturbed(beside, {
      alone_us = alone.p99_us,
      beside_us = beside.p99_us,
      bytes_each = (crowd.rss_after - crowd.rss_before) / work.others.crowd.connections,
    })
  end,
}

--- p99 of measured clients beside attackers (reference A40 to A45), as a multiple of the same before and after; and what the proxy
--- held for them, as a share of what it may: ten times what they sent, 64 KiB a connection, 16 KiB an open stream.
figures.attack = {
  unit = "x",
  fresh = true,
  take = function(run, work, proxy)
    local before = run.load(proxy, work.load)
    local beside, crowd = beside_crowd(run, work, proxy, 1.5)
    local after = run.load(proxy, work.load)
    return 2 * beside.p99_us / (before.p99_us + after.p99_us), disturbed(beside, {
      before_us = before.p99_us,
      beside_us = beside.p99_us,
      after_us = after.p99_us,
      held_share = crowd.held_share,
      held_bytes = crowd.held,
      steps_s = crowd.steps / crowd.seconds,
      thrown_out_s = crowd.ends / crowd.seconds,
      ["attacker_cpu_%"] = crowd.own_cpu_ns / crowd.seconds / 1e7,
      ["proxy_cpu_%"] = beside.cpu_ns / beside.seconds / 1e7,
    })
  end,
}

return figures
