--- Certificates that the gateway obtains by itself: which are wanted, when the next try is due, what is told of it. In a VM of
--- its own on the control thread (core/script/acme.h), which calls configure.
---
---   a job: waiting --due--> looks at its file; is it good for long? --no--> asks the CA --> writes the file, waits
---                                                                            `-- fails: waits longer each time
---
--- What is written is taken into use by who watches the files of certificates.

local acme_client = require "moongate.control.acme_client"
local log = require "moongate.log"
local native = require "moongate._core.native"
local task = require "moongate._core.task"
local timer = require "moongate.timer"

local acme = {}

local TICK = 1
local BUSY_MAX = 4
local KINDS = { "tls-alpn-01", "http-01" } -- where the configuration leaves it open: the first needs no other port
-- Pauses between tries, seconds, doubled from the first to the last: while nobody is reached, and after all else, which CAs
-- count (Let's Encrypt: 5 an hour for a host).
local SOON = { first = 2, last = 600 }
local LATER = { first = 300, last = 6 * 3600 }

local RETRY_AFTER_MAX = 7 * 86400

local jobs = {}    -- by path of the file
local clients = {} -- by path of the account's key
local busy_count = 0

-- ---- what is told

-- Nothing of what nobody wants any more.
local function tell(job)
  if jobs[job.path] ~= job then return end
  native.acme.tell {
    path = job.path, host = job.host, error = job.error, expires = job.expires, next = job.due,
    obtained = job.obtained, failures = job.failures,
  }
end

local function date(seconds)
  return os.date("!%Y-%m-%d %H:%M:%S UTC", seconds)
end

-- ---- when

local function jitter(seconds)
  return seconds * (0.75 + 0.5 * math.random())
end

-- At two thirds of its life; of many that came together not all at once. Never at once again, whatever the clocks say.
local function renewal_of(begins, ends, now)
  local life = ends - begins
  local at = begins + life * (2 / 3 - 0.03 * math.random())
  return math.max(at, now + math.min(math.max((ends - now) / 3, 2), 86400))
end

local function pause_after(job, fault)
  local scale = fault.is_soon and SOON or LATER
  local seconds = math.min(scale.first * 2 ^ math.min(job.streak - 1, 30), scale.last)
  return math.max(jitter(seconds), math.min(fault.retry_after or 0, RETRY_AFTER_MAX))
end

-- ---- the file

-- Whether the file holds a certificate that is good for long; another gateway may have written it.
local function look(job, now)
  local text, why, is_missing = native.acme.read(job.path)
  if not text then
    if not is_missing then return false, why end
    return false
  end
  local begins, ends = native.acme.inspect(text, job.host)
  if not begins then return false, ends end
  job.expires = ends
  if ends <= now then return false end
  local due = begins + (ends - begins) * 2 / 3
  if due <= now then return false end
  return true, begins, ends
end

local function rest(job, begins, ends, now)
  job.streak, job.error = 0, nil
  job.due = renewal_of(begins, ends, now)
  tell(job)
end

-- ---- a try

local function client_of(job)
  local client = clients[job.account]
  if not client or client.settings.directory ~= job.directory or client.settings.ca ~= job.ca or
    client.settings.email ~= job.email or client.settings.eab_kid ~= job.eab_kid or
    client.settings.eab_secret ~= job.eab_secret then
    client = acme_client.new(job)
    clients[job.account] = client
  end
  return client
end

-- The kinds of challenges to be tried, the one that was good before first.
local function kinds_of(job)
  if job.challenge then return { job.challenge } end
  if job.kind == KINDS[2] then return { KINDS[2], KINDS[1] } end
  return KINDS
end

local function obtain(job)
  local text, fault
  local faults = {}
  for _, kind in ipairs(kinds_of(job)) do
    text, fault = client_of(job):obtain(job.host, kind)
    if text then
      job.kind = kind
      return text
    end
    faults[#faults + 1] = fault.text
    if not fault.is_refused or fault.kind then break end -- of the challenge alone: the other may do
  end
  fault.text = table.concat(faults, "; ")
  return nil, fault
end

-- What cannot be written now is written at the next try: to ask the CA for another would be counted.
local function keep(job, text)
  local ok, why = native.acme.write(job.path, text)
  job.unwritten = not ok and text or nil
  if not ok then return nil, { text = ("%s: %s"):format(job.path, why), is_soon = true } end
  -- Taking files into use makes all contexts of a port anew: while others are under way that is left to the next regular look.
  if busy_count == 1 then native.acme.written() end
  local begins, ends = native.acme.inspect(text, job.host)
  local now = native.time()
  job.expires, job.obtained = ends, job.obtained + 1
  rest(job, begins, ends, now)
  log.info(('acme: certificate of "%s" obtained from %s: good until %s, to be renewed at %s')
    :format(job.host, job.directory, date(ends), date(job.due)))
  return true
end

local function fail(job, fault)
  if jobs[job.path] ~= job or fault.is_end then return end
  job.failures, job.streak = job.failures + 1, job.streak + 1
  job.error = fault.text
  local pause = pause_after(job, fault)
  job.due = native.time() + pause
  tell(job)
  local is_served = job.expires and job.expires > native.time()
  local say = is_served and log.warn or log.error
  say(('acme: no certificate for "%s": %s; next try in %d s (%s)%s'):format(job.host, fault.text,
    math.ceil(pause), date(job.due), is_served and "; the old one is good until " ..
    date(job.expires) or ""))
end

local function try(job)
  local now = native.time()
  local is_good, begins, ends = look(job, now)
  if is_good then return rest(job, begins, ends, now) end
  if begins then
    log.warn(('acme: %s is of no use for "%s" and will be replaced: %s'):format(job.path, job.host,
      begins))
  end
  tell(job)
  local text, fault, kept = job.unwritten, nil, nil
  if not text then text, fault = obtain(job) end
  if text then kept, fault = keep(job, text) end
  if not kept then fail(job, fault) end
end

local function run(job)
  local ok, err = xpcall(try, debug.traceback, job)
  busy_count = busy_count - 1
  job.is_busy = false
  if not ok then
    log.error("acme: " .. tostring(err))
    fail(job, { text = "an error of our own: " .. tostring(err):match "^[^\n]*" })
  end
end

local function tick()
  local now = native.time()
  for _, job in pairs(jobs) do
    if busy_count >= BUSY_MAX then return end
    if not job.is_busy and job.due <= now then
      job.is_busy = true
      busy_count = busy_count + 1
      task.spawn(run, job)
    end
  end
end

-- ---- the configuration

local function take(wanted, old)
  local job = old or { due = 0, obtained = 0, failures = 0, streak = 0 }
  for _, key in ipairs { "host", "path", "account", "directory", "email", "ca", "challenge",
    "eab_kid", "eab_secret" } do
    if old and old[key] ~= wanted[key] and old.error then job.due, job.streak = 0, 0 end
    job[key] = wanted[key]
  end
  return job
end

--- What is wanted from now on. What is under way for others comes to its end.
---@param list table[] host, path, account, directory, email?, ca?, challenge?, eab_kid?, eab_secret?
function acme.configure(list)
  local old = jobs
  jobs = {}
  for _, wanted in ipairs(list) do
    jobs[wanted.path] = take(wanted, old[wanted.path])
    tell(jobs[wanted.path])
  end
  for path in pairs(old) do
    if not jobs[path] then native.acme.forget(path) end
  end
end

timer.after(0, tick, { on = "control" })
timer.every(TICK, tick, { on = "control" })

return acme
