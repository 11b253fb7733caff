-- WebSocket frames for specs: written and read as they are, right or wrong.
local bit = require "bit"
local http1 = require "test.support.http1"

local websocket = {}

websocket.UPGRADE = "GET /chat HTTP/1.1\r\nHost: h.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" ..
  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
websocket.SWITCH = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" ..
  "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"

-- SHA-1 (RFC 3174), as a number list of its digest's bytes.
local function sha1(text)
  local rol, xor, band, bnot, tobit = bit.rol, bit.bxor, bit.band, bit.bnot, bit.tobit
  local h = { 0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0 }
  local padded = text .. "\128" .. ("\0"):rep((55 - #text) % 64) .. "\0\0\0\0" ..
    string.char(0, 0, math.floor(#text * 8 / 256), #text * 8 % 256)
  for at = 1, #padded, 64 do
    local w = {}
    for i = 0, 15 do
      local a, b, c, d = padded:byte(at + i * 4, at + i * 4 + 3)
      w[i] = tobit(a * 16777216 + b * 65536 + c * 256 + d)
    end
    for i = 16, 79 do w[i] = rol(xor(w[i - 3], w[i - 8], w[i - 14], w[i - 16]), 1) end
    local a, b, c, d, e = h[1], h[2], h[3], h[4], h[5]
    for i = 0, 79 do
      local f, k
      if i < 20 then f, k = xor(band(b, c), band(bnot(b), d)), 0x5A827999
      elseif i < 40 then f, k = xor(b, c, d), 0x6ED9EBA1
      elseif i < 60 then f, k = xor(band(b, c), band(b, d), band(c, d)), 0x8F1BBCDC
      else f, k = xor(b, c, d), 0xCA62C1D6 end
      a, b, c, d, e = tobit(rol(a, 5) + f + e + k + w[i]), a, rol(b, 30), c, d
    end
    for i, value in ipairs { a, b, c, d, e } do h[i] = tobit(h[i] + value) end
  end
  local out = {}
  for _, value in ipairs(h) do
    for shift = 24, 0, -8 do out[#out + 1] = band(bit.rshift(value, shift), 255) end
  end
  return out
end

local function base64(bytes)
  local letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
  local out = {}
  for i = 1, #bytes, 3 do
    local n = bytes[i] * 65536 + (bytes[i + 1] or 0) * 256 + (bytes[i + 2] or 0)
    for shift = 18, 0, -6 do
      local at = math.floor(n / 2 ^ shift) % 64 + 1
      local is_there = i + (18 - shift) / 6 - 1 <= #bytes
      out[#out + 1] = is_there and letters:sub(at, at) or "="
    end
  end
  return table.concat(out)
end

--- The Sec-WebSocket-Accept of a key.
function websocket.accept(key)
  return base64(sha1(key .. "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
end

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
    local accept = websocket.accept(connection.request.headers["sec-websocket-key"] or "")
    connection:send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" ..
      "Sec-WebSocket-Accept: " .. accept .. "\r\n\r\n")
    talk(connection)
    connection:flush()
  end
end

-- ---- over HTTP/2 (RFC 8441)

--- Asks for a WebSocket on stream `id` of a client of test.support.http2; pseudo and fields change what it says.
function websocket.ask(client, id, pseudo, fields)
  local all = { [":method"] = "CONNECT", [":protocol"] = "websocket", [":path"] = "/chat" }
  for name, value in pairs(pseudo or {}) do all[name] = value end
  local list = { { "sec-websocket-version", "13" } }
  for _, field in ipairs(fields or {}) do list[#list + 1] = field end
  client:request(id, all, list, { open = true })
end

--- The same, and the tunnel behind its 200.
function websocket.open(client, id, options)
  websocket.ask(client, id, options and options.pseudo, options and options.fields)
  local tunnel = client:tunnel(id, options)
  local known = tunnel:known()
  client:until_(function() return known.status or known.reset end)
  assert(known.status == 200, "no 200: " .. tostring(known.status or known.reset))
  return tunnel, known
end

return websocket
