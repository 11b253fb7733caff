-- Backends against the rules: test/spec/data/responses.lua. A case passes only if the client saw what it should, the backend's
-- connection was reused only where it may be, and the next request on a fresh connection is answered rightly.
local h = require "test.support.harness"
local cases = require "test.spec.data.responses"

local function is_one_of(status, wanted)
  if type(wanted) ~= "table" then return status == wanted end
  for _, candidate in ipairs(wanted) do
    if candidate == status then return true end
  end
  return false
end

-- The backend plays the current case to /case and answers everything else well.
local function script_for(play)
  return function(connection)
    while true do
      local request = connection:read_request()
      if not request then return end
      if request.target ~= "/case" then
        connection:send(h.http1.response("200 OK", "right\n"))
      else
        local case = play.case
        connection:send(case.send)
        if case.close == "reset" then
          connection:flush()
          play.wait_client()
          connection:reset()
          return
        elseif case.close then
          return connection:flush()
        end
      end
    end
  end
end

local function request_of(case)
  local body = case.method == "POST" and "Content-Length: 0\r\n" or ""
  return ("%s /case HTTP/1.%d\r\nHost: h.example\r\n%s\r\n"):format(case.method or "GET", case.minor or 1, body)
end

local function check_fields(response, case)
  local seen = {}
  for _, field in ipairs(response.fields) do seen[field[1] .. ": " .. field[2]] = true end
  for _, line in ipairs(case.fields or {}) do
    assert.is_true(seen[line] or false, "no field " .. line .. " in\n" .. response.head)
  end
  for _, name in ipairs(case.absent or {}) do
    if name ~= "connection" or response.headers.connection ~= "close" then
      assert.is_nil(response.headers[name], response.head)
    end
  end
  if case.reason then assert.equal(case.reason, response.reason) end
end

local function check_end(client, response, case)
  if case.outcome == "aborted" and response.status ~= 502 then
    assert.is_false(response.complete, "a broken response looks whole")
    assert.equal(response.body, case.body:sub(1, #response.body))
    return
  end
  assert.is_true(response.complete, "the response broke off: " .. tostring(response.ended))
  if case.status ~= 502 and response.status ~= 502 then assert.equal(case.body, response.body) end
  local lines = {}
  for _, field in ipairs(response.trailer_fields or {}) do lines[#lines + 1] = field[1] .. ": " .. field[2] .. "\r\n" end
  if case.trailers then assert.equal(case.trailers, table.concat(lines)) end
  if case.outcome == "closed" then
    assert.equal("eof", client:wait_end())
  elseif case.outcome == "complete" and response.framing ~= "close" and response.headers.connection ~= "close" then
    client:send "GET /again HTTP/1.1\r\nHost: h.example\r\n\r\n"
    local again, how = h.read_response(client)
    assert.is_not_nil(again, "the client's connection was not kept: " .. tostring(how))
    assert.equal("right\n", again.body)
  end
end

local function check_reuse(backend, case)
  if case.reused == nil then return end
  local of_case, others = nil, {}
  for _, request in ipairs(backend.requests) do
    if request.target == "/case" then
      of_case = request.connection
    else
      others[#others + 1] = request.connection
    end
  end
  assert.is_not_nil(of_case, "the request never came")
  if case.reused then
    assert.is_false(of_case:has_ended(), "not kept for reuse")
    return
  end
  for _, connection in ipairs(others) do assert.is_false(of_case == connection, "reused") end
  of_case:wait_end()
end

describe("responses", function()
  local backend, gateway
  local play = {}
  setup(function()
    h.open(function()
      backend = h.backend(script_for(play))
      gateway = h.gateway { backend = backend, settings = { timeouts = { response = 2 } } }
    end)
  end)
  teardown(function() h.close() end)

  for i, case in ipairs(cases) do
    it(("%s %s (%d)"):format(case.id, case.name, i), h.test(function()
      backend:forget()
      local client = gateway:connect { record = true }
      play.case = case
      -- A reset must not overtake what was sent before it: the row resets when the client has its head.
      play.wait_client = function()
        if case.outcome == "aborted" then client:wait_total(20, 3000) end
      end
      client:send(request_of(case))
      local response, how = h.read_response(client, { method = case.method })
      if not response and case.is_silence_allowed then
        assert.equal("ECONNRESET", how)
      else
        assert.is_not_nil(response, "no response: " .. tostring(how))
        assert.is_true(is_one_of(response.status, case.status), response.raw:sub(1, 300))
        check_fields(response, case)
        check_end(client, response, case)
      end
      assert.equal("right\n", gateway:get("/fresh").body)
      check_reuse(backend, case)
      assert.is_nil(client:bytes():find("POISON", 1, true), "the client saw what was not for it")
      assert.is_nil(gateway.code, "the gateway has gone")
    end))
  end

  it("leaves nothing behind", h.test(function() gateway:expect_quiet() end))
end)
