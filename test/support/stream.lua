-- One TCP connection of a test, of either side: everything that came is kept, every wait has a deadline.
-- Owned by whoever opened it; close() may be called any number of times. With .limit set, reading stops once more bytes than
-- that wait to be taken: a peer that takes nothing.
local uv = require "luv"
local loop = require "test.support.loop"

local Stream = {}
Stream.__index = Stream

local stream = { default_ms = 5000 }

local function on_read(self, err, bytes)
  if err then
    self.failure = err:match "^[A-Z0-9]+" or err
  elseif bytes then
    self.total = self.total + #bytes
    if self.on_bytes then
      self.on_bytes(bytes)
    else
      self.pieces[#self.pieces + 1] = bytes
      self.pending = self.pending + #bytes
      if self.record then self.record[#self.record + 1] = bytes end
      if self.limit and self.pending > self.limit then self:pause() end
    end
  elseif not self.is_shut and not self.handle:getpeername() then
    self.failure = "ECONNRESET" -- libuv calls a reset that came together with the last bytes an end
  else
    self.is_eof = true
  end
  self.changed:fire()
end

-- Wraps a connected handle. options.record keeps all bytes ever received (see bytes()).
function stream.wrap(handle, options)
  local self = setmetatable({
    handle = handle, changed = loop.signal(), pieces = {}, text = "", at = 1, pending = 0, total = 0, sent = 0, queued = 0,
    record = options and options.record and {} or nil,
  }, Stream)
  if not (options and options.is_paused) then self:resume() end
  return self
end

-- Connects to 127.0.0.1:port, or options.host. nil and the error's name (ETIMEDOUT after options.ms) when that fails.
function stream.try_connect(port, options)
  local handle = uv.new_tcp()
  local host = options and options.host or "127.0.0.1"
  if options and options.receive_buffer then
    -- A socket has to exist before its buffer can be set: binding creates it.
    handle:bind(options.source or host, 0)
    uv.recv_buffer_size(handle, options.receive_buffer)
  elseif options and options.source then
    handle:bind(options.source, 0)
  end
  local outcome
  local done = loop.signal()
  handle:connect(host, port, function(err)
    outcome = err or "connected"
    done:fire()
  end)
  loop.try_wait(done, options and options.ms or stream.default_ms, function() return outcome ~= nil end)
  outcome = outcome or "ETIMEDOUT"
  if outcome ~= "connected" then
    handle:close()
    return nil, outcome:match "^[A-Z0-9]+"
  end
  handle:nodelay(true)
  return stream.wrap(handle, options)
end

function Stream:resume()
  if self.is_reading or self.is_closed then return end
  self.is_reading = true
  self.handle:read_start(function(err, bytes) on_read(self, err, bytes) end)
end

function Stream:pause()
  self.is_reading = false
  self.handle:read_stop()
end

-- Queues bytes; does not wait. sent counts what the kernel has taken.
function Stream:send(bytes)
  if self.is_closed then return self end
  self.queued = self.queued + #bytes
  self.handle:write(bytes, function(err)
    if err then
      self.write_failure = err:match "^[A-Z0-9]+"
    else
      self.sent = self.sent + #bytes
    end
    self.changed:fire()
  end)
  return self
end

-- Waits until the kernel has taken all that was sent. False when writing failed.
function Stream:flush(ms)
  loop.wait(self.changed, ms or stream.default_ms, "the peer to take what was sent", function()
    return self.sent == self.queued or self.write_failure ~= nil
  end)
  return self.write_failure == nil
end

-- Sends each piece in a turn of its own, so that the peer may read it by itself.
function Stream:send_pieces(pieces, pause_ms)
  for _, piece in ipairs(pieces) do
    self:send(piece)
    if not self:flush() then return self end
    if pause_ms then loop.pass(pause_ms) else loop.turn() end
  end
  return self
end

function Stream:has_ended()
  return (self.is_eof or self.failure or self.is_closed) ~= nil
end

-- Joins what came since the last time to what was left.
local function join(self)
  if #self.pieces == 0 then return end
  table.insert(self.pieces, 1, self.text:sub(self.at))
  self.text, self.at = table.concat(self.pieces), 1
  self.pieces = {}
end

-- The bytes that came and were not taken yet.
function Stream:peek()
  join(self)
  return self.text:sub(self.at)
end

function Stream:take(len)
  join(self)
  local taken = self.text:sub(self.at, self.at + len - 1)
  self.at = self.at + #taken
  self.pending = self.pending - #taken
  return taken
end

local function preview(self)
  local text = self:peek()
  return ("%d bytes so far%s: %q"):format(#text,
    self.is_eof and ", then EOF" or self.failure and ", then " .. self.failure or "", text:sub(1, 200))
end

-- Exactly len bytes; nil and what ended the connection when they cannot come any more.
function Stream:read(len, ms)
  loop.wait(self.changed, ms or stream.default_ms, function()
    return ("%d bytes (%s)"):format(len, preview(self))
  end, function() return self.pending >= len or self:has_ended() end)
  if self.pending < len then return nil, self.failure or "eof" end
  return self:take(len)
end

-- Up to and including a plain text. nil and what ended the connection when it did not come.
function Stream:read_until(text, ms)
  local seen, last = 0, nil -- bytes looked at in vain, so that a long wait costs linear time
  loop.wait(self.changed, ms or stream.default_ms, function()
    return ("%q (%s)"):format(text, preview(self))
  end, function()
    join(self)
    last = select(2, self.text:find(text, self.at + math.max(0, seen - #text), true))
    seen = self.pending
    return last ~= nil or self:has_ended()
  end)
  if not last then return nil, self.failure or "eof" end
  return self:take(last - self.at + 1)
end

-- All bytes until the peer is done, and how it ended: "eof", "ECONNRESET" ...
function Stream:read_all(ms)
  local how = self:wait_end(ms)
  return self:take(self.pending), how
end

-- Waits for the end of the connection: "eof" or the name of the error.
function Stream:wait_end(ms)
  loop.wait(self.changed, ms or stream.default_ms, function()
    return "the connection to end (" .. preview(self) .. ")"
  end, function() return self:has_ended() end)
  return self.failure or "eof"
end

-- Whether at least len bytes more come within that time.
function Stream:has_more(ms, len)
  return loop.try_wait(self.changed, ms, function() return self.pending >= (len or 1) end)
end

function Stream:wait_total(len, ms)
  loop.wait(self.changed, ms or stream.default_ms, function()
    return ("%d bytes in all, got %d"):format(len, self.total)
  end, function() return self.total >= len or self:has_ended() end)
end

-- All bytes ever received (option record).
function Stream:bytes()
  self.record = { table.concat(self.record) }
  return self.record[1]
end

function Stream:shutdown()
  self.is_shut = true
  if not self.is_closed then self.handle:shutdown(function() self.changed:fire() end) end
  return self
end

function Stream:close()
  if self.is_closed then return end
  self.is_closed = true
  if not self.handle:is_closing() then self.handle:close() end
  self.changed:fire()
end

-- Ends the connection with a RST.
function Stream:reset()
  if self.is_closed then return end
  self.is_closed = true
  self.handle:close_reset()
  self.changed:fire()
end

function Stream:local_port()
  return self.handle:getsockname().port
end

return stream
