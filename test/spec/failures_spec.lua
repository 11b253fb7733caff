-- Failing backends (P08): test/spec/data/failures.lua against the real binary, a fresh gateway for each row.
local h = require "test.support.harness"
local rows = require "test.spec.data.failures"

local TIMEOUTS = { connect = 0.3, response = 0.5, body = 0.5 }

local PIECE = ("x"):rep(1048576)

-- In pieces: while one large text is made, nothing is sent, and on a busy machine that is a stalled body.
local function fill(stream, len)
  while len > 0 do
    local piece = len < #PIECE and PIECE:sub(1, len) or PIECE
    stream:send(piece)
    len = len - #piece
  end
end

-- Steps of a connection of the backend; each gives true when the script is over.
local backend_steps = {}

function backend_steps.read_head(connection, world)
  local request = connection:read_head()
  if not request then return true end
  world.heads = world.heads + 1
  world.changed:fire()
end

function backend_steps.read(connection, _, len)
  return connection:read(len) == nil
end

function backend_steps.send(connection, _, bytes)
  connection:send(bytes)
end

function backend_steps.fill(connection, _, len)
  fill(connection, len)
end

function backend_steps.shutdown(connection)
  connection:shutdown()
end

function backend_steps.close(connection)
  connection:flush()
  return true
end

function backend_steps.reset(connection)
  connection:flush()
  connection:reset()
  return true
end

function backend_steps.wait(connection)
  connection.limit = 65536
  connection:wait_end(20000)
end

function backend_steps.await_client(_, world, len)
  world.client:wait_total(len)
end

local function play_connection(connection, script, world)
  for _, step in ipairs(script) do
    if backend_steps[step[1]](connection, world, step[2]) then break end
  end
  connection:close()
  world.scripts_over[script] = true
  world.changed:fire()
end

local answer_fresh = h.always(h.http1.response("200 OK", "fresh\n"))

local function backend_for(row, world)
  return h.backend(function(connection, index)
    local script = row.backend[index]
    if script then play_connection(connection, script, world) else answer_fresh(connection) end
  end)
end

-- Steps of the client.
local client_steps = {}

function client_steps.send(world, _, step)
  world.client:send(step[2])
  world.method = step[2]:match "^%u+"
end

function client_steps.fill(world, _, step)
  fill(world.client, step[2])
end

function client_steps.shutdown(world) world.client:shutdown() end
function client_steps.close(world) world.client:close() end
function client_steps.reset(world) world.client:reset() end

function client_steps.await_bytes(world, _, step)
  world.client:wait_total(step[2])
end

function client_steps.await_heads(world, _, step)
  h.loop.wait(world.changed, 5000, "the backend to read heads", function() return world.heads >= step[2] end)
end

function client_steps.await_script(world, row, step)
  h.loop.wait(world.changed, 5000, "the end of the backend's connection", function()
    return world.scripts_over[row.backend[step[2]]] == true
  end)
end

function client_steps.expect_end(world)
  assert.equal("", (world.client:read_all()))
end

function client_steps.expect(world, _, step)
  local status, body, outcome = step[2], step[3], step[4]
  local response, how = h.read_response(world.client, { method = world.method })
  assert.is_not_nil(response, "no response: " .. tostring(how))
  assert.equal(status, response.status, response.body)
  if outcome == "aborted" then
    assert.is_false(response.complete, "a broken response looks whole")
    if body then assert.equal(response.body, body:sub(1, #response.body)) end
    return
  end
  assert.is_true(response.complete, "the response broke off: " .. tostring(response.ended))
  if body then assert.equal(body, response.body) end
  if outcome == "closed" then
    assert.equal("", (world.client:read_all()))
  else
    assert.not_equal("close", response.headers.connection)
    assert.is_false(world.client:has_ended())
  end
end

local function endpoint_of(row, world)
  if row.listen == "refuse" then return "127.0.0.1:" .. h.dead_port() end
  if row.listen == "hang" then return "127.0.0.1:" .. h.black_hole() end
  world.backend = backend_for(row, world)
  return world.backend:address()
end

local function run_row(row)
  local world = { changed = h.loop.signal(), heads = 0, scripts_over = {} }
  local endpoint = endpoint_of(row, world)
  local gateway = h.gateway { upstreams = { backend = { endpoint } }, settings = { timeouts = TIMEOUTS } }
  world.client = gateway:connect { record = true }
  local start = h.now_ms()
  for _, step in ipairs(row.client) do client_steps[step[1]](world, row, step) end
  h.check_took(h.now_ms() - start, row.min_ms, row.max_ms)
  assert.is_nil(world.client:bytes():find("POISON", 1, true), "the client saw what was not for it")
  if world.backend then
    assert.equal(row.connections, #world.backend.connections, "connections")
    if row.heads then assert.equal(row.heads, world.heads, "heads") end
  end
  world.client:close()
  gateway:expect_quiet()
end

describe("failing backends:", function()
  for i, row in ipairs(rows) do
    it(("%s (%d)"):format(row.name, i), h.test(function() run_row(row) end))
  end
end)
