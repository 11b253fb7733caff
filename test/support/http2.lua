-- A client of HTTP/2 that knows frames and nothing else: it sends what it is told, right or wrong, and keeps what comes. Header
-- blocks are written as literals; those of the gateway are decoded in full (RFC 7541).
--
--   local client = http2.connect(gateway:connect())           -- preface and SETTINGS sent
--   client:request(1, { [":path"] = "/a" })                    -- HEADERS with END_STREAM
--   local response = client:response(1)                        -- { status, headers, body, trailers, reset, goaway }
--
-- And a server of the same make, for connections of a backend:
--
--   h.backend(http2.script(function(server)
--     local request = server:take_request()                     -- { id, request, body, trailers }
--     server:respond(request.id, 200, { { "x-a", "b" } }, { open = true }):data(request.id, "body", true)
--   end))
local bit = require "bit"

local http2 = {
  DATA = 0, HEADERS = 1, PRIORITY = 2, RST_STREAM = 3, SETTINGS = 4, PUSH_PROMISE = 5, PING = 6, GOAWAY = 7,
  WINDOW_UPDATE = 8, CONTINUATION = 9,
  END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8, PRIORITY_FLAG = 32,
  NO_ERROR = 0, PROTOCOL_ERROR = 1, INTERNAL_ERROR = 2, FLOW_CONTROL_ERROR = 3, STREAM_CLOSED = 5, FRAME_SIZE_ERROR = 6,
  REFUSED_STREAM = 7, CANCEL = 8, COMPRESSION_ERROR = 9, ENHANCE_YOUR_CALM = 11,
  PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}

function http2.u32(n)
  return string.char(bit.band(bit.rshift(n, 24), 255), bit.band(bit.rshift(n, 16), 255), bit.band(bit.rshift(n, 8), 255),
    bit.band(n, 255))
end

local function read_u32(text, at)
  local a, b, c, d = text:byte(at, at + 3)
  return ((a * 256 + b) * 256 + c) * 256 + d
end

