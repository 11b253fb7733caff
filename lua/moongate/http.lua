--- Requests of a script's own, over HTTP/1.1. The worker does other things while the answer is on its way; a client that goes
--- away meanwhile takes its requests back. Connections are kept and shared with the upstreams.
---
---   local response, err = moongate.http.request { url = "http://10.0.0.9:8000/check", headers = { ["x-key"] = key }, timeout = 2 }
---   if not response then return exchange:respond(502, err .. "\n") end
---   if response.status ~= 200 then return exchange:respond(403) end
---
--- Redirects are not followed, cookies not kept, bodies not decoded. Weighed: a result with a plain table of headers in lower
--- case; but then a name that comes twice is a list or is joined, by turns. Headers read here as they do in an exchange.

local json = require "moongate.json"
local native = require "moongate._core.native"
local wait = require "moongate._core.wait"

local http = {}

local KEYS = {
  "url", "method", "headers", "body", "timeout", "connect_timeout", "upstream", "max_body",
}
local TYPES = {
  url = "string", method = "string", upstream = "string", headers = "table",
  timeout = "number", connect_timeout = "number", max_body = "number",
}

-- ---- headers of a response

local FIELDS = {} -- the key of { name, value, name, value ... }

---@class moongate.HttpHeaders: table<string, string?> in any case; all values joined by ", "
local headers = {}

--- All values of a header, one by one.
---@param name string
---@return string[]
function headers:all(name)
  local fields, values = self[FIELDS], {}
  name = name:lower()
  for i = 1, #fields, 2 do
    if fields[i]:lower() == name then values[#values + 1] = fields[i + 1] end
  end
  return values
end

--- All values joined; for a header whose name is that of a method.
---@param name string
---@return string?
function headers:get(name)
  local values = headers.all(self, name)
  if #values == 0 then return nil end
  return table.concat(values, ", ")
end

--- Every field in order of arrival: for name, value in response.headers:each() do ... end
---@return fun(): string?, string?
function headers:each()
  local fields, i = self[FIELDS], -1
  return function()
    i = i + 2
    return fields[i], fields[i + 1]
  end
end

local Headers = {
  __index = function(self, name)
    if headers[name] then return headers[name] end
    if type(name) == "string" then return headers.get(self, name) end
  end,
  __newindex = function() error("the headers of an answer are not to be changed", 2) end,
}

-- ---- what is asked for

-- Without a place: http.request gives it the caller's line.
local function refuse(format, ...)
  error(format:format(...), 0)
end

local function check(options)
  if type(options) ~= "table" then refuse("takes a table, got %s", type(options)) end
  for key, value in pairs(options) do
    local wanted = TYPES[key]
    if not wanted and key ~= "body" then
      local nearest = native.nearest(tostring(key), KEYS)
      local hint = nearest and "; did you mean " .. nearest .. "?" or ""
      refuse("unknown key %s%s", tostring(key), hint)
    elseif wanted and type(value) ~= wanted then
      refuse("%s takes a %s, got %s", key, wanted, type(value))
    elseif wanted == "number" and (value <= 0 or value ~= value) then
      refuse("%s is more than 0, got %s", key, tostring(value))
    end
  end
  if not options.url and not options.upstream then refuse "url is missing" end
  if options.upstream and native.is_control then
    refuse "upstream can be used in workers; on control, write the whole url"
  end
end

local function add_field(fields, name, value)
  if type(value) ~= "string" and type(value) ~= "number" then
    refuse("headers[%q] takes a string or a list of them, got %s", name, type(value))
  end
  fields[#fields + 1] = name
  fields[#fields + 1] = tostring(value)
end

-- The list { name, value, name, value ... }, and whether it has a content-type.
local function fields_of(given)
  local fields, has_type = {}, false
  for name, value in pairs(given or {}) do
    if type(name) ~= "string" then refuse "headers takes names and values, got a list" end
    has_type = has_type or name:lower() == "content-type"
    if type(value) == "table" then
      for i = 1, #value do add_field(fields, name, value[i]) end
    else
      add_field(fields, name, value)
    end
  end
  return fields, has_type
end

local function body_of(body, fields, has_type)
  if type(body) == "table" then
    if not has_type then add_field(fields, "Content-Type", "application/json") end
    return json.encode(body)
  elseif body ~= nil and type(body) ~= "string" then
    refuse("body takes a string or a table, got %s", type(body))
  end
  return body
end

-- Where it goes, for errors.
local function target_of(options)
  if options.upstream then return ('upstream "%s"'):format(options.upstream) end
  return options.url:match "^%a+://([^/?#]*)" or options.url
end

local function prepare(options)
  check(options)
  local fields, has_type = fields_of(options.headers)
  return fields, body_of(options.body, fields, has_type)
end

local function start(options)
  local fields, body = prepare(options)
  local call, reason, is_fault = native.call_start(options.method or body and "POST" or "GET",
    options.url or "", options.upstream, fields, body, options.timeout, options.connect_timeout,
    options.max_body)
  if call then return call end
  if is_fault then refuse('%s: "%s"', reason, options.url or options.upstream) end
  return nil, target_of(options) .. ": " .. reason
end

-- ---- asking

---@class moongate.HttpRequest
---@field url? string "http://host[:port]/path?query" or "https://..."; with `upstream` "/path?query" will do
---@field upstream? string the name of one of the configuration: its endpoints, balancing and limits. In workers
---@field method? string default "GET", with a body "POST"
---@field headers? moongate.HeaderValues
---@field body? string|table a table is sent as JSON
---@field timeout? number seconds until the whole answer is there; default 60
---@field connect_timeout? number seconds that one connection may take to open; default as the settings say
---@field max_body? integer bytes of the answer's body; default 1048576

---@class moongate.HttpResponse
---@field status integer
---@field headers moongate.HttpHeaders
---@field body string "" where there is none

--- Sends a request and waits for the whole answer, whatever its status. In phases, tasks, timers and init_worker; at most 1024
--- at a time on one worker. What the caller got wrong (the URL, the name of a method or header) is an error at its line.
---@param options moongate.HttpRequest
---@return moongate.HttpResponse? response, string? err which host, and why: "10.0.0.9:8000: connection refused"
function http.request(options)
  wait.in_phase("moongate.http.request", 2)
  local ok, call, err = pcall(start, options)
  if not ok then error("moongate.http.request: " .. tostring(call), 2) end
  if not call then return nil, err end
  wait.wait()
  local status, fields, body = native.call_take(call)
  if not status then return nil, target_of(options) .. ": " .. fields end
  return { status = status, headers = setmetatable({ [FIELDS] = fields }, Headers), body = body }
end

return http
