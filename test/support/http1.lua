-- A strict reader of HTTP/1.1 messages for the tests: what it cannot read exactly by RFC 9112 is an error, never a guess.
-- Works on streams (test.support.stream). Messages are tables:
--   { status, reason, minor | method, target, minor; fields = { {name, value} }; headers = { lower name -> joined value };
--     head = exact bytes, body, trailers, raw = exact bytes of the whole, complete, framing = none|length|chunked|close }
local http1 = {}

local TOKEN = "^[%w!#$%%&'*+%-.^_`|~]+$"

local function fail(what, bytes)
  error(("not HTTP/1.1: %s in %q"):format(what, bytes:sub(1, 300)), 0)
end

local function fields_parse(lines, whole)
  local fields, headers = {}, {}
  for _, line in ipairs(lines) do
    local name, value = line:match "^([^:]*):[ \t]*(.-)[ \t]*$"
    if not name or not name:find(TOKEN) then fail("field line", whole) end
    if value:find "[%z\1-\8\10-\31\127]" then fail("control byte in a value", whole) end
    fields[#fields + 1] = { name, value }
    local key = name:lower()
    headers[key] = headers[key] and headers[key] .. ", " .. value or value
  end
  return fields, headers
end

local function head_parse(head)
  if not head:find "\r\n\r\n$" then fail("end of head", head) end
  local lines = {}
  for line in head:sub(1, -3):gmatch "(.-)\r\n" do
    if line:find "[\r\n]" then fail("bare CR or LF", head) end
    lines[#lines + 1] = line
  end
  local start = table.remove(lines, 1)
  local message = { head = head, raw = head, body = "", trailers = {} }
  message.fields, message.headers = fields_parse(lines, head)
  return message, start
end

-- One response head from its exact bytes.
function http1.response_head(head)
  local message, start = head_parse(head)
  local minor, status, reason = start:match "^HTTP/1%.([01]) (%d%d%d) ([^%z\1-\8\10-\31\127]*)$"
  if not minor then fail("status line", head) end
  message.minor, message.status, message.reason = tonumber(minor), tonumber(status), reason
  return message
end

-- One request head from its exact bytes.
function http1.request_head(head)
  local message, start = head_parse(head)
  local method, target, minor = start:match "^(%S+) (%S+) HTTP/1%.([01])$"
  if not method then fail("request line", head) end
  message.method, message.target, message.minor = method, target, tonumber(minor)
  return message
end

local function framing_of(message, request_method)
  local coding, length = message.headers["transfer-encoding"], message.headers["content-length"]
  local status = message.status
  if coding and length then fail("Content-Length with Transfer-Encoding", message.head) end
  if status and (status < 200 or status == 204 or status == 304 or request_method == "HEAD") then return "none" end
  if coding then
    if coding:lower() ~= "chunked" then fail("transfer coding", message.head) end
    return "chunked"
  end
  if length then
    if not length:find "^%d+$" then fail("Content-Length", message.head) end
    return "length", tonumber(length)
  end
  return status and "close" or "none"
end

-- Body of a chunked message. Nil and how the connection ended when it broke off.
local function chunked_read(stream, message, ms)
  local raw, body = { message.head }, {}
  local function finish(err)
    message.raw, message.body = table.concat(raw), table.concat(body)
    return err == nil, err
  end
  while true do
    local line, err = stream:read_until("\r\n", ms)
    if not line then return finish(err) end
    raw[#raw + 1] = line
    local size = line:match "^(%x+)\r\n$"
    if not size or #size > 15 then fail("chunk line", line) end
    local len = tonumber(size, 16)
    if len == 0 then break end
    local bytes
    bytes, err = stream:read(len + 2, ms)
    if not bytes then
      body[#body + 1] = stream:take(stream.pending)
      return finish(err)
    end
    if bytes:sub(-2) ~= "\r\n" then fail("end of chunk", bytes:sub(-20)) end
    raw[#raw + 1] = bytes
    body[#body + 1] = bytes:sub(1, -3)
    message.chunk_count = (message.chunk_count or 0) + 1
  end
  local lines = {}
  while true do
    local line, err = stream:read_until("\r\n", ms)
    if not line then return finish(err) end
    raw[#raw + 1] = line
    if line == "\r\n" then break end
    lines[#lines + 1] = line:sub(1, -3)
  end
  message.trailer_fields, message.trailers = fields_parse(lines, message.head)
  return finish()
end

local function body_read(stream, message, request_method, ms)
  local framing, length = framing_of(message, request_method)
  message.framing = framing
  if framing == "none" then
    message.complete = true
  elseif framing == "length" then
    local body, err = stream:read(length, ms)
    message.complete, message.ended = body ~= nil, err
    message.body = body or stream:take(stream.pending)
    message.raw = message.head .. message.body
  elseif framing == "chunked" then
    message.complete, message.ended = chunked_read(stream, message, ms)
  else
    message.body, message.ended = stream:read_all(ms)
    message.complete = message.ended == "eof"
    message.raw = message.head .. message.body
  end
  return message
end

-- The next response with its body. Interim responses are collected in .interim, unless options.is_interim_wanted.
-- Nil and how the connection ended when no head came.
function http1.read_response(stream, options)
  options = options or {}
  local interim = {}
  while true do
    local head, err = stream:read_until("\r\n\r\n", options.ms)
    if not head then return nil, err end
    local message = http1.response_head(head)
    if message.status >= 200 or message.status == 101 or options.is_interim_wanted then
      message.interim = interim
      if message.status == 101 then
        message.complete, message.framing = true, "none"
        return message
      end
      return body_read(stream, message, options.method, options.ms)
    end
    interim[#interim + 1] = message
  end
end

-- The head of the next request only. Nil and how the connection ended.
function http1.read_request_head(stream, ms)
  local head, err = stream:read_until("\r\n\r\n", ms)
  if not head then return nil, err end
  return http1.request_head(head)
end

-- The body that belongs to a head read before.
function http1.read_request_body(stream, message, ms)
  return body_read(stream, message, nil, ms)
end

-- The next request with its body. Nil and how the connection ended.
function http1.read_request(stream, ms)
  local message, err = http1.read_request_head(stream, ms)
  if not message then return nil, err end
  return body_read(stream, message, nil, ms)
end

-- bytes as a chunked body of pieces that long.
function http1.chunked(bytes, piece_len, trailers)
  local out = {}
  for at = 1, #bytes, piece_len do
    local piece = bytes:sub(at, at + piece_len - 1)
    out[#out + 1] = ("%x\r\n%s\r\n"):format(#piece, piece)
  end
  out[#out + 1] = "0\r\n" .. (trailers or "") .. "\r\n"
  return table.concat(out)
end

-- A response with Content-Length.
function http1.response(status, body, fields)
  body = body or ""
  return ("HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s"):format(status, #body, fields or "", body)
end

-- len bytes, the same for the same seed. The period is a prime, so that no buffer size hides a slip.
local PERIOD = 65521
function http1.pattern(len, seed)
  local state, out = seed or 1, {}
  for i = 1, math.ceil(math.min(len, PERIOD) / 4) do
    state = (state * 16807) % 2147483647
    out[i] = string.char(33 + state % 90, 33 + math.floor(state / 97) % 90, 33 + math.floor(state / 8191) % 90,
      33 + math.floor(state / 524287) % 90)
  end
  local text = table.concat(out):sub(1, PERIOD)
  return text:rep(math.ceil(len / PERIOD)):sub(1, len)
end

return http1