-- One frame; `length` claims another length than the payload has.
function http2.frame(kind, flags, id, payload, length)
  payload = payload or ""
  return http2.u32(length or #payload):sub(2) .. string.char(kind, flags) .. http2.u32(id) .. payload
end

function http2.setting(id, value)
  return string.char(bit.rshift(id, 8), bit.band(id, 255)) .. http2.u32(value)
end

-- ---- header blocks

local function integer(prefix, bits, value)
  local max = 2 ^ bits - 1
  if value < max then return string.char(prefix + value) end
  local out = { string.char(prefix + max) }
  value = value - max
  while value >= 128 do
    out[#out + 1] = string.char(value % 128 + 128)
    value = math.floor(value / 128)
  end
  out[#out + 1] = string.char(value)
  return table.concat(out)
end

-- A field as a literal: never indexed, or put into the dynamic table.
function http2.field(name, value, is_indexed)
  return (is_indexed and "\64" or "\0") .. integer(0, 7, #name) .. name .. integer(0, 7, #value) .. value
end

-- A reference of an entry of the tables.
function http2.indexed(index)
  return integer(128, 7, index)
end

-- A list of { name, value } as a block.
function http2.block(fields)
  local out = {}
  for i, field in ipairs(fields) do out[i] = http2.field(field[1], field[2]) end
  return table.concat(out)
end

-- The pseudo-fields of a request, changed by `pseudo` (false: left out), then the fields of the list.
function http2.head(pseudo, fields)
  local list = {}
  for _, name in ipairs { ":method", ":scheme", ":authority", ":path" } do
    local default = { [":method"] = "GET", [":scheme"] = "http", [":authority"] = "h.example", [":path"] = "/" }
    local value = default[name]
    if pseudo and pseudo[name] ~= nil then value = pseudo[name] end
    if value then list[#list + 1] = { name, value } end
  end
  for _, field in ipairs(fields or {}) do list[#list + 1] = field end
  return http2.block(list)
end

local STATIC = {}
do
  local text = ":authority|:method GET|:method POST|:path /|:path /index.html|:scheme http|:scheme https|:status 200|:status 204|" ..
    ":status 206|:status 304|:status 400|:status 404|:status 500|accept-charset|accept-encoding gzip, deflate|accept-language|" ..
    "accept-ranges|accept|access-control-allow-origin|age|allow|authorization|cache-control|content-disposition|" ..
    "content-encoding|content-language|content-length|content-location|content-range|content-type|cookie|date|etag|expect|" ..
    "expires|from|host|if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|link|location|" ..
    "max-forwards|proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|server|set-cookie|" ..
    "strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate|"
  for entry in text:gmatch "([^|]+)|" do
    local name, value = entry:match "^(%S+) (.*)$"
    STATIC[#STATIC + 1] = { name or entry, value or "" }
  end
end

-- RFC 7541 B is a canonical code, so its lengths say all of it.
local HUFFMAN = {}
do
  local lengths, symbols, at = {}, {}, 0
  local text = "13,23,28*7,24,30,28*2,30,28*8,30,28*9,6,10*2,12,13,6,8,11,10*2,8,11,8,6*3,5*3,6*7,7,8,15,6,12,10,13,6,7*22,8," ..
    "7,8,13,19,13,14,6,15,5,6,5,6,5,6*3,5,7*2,6*3,5,6,7,6,5*2,6,7*5,15,11,14,13,28,20,22,20*2,22*3,23,22,23*5,24,23,24*2," ..
    "22,23,24,23*4,21,22,23,22,23*2,24,22,21,20,22*2,23*2,21,23,22*2,24,21,22,23*2,21*2,22,21,23,22,23*2,20,22*3,23,22*2," ..
    "23,26*2,20,19,22,23,22,25,26*3,27*2,26,24,25,19,21,26,27*2,26,27,24,21*2,26*2,28,27*3,20,24,20,21,22,21*2,23,22*2," ..
    "25*2,24*2,26,23,26,27,26*2,27*5,28,27*5,26,30"
  for length, times in text:gmatch "(%d+)%*?(%d*)" do
    for _ = 1, tonumber(times) or 1 do
      lengths[at] = tonumber(length)
      symbols[#symbols + 1] = at
      at = at + 1
    end
  end
  assert(at == 257, "257 symbols")
  table.sort(symbols, function(a, b)
    if lengths[a] ~= lengths[b] then return lengths[a] < lengths[b] end
    return a < b
  end)
  local code, length = 0, lengths[symbols[1]]
  for i, symbol in ipairs(symbols) do
    if i > 1 then
      code = (code + 1) * 2 ^ (lengths[symbol] - length)
      length = lengths[symbol]
    end
    HUFFMAN[length] = HUFFMAN[length] or {}
    HUFFMAN[length][code] = symbol
  end
end

local function unhuffman(text)
  local out, code, length = {}, 0, 0
  for i = 1, #text do
    local byte = text:byte(i)
    for shift = 7, 0, -1 do
      code = code * 2 + bit.band(bit.rshift(byte, shift), 1)
      length = length + 1
      local symbol = HUFFMAN[length] and HUFFMAN[length][code]
      if symbol then
        out[#out + 1] = string.char(symbol)
        code, length = 0, 0
      end
    end
  end
  return table.concat(out)
end

local function read_integer(text, at, bits)
  local max = 2 ^ bits - 1
  local value = text:byte(at) % 2 ^ bits
  at = at + 1
  if value < max then return value, at end
  local scale = 1
  repeat
    local byte = text:byte(at)
    value = value + byte % 128 * scale
    scale = scale * 128
    at = at + 1
  until byte < 128
  return value, at
end

local function read_string(text, at)
  local is_huffman = text:byte(at) >= 128
  local len
  len, at = read_integer(text, at, 7)
  local value = text:sub(at, at + len - 1)
  return is_huffman and unhuffman(value) or value, at + len
end

-- Takes a block apart into a list of { name, value }; `dynamic` is the table of the connection.
local function decode(dynamic, text)
  local fields, at = {}, 1
  local function entry(index)
    return STATIC[index] or dynamic[index - #STATIC] or error("no entry " .. index)
  end
  while at <= #text do
    local byte = text:byte(at)
    if byte >= 128 then
      local index
      index, at = read_integer(text, at, 7)
      fields[#fields + 1] = entry(index)
    elseif byte >= 32 and byte < 64 then
      local size
      size, at = read_integer(text, at, 5)
      if size == 0 then for i in ipairs(dynamic) do dynamic[i] = nil end end
    else
      local index, name, value
      index, at = read_integer(text, at, byte >= 64 and 6 or 4)
      if index > 0 then name = entry(index)[1] else name, at = read_string(text, at) end
      value, at = read_string(text, at)
      fields[#fields + 1] = { name, value }
      if byte >= 64 then table.insert(dynamic, 1, fields[#fields]) end
    end
  end
  return fields
end

-- ---- the client

local Client = {}
Client.__index = Client

-- options.settings: payload of the SETTINGS frame; options.bare: nothing is sent.
function http2.connect(stream, options)
  options = options or {}
  local self = setmetatable({ stream = stream, dynamic = {}, streams = {}, pings = 0, settings = {}, granted = {}, arrived = {} },
    Client)
  if not options.bare then
    stream:send(http2.PREFACE .. http2.frame(http2.SETTINGS, 0, 0, options.settings))
  end
  return self
end

function Client:send(kind, flags, id, payload)
  self.stream:send(http2.frame(kind, flags, id, payload))
  return self
end

-- HEADERS with END_HEADERS; options.open: without END_STREAM.
function Client:request(id, pseudo, fields, options)
  local flags = http2.END_HEADERS + (options and options.open and 0 or http2.END_STREAM)
  return self:send(http2.HEADERS, flags, id, http2.head(pseudo, fields))
end

function Client:data(id, bytes, is_last)
  return self:send(http2.DATA, is_last and http2.END_STREAM or 0, id, bytes)
end

function Client:window(id, increment)
  return self:send(http2.WINDOW_UPDATE, 0, id, http2.u32(increment))
end

local function stream_at(self, id)
  local known = self.streams[id]
  if not known then
    known = { id = id, interim = {}, pieces = {}, body_len = 0 }
    self.streams[id] = known
  end
  return known
end

local function take_block(self, frame)
  local fields = decode(self.dynamic, frame.payload)
  local known = stream_at(self, frame.id)
  local head = { list = fields }
  for _, field in ipairs(fields) do head[field[1]] = head[field[1]] and head[field[1]] .. ", " .. field[2] or field[2] end
  local status = tonumber(head[":status"])
  if status and status < 200 then
    known.interim[#known.interim + 1] = status
  elseif status then
    known.status, known.headers = status, head
  elseif head[":method"] then
    known.request = head
    self.arrived[#self.arrived + 1] = known
  else
    known.trailers = head
  end
end

local function note(self, frame)
  local known = frame.id > 0 and stream_at(self, frame.id)
  if frame.kind == http2.HEADERS then
    if bit.band(frame.flags, http2.END_HEADERS) == 0 then self.part = frame else take_block(self, frame) end
  elseif frame.kind == http2.CONTINUATION then
    self.part.payload = self.part.payload .. frame.payload
    if bit.band(frame.flags, http2.END_HEADERS) ~= 0 then take_block(self, self.part) end
  elseif frame.kind == http2.DATA then
    known.pieces[#known.pieces + 1] = frame.payload
    known.body_len = known.body_len + #frame.payload
    if self.grants and #frame.payload > 0 then
      self:window(0, #frame.payload)
      if bit.band(frame.flags, http2.END_STREAM) == 0 then self:window(frame.id, #frame.payload) end
    end
  elseif frame.kind == http2.RST_STREAM then
    known.reset = read_u32(frame.payload, 1)
  elseif frame.kind == http2.GOAWAY then
    self.goaway = { last = read_u32(frame.payload, 1), code = read_u32(frame.payload, 5) }
    self.goaway_count = (self.goaway_count or 0) + 1
  elseif frame.kind == http2.SETTINGS and frame.flags == 0 then
    for at = 1, #frame.payload, 6 do
      self.settings[frame.payload:byte(at) * 256 + frame.payload:byte(at + 1)] = read_u32(frame.payload, at + 2)
    end
    if self.is_server then self:send(http2.SETTINGS, http2.ACK, 0) end
  elseif frame.kind == http2.PING and frame.flags == http2.ACK then
    self.pings = self.pings + 1
  elseif frame.kind == http2.PING then
    self:send(http2.PING, http2.ACK, 0, frame.payload)
  elseif frame.kind == http2.WINDOW_UPDATE then
    self.granted[frame.id] = (self.granted[frame.id] or 0) + read_u32(frame.payload, 1)
  end
  local ends = frame.kind == http2.DATA or frame.kind == http2.HEADERS
  if ends and bit.band(frame.flags, http2.END_STREAM) ~= 0 then known.ended = true end
end

-- The next frame: { kind, flags, id, payload }; nil and how the connection ended.
function Client:next(ms)
  local head, how = self.stream:read(9, ms)
  if not head then return nil, how end
  local a, b, c, kind, flags = head:byte(1, 5)
  local payload = a * 65536 + b * 256 + c == 0 and "" or self.stream:read(a * 65536 + b * 256 + c, ms)
  if not payload then return nil, "cut" end
  local frame = { kind = kind, flags = flags, id = read_u32(head, 6), payload = payload }
  note(self, frame)
  return frame
end

-- Takes frames until wanted() says so, or the connection ends. False in the second case.
function Client:until_(wanted, ms)
  while not wanted() do
    local frame, how = self:next(ms)
    if not frame then
      self.how = how
      return wanted()
    end
  end
  return true
end

-- What has come of a stream once it is over: ended, reset, or the connection gone.
function Client:response(id, ms)
  local known = stream_at(self, id)
  self:until_(function() return known.ended or known.reset end, ms)
  known.body = table.concat(known.pieces)
  return known
end

-- Until the connection ends: how, and the last GOAWAY in self.goaway.
function Client:finish(ms)
  self:until_(function() return false end, ms)
  return self.how
end

-- ---- the server

-- Reads the preface and sends SETTINGS (options.settings: their payload; options.is_stingy: what comes opens no window). Nil when
-- something else came.
function http2.accept(stream, options)
  if stream:read(#http2.PREFACE, 60000) ~= http2.PREFACE then return nil end
  local self = http2.connect(stream, { bare = true })
  self.is_server = not (options and options.bare)
  self.grants = not (options and options.is_stingy)
  if not (options and options.bare) then stream:send(http2.frame(http2.SETTINGS, 0, 0, options and options.settings)) end
  return self
end

-- A script of a backend. serve(server, index) is given each connection; once it returns, frames are taken until the peer ends it.
function http2.script(serve, options)
  return function(connection, index)
    local server = http2.accept(connection, options)
    if not server then return end
    connection.h2 = server
    serve(server, index)
    if not connection.is_closed then server:finish(60000) end
  end
end

-- A script that answers every request: answer(server, request) sends what it likes.
function http2.each(answer, options)
  return http2.script(function(server)
    while true do
      local request = server:take_request(60000)
      if not request then return end
      answer(server, request)
    end
  end, options)
end

-- The next request whose head has come; nil when the connection has ended.
function Client:take_head(ms)
  self.taken = self.taken or 0
  if not self:until_(function() return #self.arrived > self.taken end, ms) then return nil end
  self.taken = self.taken + 1
  return self.arrived[self.taken]
end

-- The next one once it is whole, or reset.
function Client:take_request(ms)
  local known = self:take_head(ms)
  return known and self:response(known.id, ms)
end

-- A body within the windows of the peer; `trailers` (a list) end it instead of END_STREAM. False: the connection has ended, or
-- the stream was reset.
function Client:send_body(id, bytes, trailers)
  local known, at = stream_at(self, id), 1
  self.sent = self.sent or { [0] = 0 }
  local function room()
    local own = 65535 + (self.granted[id] or 0) - (self.sent[id] or 0)
    return math.min(own, 65535 + (self.granted[0] or 0) - self.sent[0], 16384, #bytes - at + 1)
  end
  while at <= #bytes do
    if not self:until_(function() return room() > 0 or known.reset end, 60000) or known.reset then return false end
    local len = room()
    self:data(id, bytes:sub(at, at + len - 1))
    self.sent[id], self.sent[0], at = (self.sent[id] or 0) + len, self.sent[0] + len, at + len
  end
  if trailers then self:trail(id, trailers) else self:data(id, "", true) end
  return true
end

-- HEADERS of a response; options.open: a body follows, or the final response.
function Client:respond(id, status, fields, options)
  local list = { { ":status", tostring(status) } }
  for _, field in ipairs(fields or {}) do list[#list + 1] = field end
  local flags = http2.END_HEADERS + (options and options.open and 0 or http2.END_STREAM)
  return self:send(http2.HEADERS, flags, id, http2.block(list))
end

-- HEADERS behind the body.
function Client:trail(id, fields)
  return self:send(http2.HEADERS, http2.END_HEADERS + http2.END_STREAM, id, http2.block(fields))
end

function Client:reset(id, code)
  return self:send(http2.RST_STREAM, 0, id, http2.u32(code))
end

function Client:go_away(last, code)
  return self:send(http2.GOAWAY, 0, 0, http2.u32(last) .. http2.u32(code or 0))
end

-- Sends a PING and waits until it is answered: what was sent before has been dealt with.
function Client:sync(ms)
  local before = self.pings
  self:send(http2.PING, 0, 0, "12345678")
  return self:until_(function() return self.pings > before end, ms)
end

return http2
