-- Bodies pass byte for byte, whatever their framing, size and pace, on the copied and on the spliced path.
local h = require "test.support.harness"

local LENGTHS = { 0, 1, 2, 15, 16, 17, 255, 256, 1000, 4095, 4096, 4097, 8191, 8192, 8193, 16384, 32767, 32768, 32769, 65535, 65536,
  65537, 131072, 262144, 262145, 1048575, 1048576 }

local function length_response(body)
  return h.http1.response("200 OK", body)
end

local function chunked_response(body, piece)
  return "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" .. h.http1.chunked(body, piece)
end

-- A backend that echoes the request's body.
local echo = h.each(function(request) return length_response(request.body) end)

local function post(client, body)
  client:send(("POST /b HTTP/1.1\r\nHost: h.example\r\nContent-Length: %d\r\n\r\n"):format(#body) .. body)
end

local function post_chunked(client, body, piece, trailers)
  client:send("POST /b HTTP/1.1\r\nHost: h.example\r\nTransfer-Encoding: chunked\r\n\r\n" ..
    h.http1.chunked(body, piece, trailers))
end

for _, path in ipairs { { "spliced", true }, { "copied", false } } do
  local settings = { splice = path[2] }

  describe("bodies, " .. path[1] .. ":", function()
    it("responses of every length, by length, chunked and until close", h.test(function()
      local body
      local backend = h.backend(function(connection)
        while true do
          local request = connection:read_request()
          if not request then return end
          if request.target == "/length" then
            connection:send(length_response(body))
          elseif request.target == "/chunked" then
            connection:send(chunked_response(body, 3000))
          else
            connection:send("HTTP/1.1 200 OK\r\n\r\n" .. body)
            connection:flush(20000)
            return
          end
        end
      end)
      local gateway = h.gateway { backend = backend, settings = settings }
      local client = gateway:connect()
      for i, len in ipairs(LENGTHS) do
        body = h.http1.pattern(len, i)
        for _, kind in ipairs { "length", "chunked", "close" } do
          client:send("GET /" .. kind .. " HTTP/1.1\r\nHost: h.example\r\n\r\n")
          local response = h.read_response(client)
          assert.equal(kind == "length" and "length" or "chunked", response.framing)
          assert.is_true(response.complete)
          assert.is_true(body == response.body, ("%s, %d bytes: got %d others"):format(kind, len, #response.body))
        end
      end
      client:close()
      gateway:expect_quiet()
    end, 60000))

    it("heads of any length after long bodies", h.test(function()
      local answers = { { 0, 70000 }, { 0, 70000 }, { 100, 70000 }, { 6000, 70000 }, { 9000, 70000 }, { 0, 10 },
        { 0, 70000 }, { 0, 0 }, { 0, 70000 }, { 500, 3000 }, { 0, 300000 }, { 0, 70000 } }
      local function body_of(i) return h.http1.pattern(answers[i][2], i) end
      local backend = h.backend(function(connection)
        for i, answer in ipairs(answers) do
          connection:read_request()
          connection:send(("HTTP/1.1 200 OK\r\nX-Pad: %s\r\nContent-Length: %d\r\n\r\n"):format(("p"):rep(answer[1]),
            answer[2]) .. body_of(i))
        end
      end)
      local gateway = h.gateway { backend = backend, settings = settings }
      local client = gateway:connect()
      for i, answer in ipairs(answers) do
        client:send("GET / HTTP/1.1\r\nHost: h.example\r\n\r\n")
        local response = h.read_response(client)
        assert.equal(answer[1], #response.headers["x-pad"])
        assert.is_true(body_of(i) == response.body, ("answer %d: got %d others"):format(i, #response.body))
      end
      client:close()
      gateway:expect_quiet()
    end))

    it("requests of every length, by length and chunked", h.test(function()
      local backend = h.backend(echo)
      local gateway = h.gateway { backend = backend, settings = settings }
      local client = gateway:connect()
      for i, len in ipairs(LENGTHS) do
        local body = h.http1.pattern(len, i + 100)
        post(client, body)
        local response = h.read_response(client)
        assert.is_true(body == response.body, ("by length, %d bytes: got %d others"):format(len, #response.body))
        post_chunked(client, body, 1 + math.floor(len / 3))
        response = h.read_response(client)
        assert.is_true(body == response.body, ("chunked, %d bytes: got %d others"):format(len, #response.body))
      end
      client:close()
      gateway:expect_quiet()
    end, 60000))

    it("8 MiB down", h.test(function()
      local body = h.http1.pattern(8388608, 7)
      local gateway = h.gateway { backend = h.backend(h.always(length_response(body))), settings = settings }
      local response = gateway:get("/", nil, { ms = 20000 })
      assert.is_true(body == response.body)
      gateway:expect_quiet()
    end, 60000))

    it("8 MiB up", h.test(function()
      local body = h.http1.pattern(8388608, 8)
      local backend = h.backend()
      local gateway = h.gateway { backend = backend, settings = settings }
      local client = gateway:connect()
      post(client, body)
      assert.equal(200, h.read_response(client, { ms = 20000 }).status)
      assert.is_true(body == backend.requests[1].body)
      client:close()
      gateway:expect_quiet()
    end, 60000))

    it("both directions at once", h.test(function()
      local down, up = h.http1.pattern(2097152, 9), h.http1.pattern(2097152, 10)
      local backend = h.backend(h.duplex(length_response(down)))
      local gateway = h.gateway { backend = backend, settings = settings }
      local client = gateway:connect()
      post(client, up)
      local response = h.read_response(client, { ms = 20000 })
      assert.is_true(down == response.body)
      assert.is_true(up == backend.requests[1].body)
    end, 60000))

    it("a body in many small pieces", h.test(function()
      local body = h.http1.pattern(300, 11)
      local backend = h.backend(function(connection)
        while connection:read_request() do
          connection:send("HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n")
          for i = 1, 300 do
            connection:send(body:sub(i, i))
            h.turn()
          end
        end
      end)
      local gateway = h.gateway { backend = backend, settings = settings }
      assert.equal(body, gateway:get("/").body)
    end))

    it("a long body whose beginning trickles", h.test(function()
      local body = h.http1.pattern(200000, 12)
      local backend = h.backend(function(connection)
        while connection:read_request() do
          connection:send("HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n")
          local at = 1
          while at <= #body do
            local len = at < 2000 and 100 or 40000
            connection:send(body:sub(at, at + len - 1))
            at = at + len
            h.turn()
          end
        end
      end)
      local gateway = h.gateway { backend = backend, settings = settings }
      assert.is_true(body == gateway:get("/").body)
    end))

    it("a long body with the next request right behind it", h.test(function()
      local body = h.http1.pattern(100000, 13)
      local backend = h.backend(echo)
      local gateway = h.gateway { backend = backend, settings = settings }
      local client = gateway:connect()
      post(client, body)
      post(client, "second")
      assert.is_true(body == h.read_response(client).body)
      assert.equal("second", h.read_response(client).body)
    end))
  end)
end

describe("bodies", function()
  it("arrive as they come, not when they are whole", h.test(function()
    local go = h.loop.signal()
    local has_seen = false
    local backend = h.backend(function(connection)
      connection:read_request()
      connection:send "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"
      h.loop.wait(go, 5000, "the client to see the first half", function() return has_seen end)
      connection:send "world"
      connection:wait_end()
    end)
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect()
    client:send "GET / HTTP/1.1\r\nHost: h.example\r\n\r\n"
    client:read_until "\r\n\r\n"
    assert.equal("hello", client:read(5))
    has_seen = true
    go:fire()
    assert.equal("world", client:read(5))
  end))

  it("a request body reaches the backend as it comes", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_head()
      assert.equal("hello", connection:read(5))
      connection.backend.has_half = true
      connection.backend.changed:fire()
      assert.equal("world", connection:read(5))
      connection:send(h.http1.response("200 OK", "x"))
      connection:wait_end()
    end)
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect()
    client:send "POST / HTTP/1.1\r\nHost: h.example\r\nContent-Length: 10\r\n\r\nhello"
    h.loop.wait(backend.changed, 5000, "the first half", function() return backend.has_half end)
    client:send "world"
    assert.equal("x", h.read_response(client).body)
  end))

  it("HEAD keeps the length and has no body", h.test(function()
    local backend = h.backend(h.always "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n")
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect()
    for _ = 1, 2 do
      client:send "HEAD / HTTP/1.1\r\nHost: h.example\r\n\r\n"
      local response = h.read_response(client, { method = "HEAD" })
      assert.equal("12345", response.headers["content-length"])
    end
    assert.equal(1, #backend.connections)
  end))

  for _, status in ipairs { "204 No Content", "304 Not Modified" } do
    it(status .. " has no body and leaves the connection usable", h.test(function()
      local backend = h.backend(h.always("HTTP/1.1 " .. status .. "\r\nETag: \"x\"\r\n\r\n"))
      local gateway = h.gateway { backend = backend }
      local client = gateway:connect()
      for _ = 1, 3 do
        client:send "GET / HTTP/1.1\r\nHost: h.example\r\n\r\n"
        local response = h.read_response(client)
        assert.equal(tonumber(status:sub(1, 3)), response.status)
        assert.equal("\"x\"", response.headers.etag)
        assert.is_nil(response.headers["transfer-encoding"])
      end
      assert.equal(1, #backend.connections)
    end))
  end

  it("trailers pass in both directions, by list", h.test(function()
    local backend = h.backend(h.always("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" ..
      h.http1.chunked("hello", 2, "X-Down: 1\r\nContent-Length: 3\r\n")))
    local gateway = h.gateway { backend = backend }
    local client = gateway:connect()
    post_chunked(client, "up", 1, "X-Up: 2\r\nHost: evil.example\r\n")
    local response = h.read_response(client)
    assert.equal("hello", response.body)
    assert.same({ { "X-Down", "1" } }, response.trailer_fields)
    assert.same({ { "X-Up", "2" } }, backend.requests[1].trailer_fields)
  end))

  it("a request without a body gets no framing", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { backend = backend }
    assert.equal(200, gateway:get("/").status)
    assert.is_nil(backend.requests[1].headers["content-length"])
    assert.is_nil(backend.requests[1].headers["transfer-encoding"])
  end))

  it("an empty POST keeps its Content-Length: 0", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { backend = backend }
    gateway:request "POST / HTTP/1.1\r\nHost: h.example\r\nContent-Length: 0\r\n\r\n"
    assert.equal("0", backend.requests[1].headers["content-length"])
  end))
end)
