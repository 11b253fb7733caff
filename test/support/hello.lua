-- ClientHellos as raw bytes, for peers that answer none of it.
--   hello.new { sni = "a.example", alpn = { "h2" }, padding = 100, record = 64 }
local hello = {}

local function u16(n) return string.char(math.floor(n / 256) % 256, n % 256) end

local function u24(n) return string.char(math.floor(n / 65536)) .. u16(n % 65536) end

local function extension(kind, value) return u16(kind) .. u16(#value) .. value end

local function extensions(options)
  local out = { extension(0x1a1a, "") } -- grease
  if options.sni then
    local name = "\0" .. u16(#options.sni) .. options.sni
    out[#out + 1] = extension(0, u16(#name) .. name)
  end
  if options.alpn then
    local list = {}
    for i, protocol in ipairs(options.alpn) do list[i] = string.char(#protocol) .. protocol end
    local text = table.concat(list)
    out[#out + 1] = extension(16, u16(#text) .. text)
  end
  if options.padding then out[#out + 1] = extension(21, ("\0"):rep(options.padding)) end
  if options.raw then out[#out + 1] = options.raw end
  return table.concat(out)
end

-- The handshake message.
function hello.message(options)
  local list = extensions(options)
  local body = "\3\3" .. ("r"):rep(32) .. "\0" .. "\0\4\19\1\19\2" .. "\1\0" .. u16(#list) .. list
  return "\1" .. u24(#body) .. body
end

-- In records of options.record bytes.
function hello.new(options)
  local message, out = hello.message(options), {}
  local len = options.record or 16384
  for at = 1, #message, len do
    local part = message:sub(at, at + len - 1)
    out[#out + 1] = "\22\3\1" .. u16(#part) .. part
  end
  return table.concat(out)
end

return hello
