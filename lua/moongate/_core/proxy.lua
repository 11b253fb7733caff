--- What stood between the client and the gateway: exchange.request.proxy and exchange.request.destination.

local bit = require "bit"
local ffi = require "ffi"
local abi = require "moongate._core.abi"
local raise = require "moongate._core.raise"

local C, ENDED = abi.C, abi.ENDED
local ENDED_TEXT = "exchange ended"
local text = ffi.new "struct moon_abi_text"
local address_out = ffi.new "struct moon_abi_address"
local header_out = ffi.new "struct moon_abi_proxy"

---@class moongate.Proxy what the PROXY header of the connection said; texts as they came, nil where nothing did
---@field version 1|2
---@field address string? who sent it; nil: over a unix socket
---@field port integer?
---@field authority string? the host name that the client asked the proxy for
---@field alpn string? the protocol they agreed on
---@field unique_id string? of the connection
---@field netns string? the network namespace in the proxy's host
---@field vpc_endpoint string? the id of a VPC endpoint of AWS
---@field tls moongate.ProxyTls? nil: not told, or the client spoke in plain
local proxy = {}

---@class moongate.ProxyTls the client's, with the proxy
---@field version string? "TLSv1.3"
---@field cipher string? as OpenSSL names it
---@field cn string? the common name in the client's certificate
---@field signature string? the algorithm that the proxy's certificate is signed with
---@field key string? that of its key
---@field certificate boolean the client has shown one
---@field verified boolean and it was accepted

--- The value of a TLV of any type (0xE0 to 0xEF are for uses of your own): the first, as it came.
---@param type integer 0 to 255
---@return string? value, string? err "exchange ended"
function proxy:tlv(type)
  if not (tonumber(type) and type >= 0 and type <= 255 and type % 1 == 0) then
    raise("proxy:tlv takes a type, 0 to 255, got " .. tostring(type))
  end
  local code = C.moon_abi_proxy_tlv(self.handle, type, text)
  if code == 0 then return ffi.string(text.ptr, text.len) end
  if code == ENDED then return nil, ENDED_TEXT end
  return nil
end

local proxy_meta = { __index = proxy }

local function get(handle, type)
  if C.moon_abi_proxy_tlv(handle, type, text) == 0 then return ffi.string(text.ptr, text.len) end
end

local function tls_of(handle, flags)
  if bit.band(flags, abi.PROXY_TLS) == 0 then return nil end
  local within = abi.PROXY_WITHIN_TLS
  return {
    version = get(handle, within + 0x21),
    cn = get(handle, within + 0x22),
    cipher = get(handle, within + 0x23),
    signature = get(handle, within + 0x24),
    key = get(handle, within + 0x25),
    certificate = bit.band(flags, abi.PROXY_CERTIFICATE) ~= 0,
    verified = bit.band(flags, abi.PROXY_VERIFIED) ~= 0,
  }
end

local function put_address(out, given)
  local address = ffi.string(given.text)
  if address ~= "" then out.address, out.port = address, given.port end
  return out
end

-- nil where there was no header, or nil and why the handle is dead. It is kept: of the caller's own.
local function read(handle)
  local code = C.moon_abi_proxy_get(handle, header_out)
  if code ~= 0 then return nil, code == ENDED and ENDED_TEXT or nil end
  local vpc = get(handle, 0xea)
  return setmetatable(put_address({
    handle = handle,
    version = header_out.version,
    alpn = get(handle, 0x01),
    authority = get(handle, 0x02),
    unique_id = get(handle, 0x05),
    netns = get(handle, 0x30),
    vpc_endpoint = vpc and vpc:byte() == 1 and vpc:sub(2) or nil,
    tls = tls_of(handle, header_out.tls),
  }, header_out.address), proxy_meta)
end

local function destination(handle)
  local code = C.moon_abi_destination(handle, address_out)
  if code ~= 0 then return nil, code == ENDED and ENDED_TEXT or nil end
  return put_address({}, address_out)
end

return { read = read, destination = destination }
