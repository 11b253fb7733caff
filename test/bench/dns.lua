-- A name server for the benchmark of endpoint changes (luajit test/bench/dns.lua PORT CHANGES TTL): svc-N.test, N from 0 to 99,
-- has 50 addresses of the loopback at any time. CHANGES times a second one name loses its oldest address and gets a new one.
package.path = "test/bench/?.lua;" .. package.path
local ffi = require "ffi"
local process = require "process"

ffi.cdef [[
ssize_t recvfrom(int fd, void *bytes, size_t len, int flags, struct bench_address *from, uint32_t *from_len);
ssize_t sendto(int fd, const void *bytes, size_t len, int flags, const struct bench_address *to, uint32_t to_len);
]]
local C = ffi.C
local NAMES, ADDRESSES = 100, 50
local AF_INET, SOCK_DGRAM = 2, 2

local port, changes, ttl = tonumber(arg[1]), tonumber(arg[2]), tonumber(arg[3])
local start_ns = process.now_ns()

local function u16(n) return string.char(math.floor(n / 256) % 256, n % 256) end

-- How often the name has changed by now.
local function serial_of(number)
  local all = math.floor((process.now_ns() - start_ns) / 1e9 * changes)
  return math.floor((all + NAMES - 1 - number) / NAMES)
end

-- More than 512 bytes: the one who asks says that it takes them (EDNS).
local function answer(query)
  local name_end = query:find("\0", 13, true)
  local question = query:sub(13, name_end + 4)
  local number = tonumber(question:match "^%csvc%-(%d+)")
  local is_a = question:byte(-3) == 1
  local count = number and number < NAMES and is_a and ADDRESSES or 0
  local out = { query:sub(1, 2), "\132\128", u16(1), u16(count), u16(0), u16(0), question }
  local serial = count > 0 and serial_of(number)
  for i = 1, count do
    local n = serial + i
    out[#out + 1] = "\192\012" .. u16(1) .. u16(1) .. u16(math.floor(ttl / 65536)) .. u16(ttl) .. u16(4) ..
      string.char(127, 1 + number, math.floor(n / 250) % 250 + 1, n % 250 + 1)
  end
  return table.concat(out)
end

local at, from, len = ffi.new "struct bench_address", ffi.new "struct bench_address", ffi.new "uint32_t[1]"
at.family, at.ip, at.port = AF_INET, 0x0100007f, math.floor(port / 256) + port % 256 * 256
local fd = C.socket(AF_INET, SOCK_DGRAM, 0)
if C.bind(fd, at, 16) ~= 0 then error("no port " .. port) end
print "ready"
io.stdout:flush()
local buffer = ffi.new("char[?]", 1024)
while true do
  len[0] = 16
  local n = tonumber(C.recvfrom(fd, buffer, 1024, 0, from, len))
  local query = n > 16 and ffi.string(buffer, n)
  if query and query:find("\0", 13, true) then
    local bytes = answer(query)
    C.sendto(fd, bytes, #bytes, 0, from, len[0])
  end
end
