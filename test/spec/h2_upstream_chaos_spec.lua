-- Orders of events that nobody thought of (A52): clients of both protocols and an upstream of HTTP/2 that send, reset, stall and go
-- away as dice say. Nothing may crash, leak, mix up answers, or hang.
local h = require "test.support.harness"
local http2 = require "test.support.http2"

local function answer_at_random(server, request)
  local id, dice = request.id, math.random(12)
  local path = request.request[":path"]
  if request.reset then return end
  if dice == 1 then server:reset(id, http2.REFUSED_STREAM)
  elseif dice == 2 then server:reset(id, http2.INTERNAL_ERROR)
  elseif dice == 3 then
    server:respond(id, 200, nil, { open = true }):data(id, path):reset(id, http2.CANCEL)
  elseif dice == 4 then
    server:respond(id, 200, nil, { open = true }):data(id, path, true):data(id, "and more") -- a fault that ends the connection
  elseif dice == 5 then
    server:respond(id, 103, nil, { open = true }):respond(id, 204)
  elseif dice == 6 then
    server:go_away(id)
    server:respond(id, 200, nil, { open = true }):data(id, path, true)
  elseif dice == 7 then
    server.stream:close()
  elseif dice == 8 then
    server:window(id, 1) -- and no answer, ever
  elseif dice == 9 then
    server:respond(id, 200, { { "content-length", "5" } }, { open = true }):data(id, path, true)
  else
    server:respond(id, 200, nil, { open = true }):data(id, path):trail(id, { { "x-path", path } })
  end
end

local function chaos(seed)
  math.randomseed(seed)
  local backend = h.backend(http2.script(function(server)
    while not server.stream.is_closed do
      local request = math.random(3) == 1 and server:take_head(60000) or server:take_request(60000)
      if not request then return end
      answer_at_random(server, request)
    end
  end, { is_stingy = math.random(2) == 1 }))
  local gateway = h.gateway { backend = backend, upstream = { protocol = "http2", limits = { streams = 7 } },
    settings = { timeouts = { response = 1, body = 1 } } }
  for round = 1, 12 do
    local client = http2.connect(gateway:connect(), { settings = math.random(3) == 1 and http2.setting(4, 3) or nil })
    local others = {}
    for i = 0, 24 do
      local id, dice = i * 2 + 1, math.random(6)
      local path = ("/%d-%d"):format(round, i)
      if dice == 1 then
        client:request(id, { [":path"] = path, [":method"] = "POST" }, nil, { open = true }):data(id, ("x"):rep(math.random(30000)))
        if math.random(2) == 1 then client:reset(id, http2.CANCEL) end
      elseif dice == 2 then
        client:request(id, { [":path"] = path }):reset(id, http2.CANCEL)
      elseif dice == 3 then
        client:request(id, { [":path"] = path, [":method"] = "POST" }, nil, { open = true }):data(id, "y"):trail(id, { { "x-a", "b" } })
      else
        client:request(id, { [":path"] = path })
      end
      if math.random(8) == 1 then
        local other = gateway:connect()
        other:send(("POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: 70000\r\n\r\n"):format(path) .. ("z"):rep(math.random(70000)))
        others[#others + 1] = other
      end
      if math.random(4) == 1 then h.turn() end
    end
    if math.random(2) == 1 then client:sync() end
    for i = 0, 24 do
      local known = client.streams[i * 2 + 1]
      if known and known.ended and known.status == 200 then
        local path = ("/%d-%d"):format(round, i)
        assert.equal(path, table.concat(known.pieces))
        if known.trailers then assert.equal(path, known.trailers["x-path"]) end
      end
    end
    client.stream:close()
    for _, other in ipairs(others) do other:close() end
  end
  gateway:expect_quiet(20000)
end

describe("http/2 to an upstream of bad temper", function()
  for seed = 1, 6 do
    it("survives, seed " .. seed, h.test(function() chaos(seed) end, 60000))
  end
end)
