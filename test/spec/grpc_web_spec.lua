-- gRPC-Web: calls of browsers, binary and in base64, to a backend that speaks gRPC.
local h = require "test.support.harness"
local grpc = require "test.support.grpc"
local http2 = require "test.support.http2"

local DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function base64(bytes)
  local out = {}
  for i = 1, #bytes, 3 do
    local a, b, c = bytes:byte(i, i + 2)
    local n = a * 65536 + (b or 0) * 256 + (c or 0)
    local text = {}
    for k = 3, 0, -1 do
      local digit = math.floor(n / 64 ^ k) % 64 + 1
      text[#text + 1] = DIGITS:sub(digit, digit)
    end
    local last = (b and (c and 4 or 3) or 2)
    out[#out + 1] = table.concat(text, "", 1, last) .. ("="):rep(4 - last)
  end
  return table.concat(out)
end

-- Of a text of padded pieces.
local function unbase64(text)
  assert(#text % 4 == 0, "base64 is cut off")
  return (text:gsub("....", function(group)
    local n, pad = 0, 0
    for char in group:gmatch "." do
      pad = pad + (char == "=" and 1 or 0)
      n = n * 64 + (char == "=" and 0 or DIGITS:find(char, 1, true) - 1)
    end
    return string.char(math.floor(n / 65536), math.floor(n / 256) % 256, n % 256):sub(1, 3 - pad)
  end))
end

local function echo(request)
  return grpc.http1_answer({ request.body:sub(6) }, "Grpc-Status: 0\r\nx-end: yes\r\n", "x-begin: yes\r\n")
end

local function serve(backend, plugins)
  return h.gateway { backend = backend, routes = { { grpc = {}, backends = "backend", plugins = plugins or { { "grpc-web" } } } } }
end

local function request(body, kind, fields, framing)
  return "POST /s/M HTTP/1.1\r\nHost: a\r\nContent-Type: application/" .. (kind or "grpc-web+proto") .. "\r\nX-Grpc-Web: 1\r\n" ..
    (fields or "") .. (framing or "Content-Length: " .. #body .. "\r\n") .. "\r\n" .. body
end

local function expect_tail(frame, text)
  assert.equal(128, frame.flag)
  assert.equal(text, frame.bytes)
end

describe("grpc-web", function()
  it("makes a call of it, and a frame of the trailers", h.test(function()
    local backend = h.backend(h.each(echo))
    local gateway = serve(backend)
    local response = gateway:request(request(grpc.frame "hello"))
    assert.equal(200, response.status)
    assert.equal("application/grpc-web+proto", response.headers["content-type"])
    assert.equal("yes", response.headers["x-begin"])
    local frames = grpc.frames(response.body)
    assert.same({ flag = 0, bytes = "hello" }, frames[1])
    expect_tail(frames[2], "grpc-status: 0\r\nx-end: yes\r\n")
    assert.equal(2, #frames)
    local seen = backend.requests[1]
    assert.equal("application/grpc+proto", seen.headers["content-type"])
    assert.equal("trailers", seen.headers.te)
    assert.equal(grpc.frame "hello", seen.body)
  end))

  it("leaves out the trailers of HTTP/2, whose clients read the frame", h.test(function()
    local gateway = serve(h.backend(h.each(echo)))
    local client = http2.connect(gateway:connect())
    client:request(1, { [":method"] = "POST", [":path"] = "/s/M" }, { { "content-type", "application/grpc-web" } }, { open = true })
    client:data(1, grpc.frame "hello", true)
    local response = client:response(1)
    expect_tail(grpc.frames(response.body)[2], "grpc-status: 0\r\nx-end: yes\r\n")
    assert.is_nil(response.trailers)
  end))

  it("decodes and encodes base64, however it is cut", h.test(function()
    local backend = h.backend(h.each(echo))
    local gateway = serve(backend)
    local message = h.http1.pattern(100000)
    local text = base64(grpc.frame(message))
    for _, piece in ipairs { #text, 1000, 7 } do
      backend:forget()
      local body = h.http1.chunked(piece == 7 and base64(grpc.frame "short one") or text, piece)
      local response = gateway:request(request(body, "grpc-web-text", nil, "Transfer-Encoding: chunked\r\n"))
      assert.equal("application/grpc-web-text+proto", response.headers["content-type"])
      local frames = grpc.frames(unbase64(response.body))
      assert.is_true(frames[1].bytes == (piece == 7 and "short one" or message))
      expect_tail(frames[2], "grpc-status: 0\r\nx-end: yes\r\n")
    end
    -- frames that were padded each
    local response = gateway:request(request(base64(grpc.frame "a") .. base64(grpc.frame "bc"), "grpc-web-text+proto"))
    assert.equal(200, response.status)
    assert.equal(grpc.frame "a" .. grpc.frame "bc", backend.requests[#backend.requests].body)
  end))

  it("streams: a message is passed on when it comes", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_request()
      connection:send("HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n")
      for _, message in ipairs { "a", "bc", "d" } do
        connection:send(("%x\r\n%s\r\n"):format(#message + 5, grpc.frame(message)))
        connection.backend.go = h.loop.signal()
        h.loop.wait(connection.backend.go, 5000, "the client", function() return connection.backend.goes end)
        connection.backend.goes = false
      end
      connection:send("0\r\ngrpc-status: 0\r\n\r\n")
    end)
    local gateway = serve(backend)
    local stream = gateway:connect()
    stream:send(request(base64(grpc.frame ""), "grpc-web-text"))
    local head = stream:read_until("\r\n\r\n")
    assert.truthy(head:find("200 OK", 1, true))
    for _, message in ipairs { "a", "bc", "d" } do
      local text = base64(grpc.frame(message))
      local size = tonumber(stream:read_until("\r\n"):match "^%x+", 16)
      assert.equal(#text, size)
      assert.equal(text .. "\r\n", stream:read(size + 2))
      backend.goes = true
      backend.go:fire()
    end
    local size = tonumber(stream:read_until("\r\n"):match "^%x+", 16)
    expect_tail(grpc.frames(unbase64(stream:read(size)))[1], "grpc-status: 0\r\n")
    assert.equal("\r\n0\r\n\r\n", stream:read(7))
  end))

  it("holds what a slow client does not take, and loses nothing of it", h.test(function()
    local size = 3000000
    local message = h.http1.pattern(size)
    local gateway = serve(h.backend(h.always(grpc.http1_answer { message })))
    local stream = gateway:connect { is_paused = true }
    stream:send(request(base64(grpc.frame ""), "grpc-web-text"))
    h.pass(300)
    assert.is_true(gateway:rss_kb() < 100000)
    stream:resume()
    local response = h.read_response(stream, { ms = 20000 })
    local frames = grpc.frames(unbase64(response.body))
    assert.is_true(frames[1].bytes == message)
    expect_tail(frames[2], "grpc-status: 0\r\n")
  end, 60000))

  it("puts the status of a trailers-only answer into the frame", h.test(function()
    local answer = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\ngrpc-status: 5\r\ngrpc-message: not here\r\n" ..
      "Content-Length: 0\r\n\r\n"
    local gateway = serve(h.backend(h.always(answer)))
    local response = gateway:request(request(grpc.frame ""))
    assert.is_nil(response.headers["grpc-status"])
    expect_tail(grpc.frames(response.body)[1], "grpc-status: 5\r\ngrpc-message: not here\r\n")
  end))

  it("says so where a backend gives no status", h.test(function()
    local gateway = serve(h.backend(h.always(grpc.http1_answer({ "x" }, ""))))
    local frames = grpc.frames(gateway:request(request(grpc.frame "")).body)
    expect_tail(frames[2], "grpc-status: 2\r\ngrpc-message: the upstream gave no status\r\n")
  end))

  it("leaves an answer that is no gRPC as it is", h.test(function()
    local gateway = serve(h.backend(h.always("HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\nnope")))
    local response = gateway:request(request(grpc.frame ""))
    assert.equal(404, response.status)
    assert.equal("text/html", response.headers["content-type"])
    assert.equal("nope", response.body)
  end))

  it("tells errors of the gateway's own in a frame", h.test(function()
    local gateway = serve("127.0.0.1:" .. h.dead_port())
    local response = gateway:request(request(grpc.frame ""))
    assert.equal("application/grpc-web+proto", response.headers["content-type"])
    expect_tail(grpc.frames(response.body)[1], "grpc-status: 14\r\ngrpc-message: the upstream refused the connection\r\n")
    response = gateway:request(request(base64(grpc.frame ""), "grpc-web-text"))
    assert.equal("application/grpc-web-text+proto", response.headers["content-type"])
    expect_tail(grpc.frames(unbase64(response.body))[1],
      "grpc-status: 14\r\ngrpc-message: the upstream refused the connection\r\n")
  end))

  it("refuses what is malformed", h.test(function()
    local backend = h.backend(h.each(echo))
    local gateway = serve(backend)
    for _, case in ipairs {
      { "\128\0\0\0\0", "grpc-web" }, { "\0\0\0\0\5ab", "grpc-web" }, { "\0\0", "grpc-web" }, { "AAAA!AAA", "grpc-web-text" },
      { "AAAAAA", "grpc-web-text" }, { "=AAA", "grpc-web-text" }, { base64 "\128\0\0\0\0", "grpc-web-text" },
    } do
      local response = gateway:request(request(case[1], case[2]))
      assert.equal(200, response.status)
      local body = case[2] == "grpc-web" and response.body or unbase64(response.body)
      local tail = grpc.frames(body)[1]
      assert.equal(128, tail.flag)
      assert.truthy(tail.bytes:find("grpc-status: 13", 1, true), tail.bytes)
      assert.truthy(tail.bytes:find("gRPC-Web", 1, true), tail.bytes)
    end
    assert.equal(0, #backend.requests)
    gateway:expect_quiet()
  end))

  it("lets gRPC pass as it is", h.test(function()
    local gateway = serve(h.backend(h.each(echo)))
    local response = grpc.call(gateway, "/s/M", nil, "hello")
    assert.equal("application/grpc", response.headers["content-type"])
    assert.equal(grpc.frame "hello", response.body)
    assert.equal("0", response.trailers["grpc-status"])
  end))

  it("goes together with CORS", h.test(function()
    local cors = { "cors", origins = { "https://app.example" }, methods = { "POST" }, headers = { "content-type", "x-grpc-web" } }
    local backend = h.backend(h.each(echo))
    local gateway = serve(backend, { cors, { "grpc-web" } })
    local preflight = gateway:request("OPTIONS /s/M HTTP/1.1\r\nHost: a\r\nOrigin: https://app.example\r\n" ..
      "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type,x-grpc-web\r\n\r\n")
    assert.equal(204, preflight.status)
    assert.equal("https://app.example", preflight.headers["access-control-allow-origin"])
    local response = gateway:request(request(grpc.frame "hello", nil, "Origin: https://app.example\r\n"))
    assert.equal("https://app.example", response.headers["access-control-allow-origin"])
    assert.equal("hello", grpc.frames(response.body)[1].bytes)
    assert.equal(1, #backend.requests)
  end))
end)
