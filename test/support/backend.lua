-- A recording backend in the test's own process: keeps the exact bytes of every connection and answers by script.
--
--   local b = backend.new(function(connection, index) ... end)   -- a task per connection; it is closed when the script returns
--
-- Without a script every request is answered 200 with a body that names the request's target.
local uv = require "luv"
local http1 = require "test.support.http1"
local loop = require "test.support.loop"
local ports = require "test.support.ports"
local stream = require "test.support.stream"

local Backend = {}
Backend.__index = Backend

local backend = {}

-- Reads the next request whole and notes it in backend.requests. Nil when the connection ended.
local function read_request(connection, ms)
  local request, err = http1.read_request(connection, ms or connection.idle_ms)
  if not request then return nil, err end
  connection.backend:note(request, connection)
  return request
end

local function read_head(connection, ms)
  local request, err = http1.read_request_head(connection, ms or connection.idle_ms)
  if not request then return nil, err end
  connection.backend:note(request, connection)
  return request
end

-- A script that gives answer(request), raw bytes, to every request.
function backend.each(answer)
  return function(connection)
    while true do
      local request = connection:read_request()
      if not request then return end
      connection:send(answer(request))
    end
  end
end

-- A script that gives the same raw bytes to every request.
function backend.always(bytes)
  return backend.each(function() return bytes end)
end

-- The default script: keep-alive, answers name what was asked.
backend.answer_all = backend.each(function(request)
  return http1.response("200 OK", "you asked for " .. request.target .. "\n")
end)

-- A script that reads one head, sends these raw bytes (nil: none) and then holds the connection until the gateway ends it.
function backend.once(bytes)
  return function(connection)
    connection:read_head()
    if bytes then connection:send(bytes) end
    connection:wait_end(60000)
  end
end

local function on_connection(self, script)
  local handle = uv.new_tcp()
  self.server:accept(handle)
  handle:nodelay(true)
  local connection = stream.wrap(handle, { record = true, is_paused = self.is_paused })
  connection.backend, connection.idle_ms = self, 60000
  connection.read_request, connection.read_head = read_request, read_head
  self.connections[#self.connections + 1] = connection
  self.changed:fire()
  return loop.task(function()
    script(connection, #self.connections)
    connection:close()
  end)
end

-- A script that sends a response while it reads the request. The last byte waits for the whole request: an exchange whose response
-- is over is over, and the rest of its upload nobody's.
function backend.duplex(bytes)
  return function(connection)
    local request = connection:read_head()
    connection:send(bytes:sub(1, -2))
    http1.read_request_body(connection, request, 20000)
    connection:send(bytes:sub(-1))
    connection:wait_end(20000)
  end
end

function backend.new(script, options)
  local self = setmetatable({
    server = uv.new_tcp(), changed = loop.signal(), connections = {}, requests = {},
    script = script or backend.answer_all, is_paused = options and options.is_paused,
  }, Backend)
  assert(self.server:bind(options and options.host or "127.0.0.1", options and options.port or 0))
  self.port = self.server:getsockname().port
  assert(self.server:listen(1024, function(err)
    if not err then on_connection(self, self.script) end
  end))
  return self
end

function Backend:note(request, connection)
  request.connection = connection
  self.requests[#self.requests + 1] = request
  self.changed:fire()
end

function Backend:address()
  return "127.0.0.1:" .. self.port
end

-- Waits until that many requests have come in all.
function Backend:wait_requests(count, ms)
  loop.wait(self.changed, ms or 5000, function()
    return ("%d requests at the backend, there are %d"):format(count, #self.requests)
  end, function() return #self.requests >= count end)
  return self.requests[count]
end

function Backend:wait_connections(count, ms)
  loop.wait(self.changed, ms or 5000, function()
    return ("%d connections at the backend, there are %d"):format(count, #self.connections)
  end, function() return #self.connections >= count end)
  return self.connections[count]
end

-- Forgets what was recorded; open connections stay and begin with an empty record.
function Backend:forget()
  self.requests = {}
  local open = {}
  for _, connection in ipairs(self.connections) do
    if not connection:has_ended() and not connection.is_closed then
      connection.record = {}
      open[#open + 1] = connection
    end
  end
  self.connections = open
end

-- The bytes of all connections, in the order in which these were opened.
function Backend:bytes()
  local all = {}
  for i, connection in ipairs(self.connections) do all[i] = connection:bytes() end
  return table.concat(all)
end

-- Closes the listening socket: new connections are refused from now on.
function Backend:refuse()
  if not self.server:is_closing() then self.server:close() end
end

function Backend:close()
  self:refuse()
  for _, connection in ipairs(self.connections) do connection:close() end
end

-- A port of the loopback on which nobody listens.
backend.dead_port = ports.free

-- A port that never completes a handshake: its accept queue is full, so the kernel drops what knocks.
-- Gives the port and a function that closes it all.
function backend.black_hole()
  local server = uv.new_tcp()
  server:bind("127.0.0.1", 0)
  local port = server:getsockname().port
  server:listen(1, function() end)
  local handles = { server }
  local is_full = false
  while not is_full do
    local handle = uv.new_tcp()
    handles[#handles + 1] = handle
    local changed, is_connected = loop.signal(), false
    handle:connect("127.0.0.1", port, function() is_connected = true changed:fire() end)
    is_full = not loop.try_wait(changed, 150, function() return is_connected end)
    assert(#handles < 64, "the accept queue does not fill")
  end
  return port, function()
    for _, handle in ipairs(handles) do handle:close() end
  end
end

return backend
