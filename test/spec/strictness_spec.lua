-- Requests against the rules: test/spec/data/strictness.lua, each case against one gateway with a recording backend.
-- A case passes only if the client's status, the exact bytes at the backend, the end of the connection, and the next request
-- on a fresh connection are all right.
local h = require "test.support.harness"
local cases = require "test.spec.data.strictness"

local function forwarded(host)
  return "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: " .. host .. "\r\n"
end

local function expand(head)
  return (head:gsub("@XF:(.-)@", forwarded):gsub("@XF@", function() return forwarded "h.example" end))
end

local function statuses_of(case)
  return case.statuses or { case.status }
end

local function is_one_of(status, wanted)
  if type(wanted) ~= "table" then return status == wanted end
  for _, candidate in ipairs(wanted) do
    if candidate == status then return true end
  end
  return false
end

local function text_of(wanted)
  return type(wanted) == "table" and table.concat(wanted, " or ") or tostring(wanted)
end

local function client_send(client, case)
  if type(case.send) == "table" then client:send_pieces(case.send) else client:send(case.send) end
  if case.half_close then client:shutdown() end
end

local function check_responses(client, case)
  for i, wanted in ipairs(statuses_of(case)) do
    local response, how = h.read_response(client, { method = case.method })
    if not response and case.is_silence_allowed then return end
    assert.is_not_nil(response, ("response %d never came: %s"):format(i, tostring(how)))
    assert.is_true(is_one_of(response.status, wanted),
      ("status %d (%s) instead of %s"):format(response.status, response.body, text_of(wanted)))
    assert.is_true(response.complete, "the response broke off")
  end
end

-- After the responses: nothing but the end, or a connection that still works.
local function check_connection(client, case)
  if case.close then
    assert.equal("", (client:read_all()))
    return
  end
  client:send "GET /again HTTP/1.1\r\nHost: h.example\r\n\r\n"
  local response, how = h.read_response(client)
  assert.is_not_nil(response, "the connection was not kept: " .. tostring(how))
  assert.equal("you asked for /again\n", response.body)
end

local function check_request(got, wanted)
  assert.equal(expand(wanted.head), got.head)
  assert.equal(wanted.body, got.body)
  assert.is_true(got.complete)
  local lines = {}
  for _, field in ipairs(got.trailer_fields or {}) do lines[#lines + 1] = field[1] .. ": " .. field[2] .. "\r\n" end
  assert.equal(wanted.trailers or "", table.concat(lines))
end

-- What the backend has of this case, without the requests that the spec itself sent afterwards.
local function of_case(backend)
  local out, len = {}, 0
  for _, request in ipairs(backend.requests) do
    len = len + #request.raw
    if request.target ~= "/again" and request.target ~= "/fresh" then out[#out + 1] = request end
  end
  return out, len
end

local function check_backend(backend, case)
  local wanted = case.backend or {}
  local requests, len = of_case(backend)
  assert.equal(#wanted, #requests, requests[1] and requests[1].raw or "no request at the backend")
  for i, request in ipairs(requests) do check_request(request, wanted[i]) end
  assert.equal(len, #backend:bytes(), "stray bytes at the backend")
end

-- A request that was broken off: at the most its beginning came, and its connection is not used again.
local function check_partial(backend, case)
  for _, connection in ipairs(backend.connections) do
    if connection:bytes():find("^[A-Z]+ /a ") then connection:wait_end() end
  end
  local requests = of_case(backend)
  assert.is_true(#requests <= 1)
  local request = requests[1]
  if not request then return end
  assert.equal(expand(case.partial.head), request.head)
  assert.equal(request.body, case.partial.body:sub(1, #request.body))
  assert.is_false(request.complete)
end

-- Notes requests with their bodies even when these break off.
local function record(connection)
  while true do
    local request = connection:read_request()
    if not request or not request.complete then return end
    local body = request.method == "HEAD" and "" or "you asked for " .. request.target .. "\n"
    connection:send(h.http1.response("200 OK", body))
  end
end

describe("strictness", function()
  local backend, gateway
  setup(function()
    h.open(function()
      backend = h.backend(record)
      gateway = h.gateway { backend = backend, settings = { timeouts = { request_head = 1, body = 1 } } }
    end)
  end)
  teardown(function() h.close() end)

  for i, case in ipairs(cases) do
    it(("%s %s (%d)"):format(case.id, case.name, i), h.test(function()
      backend:forget()
      local client = gateway:connect()
      client_send(client, case)
      if case.status or case.statuses then check_responses(client, case) end
      check_connection(client, case)
      assert.equal("you asked for /fresh\n", gateway:get("/fresh").body)
      if case.partial then check_partial(backend, case) else check_backend(backend, case) end
      assert.is_nil(gateway.code, "the gateway has gone")
    end))
  end

  it("leaves nothing behind", h.test(function() gateway:expect_quiet() end))
end)
