--- The exchange that functions of a route and plugins get: request, response, headers. Handles are small values of the FFI: a
--- slot of the VM and its use, so that one kept beyond its exchange is dead and answers nil, "exchange ended".

local ffi = require "ffi"
local abi = require "moongate._core.abi"
local coroutines = require "moongate._core.coroutines"
local native = require "moongate._core.native"
local phases = require "moongate._core.phases"
local proxy = require "moongate._core.proxy"
local query = require "moongate._core.query"
local raise = require "moongate._core.raise"

local C = abi.C
local vm = ffi.cast("void *", native.vm)
local text = ffi.new "struct moon_abi_text"
local text2 = ffi.new "struct moon_abi_text"
local number = ffi.new "double[1]"
local at = ffi.new "uint32_t[1]"

local ENDED, PHASE, INVALID, MEMORY = abi.ENDED, abi.PHASE, abi.INVALID, abi.MEMORY
local FOREIGN, OVER = abi.FOREIGN, abi.OVER
local ENDED_TEXT = "exchange ended"
local BODY_MAX = 1048576

local request_t, response_t, headers_t
local handle_t = ffi.typeof "struct moon_abi_exchange *" -- what the userdata of an exchange is

local function fail(code, what, where)
  if code == ENDED then raise(ENDED_TEXT) end
  if code == PHASE then raise(phases.refusal(C, vm, what, where)) end
  if code == FOREIGN then
    raise(what .. ": this is another exchange than the one that runs here")
  end
  if code == OVER then
    raise(what .. ": the phase that spawned this task has ended")
  end
  if code == INVALID then raise(what .. ": this value cannot stand in a message") end
  raise(what .. ": the memory of the exchange is at its bound")
end

-- A text of the exchange; nil where there is none, or nil and why it is dead.
local function get_text(handle, what)
  local code = C.moon_abi_get_text(handle, what, text)
  if code == 0 then return ffi.string(text.ptr, text.len) end
  if code == ENDED then return nil, ENDED_TEXT end
  return nil
end

local function get_number(handle, what)
  local code = C.moon_abi_get_number(handle, what, number)
  if code == 0 then return number[0] end
  if code == ENDED then return nil, ENDED_TEXT end
  return nil
end

