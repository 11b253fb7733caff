-- WebSocket frames for specs: written and read as they are, right or wrong.
local bit = require "bit"
local http1 = require "test.support.http1"

local websocket = {}

websocket.UPGRADE = "GET /chat HTTP/1.1\r\nHost: h.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" ..
  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
websocket.SWITCH = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" ..
  "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"

local CODES = { continuation = 0, text = 1, binary = 2, close = 8, ping = 9, pong = 10 }
local KINDS = {}
for kind, code in pairs(CODES) do KINDS[code] = kind end

local function masked(mask, payload)
  local out = {}
  for i = 1, #payload do
    out[i] = string.char(bit.bxor(payload:byte(i), mask:byte((i - 1) % 4 + 1)))
  end
  return table.concat(out)
end

--- One frame. options: masked (a client's), more (not the last fragment), first (its first byte).
function websocket.frame(kind, payload, options)
  options = options or {}
  local len = #payload
  local first = options.first or CODES[kind] + (options.more and 0 or 128)
  local flag = options.masked and 128 or 0
  local head
  if len < 126 then
    head = string.char(first, flag + len)
  elseif len < 65536 then
    head = string.char(first, flag + 126, math.floor(len / 256), len % 256)
  else
    head = string.char(first, flag + 127, 0, 0, 0, 0, math.floor(len / 16777216), math.floor(len / 65536) % 256,
      math.floor(len / 256) % 256, len % 256)
  end
  if not options.masked then return head .. payload end
  local mask = "\55\250\33\61"
  return head .. mask .. masked(mask, payload)
end

function websocket.close(code, reason, options)
  return websocket.frame("close", string.char(math.floor(code / 256), code % 256) .. (reason or ""), options)
end

--- The next frame of a stream: { kind =, data =, is_final =, is_masked =, code =, reason = }; nil at its end.
function websocket.read(stream, ms)
  local start = stream:read(2, ms)
  if not start or #start < 2 then return nil end
  local first, second = start:byte(1, 2)
  local len, is_masked = second % 128, second >= 128
  if len >= 126 then
    local bytes = stream:read(len == 126 and 2 or 8, ms)
    len = 0
    for i = 1, #bytes do len = len * 256 + bytes:byte(i) end
  end
  local mask = is_masked and stream:read(4, ms)
  local data = len > 0 and stream:read(len, ms) or ""
  if mask then data = masked(mask, data) end
  local frame = { kind = KINDS[first % 16], data = data, is_final = first >= 128, is_masked = is_masked, first = first }
  if frame.kind == "close" and #data >= 2 then
    frame.code, frame.reason = data:byte(1) * 256 + data:byte(2), data:sub(3)
  end
  return frame
end

--- A client behind its 101; fields: more lines of its request.
function websocket.connect(gateway, fields, options)
  local client = gateway:connect(options)
  client:send(websocket.UPGRADE .. (fields or "") .. "\r\n")
  local response, how = http1.read_response(client)
  assert(response and response.status == 101, "no 101: " .. tostring(response and response.status or how))
  return client, response
end

--- A backend that takes the upgrade and then has talk(connection); connection.request is the request.
function websocket.backend(talk)
  return function(connection)
    connection.request = connection:read_head()
    if not connection.request then return end
    connection:send(websocket.SWITCH .. "\r\n")
    talk(connection)
    connection:flush()
  end
end

return websocket
