-- Name servers for specs: dnsmasq with a host file of its own, and one made here that answers as badly as it is told.
local uv = require "luv"
local loop = require "test.support.loop"
local ports = require "test.support.ports"

local dns = {}

-- ---- dnsmasq

local Dnsmasq = {}
Dnsmasq.__index = Dnsmasq

local function find_program()
  for _, path in ipairs { "/usr/sbin/dnsmasq", "/usr/bin/dnsmasq" } do
    if uv.fs_access(path, "X") then return path end
  end
end

-- hosts: name -> list of addresses. Nil when there is no dnsmasq.
function dns.dnsmasq(hosts, options)
  options = options or {}
  local program = find_program()
  if not program then return nil end
  local self = setmetatable({
    program = program, dir = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/moongate-dns-XXXXXX")),
    port = ports.free(), ttl = options.ttl or 1, changed = loop.signal(), output = "",
  }, Dnsmasq)
  self.path = self.dir .. "/hosts"
  self:write(hosts)
  local ok, err
  for _ = 1, 5 do -- somebody else may take the port in between
    ok, err = pcall(self.start, self)
    if ok then return self end
    self.port = ports.free()
  end
  error(err, 0)
end

function Dnsmasq:write(hosts)
  local file = assert(io.open(self.path, "w"))
  for name, addresses in pairs(hosts) do
    for _, address in ipairs(addresses) do file:write(address, " ", name, "\n") end
  end
  file:close()
end

function Dnsmasq:start()
  local pipe = uv.new_pipe(false)
  self.output, self.code = "", nil
  local args = { "--keep-in-foreground", "--conf-file=/dev/null", "--port=" .. self.port, "--listen-address=127.0.0.1",
    "--bind-interfaces", "--no-resolv", "--no-hosts", "--addn-hosts=" .. self.path, "--local-ttl=" .. self.ttl,
    "--local=/test/", "--user=" .. uv.os_get_passwd().username, "--pid-file=", "--log-facility=-" }
  self.handle, self.process_id = uv.spawn(self.program, { args = args, stdio = { nil, nil, pipe } }, function(code)
    self.code = code
    self.handle:close()
    self.changed:fire()
  end)
  pipe:read_start(function(_, bytes)
    self.output = self.output .. (bytes or "")
    if not bytes then pipe:close() end
    self.changed:fire()
  end)
  self:wait_read()
end

-- It logs when it has read its hosts; from then on it answers from them.
function Dnsmasq:wait_read()
  loop.wait(self.changed, 5000, function() return "dnsmasq to read its hosts:\n" .. self.output end, function()
    return self.output:find "read [^\n]*hosts" ~= nil or self.code ~= nil
  end)
  assert(self.code == nil, self.output)
  self.output = ""
end

-- Other hosts from now on.
function Dnsmasq:set(hosts)
  self:write(hosts)
  uv.kill(self.process_id, "sighup")
  self:wait_read()
end

function Dnsmasq:stop()
  if self.code == nil then
    uv.kill(self.process_id, "sigkill")
    loop.wait(self.changed, 5000, "dnsmasq to end", function() return self.code ~= nil end)
  end
end

function Dnsmasq:close()
  if self.code == nil then uv.kill(self.process_id, "sigkill") end
  os.remove(self.path)
  uv.fs_rmdir(self.dir)
end

-- ---- the other one

local function u16(n) return string.char(math.floor(n / 256) % 256, n % 256) end
local function u32(n) return u16(math.floor(n / 65536)) .. u16(n % 65536) end
dns.u16 = u16

-- What a query asks: { id, name, type ("A", "AAAA" or a number), question = its bytes, has_edns }.
local function parse(bytes)
  local at, labels = 13, {}
  while bytes:byte(at) and bytes:byte(at) > 0 do
    local len = bytes:byte(at)
    labels[#labels + 1] = bytes:sub(at + 1, at + len)
    at = at + len + 1
  end
  local kind = bytes:byte(at + 1) * 256 + bytes:byte(at + 2)
  return { id = bytes:sub(1, 2), name = table.concat(labels, "."):lower(), question = bytes:sub(13, at + 4),
    has_edns = bytes:byte(12) > 0, type = kind == 1 and "A" or kind == 28 and "AAAA" or kind }
end

-- An answer to a query. options: addresses (of IPv4), ttl, code (0), truncated, id (two bytes).
function dns.reply(query, options)
  local addresses = query.type == "A" and options.addresses or {}
  local flags = string.char(0x84 + (options.truncated and 2 or 0), 0x80 + (options.code or 0))
  local out = { (options.id or query.id), flags, u16(1), u16(#addresses), u16(0), u16(0), query.question }
  for _, address in ipairs(addresses) do
    local a, b, c, d = address:match "(%d+)%.(%d+)%.(%d+)%.(%d+)"
    out[#out + 1] = "\192\012" .. u16(1) .. u16(1) .. u32(options.ttl or 1) .. u16(4) .. string.char(a, b, c, d)
  end
  return table.concat(out)
end

-- A server whose script(query) gives the bytes of an answer, a list of them, or nil for none.
function dns.server(script)
  local self = { socket = uv.new_udp(), script = script, queries = {}, changed = loop.signal() }
  assert(self.socket:bind("127.0.0.1", 0))
  self.port = self.socket:getsockname().port
  self.socket:recv_start(function(err, bytes, from)
    if err or not bytes or not from then return end
    local query = parse(bytes)
    self.queries[#self.queries + 1] = query
    local answers = self.script(query) or {}
    for _, answer in ipairs(type(answers) == "string" and { answers } or answers) do
      self.socket:send(answer, from.ip, from.port)
    end
    self.changed:fire()
  end)
  function self.close()
    if not self.socket:is_closing() then self.socket:close() end
  end
  return self
end

return dns