local function set_text(handle, what, name, value)
  if type(value) ~= "string" then
    raise(("request.%s takes a string, got %s"):format(name, type(value)))
  end
  local code = C.moon_abi_set_text(handle, what, value, #value)
  if code ~= 0 then fail(code, "request." .. name .. " =", "rewrite and access") end
end

-- ---- headers

---@class moongate.Headers: table<string, string|string[]|nil>
local headers = {}

local function check_name(name)
  if type(name) ~= "string" then raise("the name of a header is a string, got " .. type(name)) end
end

--- All values of a header, one by one.
---@param name string
---@return string[]? values, string? err
function headers:all(name)
  check_name(name)
  local values, count = {}, 0
  at[0] = 0
  while true do
    local code = C.moon_abi_header_next(self.slot, self.generation, self.is_response,
      name, #name, at, text)
    if code == ENDED then return nil, ENDED_TEXT end
    if code < 0 then fail(code, "response.headers", "header_filter, body_filter and log") end
    if code ~= 0 then return values end
    count = count + 1
    values[count] = ffi.string(text.ptr, text.len)
  end
end

--- All values joined; for a header whose name is that of a method.
---@param name string
---@return string? value, string? err
function headers:get(name)
  check_name(name)
  local code = C.moon_abi_header_get(self.slot, self.generation, self.is_response,
    name, #name, text)
  if code == 0 then return ffi.string(text.ptr, text.len) end
  if code == ENDED then return nil, ENDED_TEXT end
  if code < 0 then fail(code, "response.headers", "header_filter, body_filter and log") end
  return nil
end

local function header_edit_failed(code, name)
  if code == INVALID then
    local message = 'headers["%s"]: the name or the value cannot stand in a message (CR, LF, ' ..
      "NUL and other controls are refused), or the field is the gateway's own"
    raise(message:format((name:gsub("%c", "?"))))
  end
  fail(code, "editing headers", "rewrite and access (request), header_filter (response)")
end

local function to_value(name, value)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "number" then return tostring(value) end
  raise(('headers["%s"] takes a string, a list of strings or nil, got %s'):format(
    tostring(name), kind))
end

--- Adds a field; those of that name stay.
---@param name string
---@param value string
function headers:add(name, value)
  check_name(name)
  local own = to_value(name, value)
  local code = C.moon_abi_header_add(self.slot, self.generation, self.is_response,
    name, #name, own, #own)
  if code ~= 0 then header_edit_failed(code, name) end
end

local function set(self, name, value)
  check_name(name)
  local code
  if type(value) == "string" then
    code = C.moon_abi_header_set(self.slot, self.generation, self.is_response,
      name, #name, value, #value)
  elseif value == nil then
    code = C.moon_abi_header_del(self.slot, self.generation, self.is_response, name, #name)
  elseif type(value) == "table" then
    code = C.moon_abi_header_del(self.slot, self.generation, self.is_response, name, #name)
    for i = 1, #value do
      local own = to_value(name, value[i])
      if code == 0 then
        code = C.moon_abi_header_add(self.slot, self.generation, self.is_response,
          name, #name, own, #own)
      end
    end
  else
    local own = to_value(name, value)
    code = C.moon_abi_header_set(self.slot, self.generation, self.is_response,
      name, #name, own, #own)
  end
  if code ~= 0 then header_edit_failed(code, name) end
end

--- Replaces all fields of that name; nil removes them.
---@param name string
---@param value string|string[]|nil
function headers:set(name, value)
  set(self, name, value)
end

--- Every field in order of arrival: for name, value in headers:each() do ... end
---@return fun(): string?, string?
function headers:each()
  local list, count, i, code = {}, 0, 0
  while true do
    code = C.moon_abi_header_at(self.slot, self.generation, self.is_response, count, text, text2)
    if code ~= 0 then break end
    list[count * 2 + 1] = ffi.string(text.ptr, text.len)
    list[count * 2 + 2] = ffi.string(text2.ptr, text2.len)
    count = count + 1
  end
  if code < 0 and code ~= ENDED then
    fail(code, "response.headers", "header_filter, body_filter and log")
  end
  return function()
    i = i + 1
    return list[i * 2 - 1], list[i * 2]
  end
end

headers_t = ffi.metatype("struct moon_abi_headers", {
  __index = function(self, name)
    local method = headers[name]
    if method then return method end
    check_name(name)
    local code = C.moon_abi_header_get(self.slot, self.generation, self.is_response,
      name, #name, text)
    if code == 0 then return ffi.string(text.ptr, text.len) end
    if code < 0 and code ~= ENDED then
      fail(code, code == MEMORY and "reading headers" or "response.headers",
        "header_filter, body_filter and log")
    end
    return nil
  end,
  __newindex = set,
})

-- ---- the request

---@class moongate.Tls
---@field version string "TLSv1.3"
---@field cipher string as OpenSSL names it
---@field sni string? the host name that the client asked for
---@field client moongate.ClientCertificate? nil: it has shown none

---@class moongate.ClientCertificate accepted by the listener
---@field subject string RFC 2253
---@field serial string hexadecimal
---@field fingerprint string SHA-256, hexadecimal
---@field sans string[] "DNS:a.example", "URI:spiffe://example/a", "IP:10.0.0.1", "email:a@example"

---@class moongate.Request
---@field method string
---@field scheme string
---@field host string without the port
---@field port integer? as the client gave it
---@field path string canonical
---@field query string? without "?"
---@field args table<string, string|string[]> the query, decoded; assigning writes it anew
---@field headers moongate.Headers
---@field client { address: string, port: integer }
---@field tls moongate.Tls? nil: it came in plain
---@field proxy moongate.Proxy? nil: no PROXY header stood in front of the connection, or one that said nothing
---@field destination { address: string, port: integer }? where the client meant to go: by the PROXY header, or before the
---  kernel sent it here (`transparent`), else where it has come. nil: a unix socket
local request = {}

local request_get = {
  method = function(self) return get_text(self, 109) end, -- 'm'
  scheme = function(self) return get_text(self, 115) end, -- 's'
  host = function(self) return get_text(self, 104) end, -- 'h'
  path = function(self) return get_text(self, 112) end, -- 'p'
  query = function(self) return get_text(self, 113) end, -- 'q'
  port = function(self) return get_number(self, 112) end, -- 'p'
  headers = function(self) return headers_t(self.slot, self.generation, 0) end,
  args = function(self)
    local all, err = get_text(self, 113)
    if err then return nil, err end
    return query.decode(all or "")
  end,
  client = function(self)
    local address, err = get_text(self, 97) -- 'a'
    if err then return nil, err end
    return { address = address, port = get_number(self, 99) } -- 'c'
  end,
  destination = proxy.destination,
  proxy = function(self) return proxy.read(request_t(self.slot, self.generation, 0)) end,
  tls = function(self)
    local version, err = get_text(self, 86) -- 'V'
    if not version then return nil, err end
    local fingerprint = get_text(self, 70) -- 'F'
    local out = { version = version, cipher = get_text(self, 67), sni = get_text(self, 83) } -- 'C', 'S'
    if not fingerprint then return out end
    local sans = {}
    for name in (get_text(self, 65) or ""):gmatch "[^,]+" do sans[#sans + 1] = name end -- 'A'
    out.client = { subject = get_text(self, 74), serial = get_text(self, 78), fingerprint = fingerprint, sans = sans } -- 'J', 'N'
    return out
  end,
}

local request_set = {
  method = function(self, value) set_text(self, 109, "method", value) end,
  host = function(self, value) set_text(self, 104, "host", value) end,
  path = function(self, value) set_text(self, 112, "path", value) end,
  query = function(self, value) set_text(self, 113, "query", value or "") end,
  args = function(self, value)
    if type(value) ~= "table" then raise("request.args takes a table, got " .. type(value)) end
    set_text(self, 113, "args", query.encode(value))
  end,
}

--- The whole body, which is read now; the backend still gets it. In rewrite and access.
---@param options? { max: integer } bytes; default 1048576
---@return string? body, string? err "exchange ended", or "too large"
function request:body(options)
  local max = options and options.max or BODY_MAX
  local code = C.moon_abi_body_collect(self, max)
  if code == 0 then coroutines.wait() end
  if code == ENDED then return nil, ENDED_TEXT end
  if code < 0 then
    if code == INVALID then raise("the body is read in pieces already (chunks)") end
    fail(code, "request:body", "rewrite and access")
  end
  code = C.moon_abi_body_collected(self, text)
  if code == 0 then return ffi.string(text.ptr, text.len) end
  if code == ENDED then return nil, ENDED_TEXT end
  return nil, "too large"
end

--- The body in pieces of at most 64 KiB, as they come. It is consumed: the backend gets what set_body says, and without that
--- the exchange is a 500 unless it is answered here. In rewrite and access.
---@return fun(): string?
function request:chunks()
  local handle = request_t(self.slot, self.generation, 0)
  return function()
    local code = C.moon_abi_chunk_ask(handle)
    if code == 0 then coroutines.wait() end
    if code < 0 then
      if code == INVALID then raise("more than the bound of body() has been read already") end
      fail(code, "request:chunks", "rewrite and access")
    end
    if C.moon_abi_chunk_take(handle, text) ~= 0 then return nil end
    return ffi.string(text.ptr, text.len)
  end
end

--- The backend gets this body instead. In rewrite and access.
---@param body string
function request:set_body(body)
  if type(body) ~= "string" then
    raise("request:set_body takes a string, got " .. type(body))
  end
  local code = C.moon_abi_body_replace(self, body, #body)
  if code ~= 0 then fail(code, "request:set_body", "rewrite and access") end
end

request_t = ffi.metatype("struct moon_abi_request", {
  __index = function(self, key)
    local get = request_get[key]
    if get then return get(self) end
    return request[key]
  end,
  __newindex = function(self, key, value)
    local put = request_set[key]
    if not put then
      raise(("request.%s cannot be assigned: method, host, path, query and args can"):format(
        tostring(key)))
    end
    put(self, value)
  end,
})

-- ---- the response

---@class moongate.Response
---@field status integer? nil before there is one
---@field headers moongate.Headers
local response = {}

local response_get = {
  status = function(self) return get_number(self, 115) end, -- 's'
  headers = function(self) return headers_t(self.slot, self.generation, 1) end,
}

local function in_body_filter(what)
  if C.moon_abi_phase(vm) ~= 4 then
    raise(phases.refusal(C, vm, what, "body_filter"))
  end
end

--- The body in pieces, as they come from the backend. In body_filter.
---@return fun(): string?
function response:chunks()
  in_body_filter "response:chunks"
  return coroutines.pull
end

--- Sends a piece to the client (to the next plugin); waits while there is no room. In body_filter.
---@param piece string
function response:write(piece)
  in_body_filter "response:write"
  if type(piece) ~= "string" then raise("response:write takes a string, got " .. type(piece)) end
  if piece ~= "" then coroutines.push(piece) end
end

--- The whole body, which is held back until this returns; nothing of it is sent unless it is written. In body_filter.
---@param options? { max: integer } bytes; default 1048576
---@return string? body, string? err "too large": then what was read is lost, and nothing should be written
function response:buffer(options)
  in_body_filter "response:buffer"
  local max = options and options.max or BODY_MAX
  local pieces, count, len = {}, 0, 0
  for piece in coroutines.pull do
    len = len + #piece
    if len > max then return nil, "too large" end
    count = count + 1
    pieces[count] = piece
  end
  return table.concat(pieces)
end

response_t = ffi.metatype("struct moon_abi_response", {
  __index = function(self, key)
    local get = response_get[key]
    if get then return get(self) end
    return response[key]
  end,
  __newindex = function(self, key, value)
    if key ~= "status" then
      raise(("response.%s cannot be assigned: status can"):format(tostring(key)))
    end
    local code = C.moon_abi_set_status(self, tonumber(value) or 0)
    if code == INVALID then
      raise("response.status takes a number from 200 to 599; what has no body (204, 304) stays so")
    end
    if code ~= 0 then fail(code, "response.status =", "header_filter") end
  end,
})

-- ---- the exchange

---@class moongate.Exchange
---@field request moongate.Request
---@field response moongate.Response
---@field id string unique, 32 hexadecimal digits
---@field route string its name
---@field upstream string? the name of the one that was chosen
---@field consumer any who the client is, for whoever finds that out
---@field vars table anything; lives as long as the exchange
local exchange = {}

-- By slot: the table, and which use of the slot it belongs to. The core takes the table out when the exchange ends.
local vars, vars_of = {}, {}

local function vars_table(self)
  local slot = C.moon_abi_slot_index(self)
  if slot == 0 then return nil, ENDED_TEXT end
  local generation = ffi.cast(handle_t, self).generation
  if vars_of[slot] ~= generation then
    vars_of[slot] = generation
    vars[slot] = {}
  end
  return vars[slot]
end

local exchange_get = {
  request = function(self)
    local handle = ffi.cast(handle_t, self)
    return request_t(handle.slot, handle.generation, 0)
  end,
  response = function(self)
    local handle = ffi.cast(handle_t, self)
    return response_t(handle.slot, handle.generation, 1)
  end,
  id = function(self) return get_text(self, 105) end, -- 'i'
  route = function(self) return get_text(self, 114) end, -- 'r'
  upstream = function(self) return get_text(self, 117) end, -- 'u'
  vars = vars_table,
  consumer = function(self)
    local own, err = vars_table(self)
    if not own then return nil, err end
    return own["moongate.consumer"]
  end,
}

--- Answers the request; the phase ends here, nothing after it runs. In rewrite and access.
---@param status integer 200 to 599
---@param body? string|table a table is sent as JSON
---@param response_headers? table<string, string|string[]>
function exchange:respond(status, body, response_headers)
  if type(self) ~= "userdata" then
    raise "respond is called with a colon: exchange:respond(status, body)"
  end
  local content_type = ""
  if type(body) == "table" then
    local ok, encoded = pcall(require "moongate.json".encode, body)
    if not ok then raise("respond: " .. tostring(encoded)) end
    body = encoded
    content_type = "application/json"
  elseif body ~= nil and type(body) ~= "string" then
    raise("respond takes a string or a table as the body, got " .. type(body))
  end
  body = body or ""
  if type(status) ~= "number" then
    raise("respond takes a status from 200 to 599, got " .. type(status))
  end
  local code = C.moon_abi_respond(self, status, body, #body, content_type, #content_type)
  if code == ENDED then return nil, ENDED_TEXT end
  if code == INVALID then raise("respond takes a status from 200 to 599, got " .. status) end
  if code ~= 0 then
    fail(code, "exchange:respond", "rewrite and access, by the phase's own function")
  end
  if response_headers then
    local handle = ffi.cast(handle_t, self)
    local own = headers_t(handle.slot, handle.generation, 1)
    for name, value in pairs(response_headers) do set(own, name, value) end
  end
  coroutines.finish()
end

local metatable = {
  __index = function(self, key)
    local get = exchange_get[key]
    if get then return get(self) end
    return exchange[key]
  end,
  __newindex = function(self, key, value)
    if key ~= "consumer" then
      raise(("exchange.%s cannot be assigned: put it into exchange.vars"):format(tostring(key)))
    end
    local own, err = vars_table(self)
    if not own then raise(err) end
    own["moongate.consumer"] = value
  end,
}

return { metatable = metatable, vars = vars }
