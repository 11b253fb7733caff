-- HTTP/2 in clear from clients that know it beforehand: one connection, many exchanges, and backends that notice nothing.
local h = require "test.support.harness"
local http2 = require "test.support.http2"

local function connect(gateway, options)
  return http2.connect(gateway:connect(options), options)
end

-- Answers with the body it got.
local function body_echo(request)
  local body = request.body or ""
  return "HTTP/1.1 200 OK\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
end

describe("http/2", function()
  it("is spoken to a client that begins with its preface", h.test(function()
    local backend = h.backend()
    local gateway = h.gateway { backend = backend }
    local client = connect(gateway)
    client:request(1, { [":path"] = "/a/../b?c=d" }, { { "x-one", "1" }, { "x-two", "2" } })
    local response = client:response(1)
    assert.equal(200, response.status)
    assert.equal("you asked for /b?c=d", (response.body:gsub("\n", "")))
    assert.is_nil(response.headers.connection)
    assert.is_not_nil(response.headers.date)
    local request = backend.requests[1]
    assert.equal("GET", request.method)
    assert.equal("h.example", request.headers.host)
    assert.equal("1", request.headers["x-one"])
    assert.is_nil(request.headers[":authority"])
    assert.equal("127.0.0.1", request.headers["x-forwarded-for"])
    assert.is_true(client.settings[3] >= 100 and client.settings[3] <= 250)
    assert.equal(65535, client.settings[4])
    assert.equal(32768, client.settings[6])
    client.stream:close()
    gateway:expect_quiet()
  end))

  it("comes in pieces of any size", h.test(function()
    local gateway = h.gateway { backend = h.backend() }
    local stream = gateway:connect()
    local client = http2.connect(stream, { bare = true })
    local bytes = http2.PREFACE .. http2.frame(http2.SETTINGS, 0, 0) ..
      http2.frame(http2.HEADERS, 5, 1, http2.head { [":path"] = "/x" })
    for i = 1, #bytes do
      stream:send(bytes:sub(i, i))
      h.turn()
    end
    assert.equal(200, client:response(1).status)
  end))

  it("is not what begins like it", h.test(function()
    local gateway = h.gateway { backend = h.backend() }
    for _, bytes in ipairs { "PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n", "PRI * HTTP/1.1\r\nHost: h.example\r\n\r\n", "PRI /\r\n\r\n" } do
      local stream = gateway:connect()
      stream:send(bytes)
      local response = h.read_response(stream)
      assert.is_true(response.status >= 400)
    end
    assert.equal(200, gateway:request("PUT / HTTP/1.1\r\nHost: h.example\r\nContent-Length: 0\r\n\r\n").status)
  end))

  it("runs many exchanges side by side", h.test(function()
    local gateway = h.gateway { backend = h.backend() }
    local client = connect(gateway)
    for i = 0, 99 do client:request(i * 2 + 1, { [":path"] = "/n" .. i }) end
    for i = 0, 99 do
      local response = client:response(i * 2 + 1)
      assert.equal(200, response.status)
      assert.is_truthy(response.body:find("/n" .. i .. "%f[%D]"))
    end
  end))

  it("carries a request body, with its length or without", h.test(function()
    local backend = h.backend(h.each(body_echo))
    local gateway = h.gateway { backend = backend }
    local client = connect(gateway)
    client:request(1, { [":method"] = "POST" }, { { "content-length", "5" } }, { open = true }):data(1, "he"):data(1, "llo", true)
    assert.equal("hello", client:response(1).body)
    client:request(3, { [":method"] = "POST" }, nil, { open = true }):data(3, "abc"):data(3, ""):data(3, "def", true)
    assert.equal("abcdef", client:response(3).body)
    assert.equal("5", backend.requests[1].headers["content-length"])
    assert.equal("chunked", backend.requests[2].headers["transfer-encoding"])
    client:request(5, { [":method"] = "POST" }, nil, { open = true }):data(5, "", true)
    assert.equal("", client:response(5).body)
  end))

  it("opens its windows only as the backend takes the body", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_head()
      connection:wait_end(20000)
    end, { is_paused = true })
    local gateway = h.gateway { backend = backend, settings = { timeouts = { body = 30 } } }
    local client = connect(gateway)
    client:request(1, { [":method"] = "POST" }, nil, { open = true })
    local sent = 0
    repeat -- until nothing is granted any more: the sockets, the link's queue and the window are full
      local before = sent
      local room = 65535 + (client.granted[1] or 0) - sent
      while room > 0 do
        local len = math.min(16384, room)
        client:data(1, ("x"):rep(len))
        sent, room = sent + len, room - len
      end
      client:sync()
      h.pass(100)
      client:sync()
    until sent == before and (client.granted[1] or 0) == sent - 65535 + 0 or sent == before
    assert.is_true(sent < 16777216)
    local resident = gateway:rss_kb()
    assert.is_true(resident < 200000)
    client.stream:close()
  end, 20000))

  it("sends no more of a response than windows allow, and reads no more of it", h.test(function()
    local size = 1048576
    local backend = h.backend(h.always("HTTP/1.1 200 OK\r\nContent-Length: " .. size .. "\r\n\r\n" .. ("x"):rep(size)))
    local gateway = h.gateway { backend = backend }
    local client = connect(gateway)
    client:request(1)
    client:until_(function() return client.streams[1] and client.streams[1].body_len >= 65535 end)
    client:sync()
    assert.equal(65535, client.streams[1].body_len)
    while not client.streams[1].ended do
      client:window(0, 32768):window(1, 32768)
      assert.is_not_nil(client:next())
    end
    assert.equal(size, client.streams[1].body_len)
  end))

  it("lets a stream without a window not hold up another", h.test(function()
    local size = 100000
    local backend = h.backend(h.always("HTTP/1.1 200 OK\r\nContent-Length: " .. size .. "\r\n\r\n" .. ("x"):rep(size)))
    local gateway = h.gateway { backend = backend }
    local client = connect(gateway, { settings = http2.setting(4, 10) })
    client:window(0, 1000000)
    client:request(1):request(3)
    client:window(3, size)
    assert.equal(size, #client:response(3).body)
    assert.equal(10, client.streams[1].body_len)
    client:window(1, size)
    assert.equal(size, #client:response(1).body)
  end))

  it("has no body where none may be", h.test(function()
    local gateway = h.gateway { backend = h.backend(h.each(function(request)
      if request.method == "HEAD" then return "HTTP/1.1 200 OK\r\nContent-Length: 123\r\n\r\n" end
      return "HTTP/1.1 " .. request.target:sub(2) .. " X\r\nContent-Length: 0\r\n\r\n"
    end)) }
    local client = connect(gateway)
    client:request(1, { [":method"] = "HEAD" })
    local response = client:response(1)
    assert.equal("123", response.headers["content-length"])
    assert.equal(0, response.body_len)
    client:request(3, { [":path"] = "/204" })
    assert.is_nil(client:response(3).headers["content-length"])
    client:request(5, { [":path"] = "/304" })
    assert.equal(304, client:response(5).status)
    assert.is_true(client.streams[5].ended)
  end))

  it("passes trailers both ways", h.test(function()
    local backend = h.backend(h.each(function()
      return "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 9\r\n\r\n"
    end))
    local gateway = h.gateway { backend = backend }
    local client = connect(gateway)
    client:request(1, { [":method"] = "POST" }, { { "te", "trailers" } }, { open = true }):data(1, "body")
    client:send(http2.HEADERS, 5, 1, http2.block { { "x-checksum", "7" } })
    local response = client:response(1)
    assert.equal("abc", response.body)
    assert.equal("9", response.trailers["x-sum"])
    assert.equal("7", backend.requests[1].trailers["x-checksum"])
  end))

  it("asks for the body by 100 Continue", h.test(function()
    local backend = h.backend(function(connection)
      local request = connection:read_head()
      assert(request.headers.expect == "100-continue")
      connection:send "HTTP/1.1 100 Continue\r\n\r\n"
      connection:read(2)
      connection:send "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    end)
    local client = connect(h.gateway { backend = backend })
    client:request(1, { [":method"] = "POST" }, { { "expect", "100-continue" }, { "content-length", "2" } }, { open = true })
    client:until_(function() return client.streams[1] and #client.streams[1].interim > 0 end)
    client:data(1, "hi", true)
    assert.equal(200, client:response(1).status)
    assert.same({ 100 }, client.streams[1].interim)
  end))

  it("answers early and resets what it does not read, without an error", h.test(function()
    local gateway = h.gateway { routes = { { path = "/nowhere", backends = "backend" } }, backend = h.backend() }
    local client = connect(gateway)
    client:request(1, { [":method"] = "POST" }, { { "content-length", "100000" } }, { open = true }):data(1, "some")
    client:until_(function() return client.streams[1] and client.streams[1].reset end)
    assert.equal(404, client.streams[1].status)
    assert.is_true(client.streams[1].ended)
    assert.equal(http2.NO_ERROR, client.streams[1].reset)
    client:data(1, "more", true)
    client:request(3, { [":path"] = "/nowhere" })
    assert.equal(200, client:response(3).status)
  end))

  it("cancels the backend's work with the stream's", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_head()
      connection:wait_end(20000)
    end)
    local gateway = h.gateway { backend = backend }
    local client = connect(gateway)
    client:request(1)
    backend:wait_requests(1)
    client:send(http2.RST_STREAM, 0, 1, http2.u32(http2.CANCEL))
    backend.connections[1]:wait_end()
    client:sync()
    client.stream:close()
    gateway:expect_quiet()
  end))

  it("resets a stream whose response breaks off", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_head()
      connection:send "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"
      connection:flush()
      connection:close()
    end)
    local client = connect(h.gateway { backend = backend })
    client:request(1)
    local response = client:response(1)
    assert.equal(200, response.status)
    assert.equal(http2.INTERNAL_ERROR, response.reset)
    assert.is_nil(response.ended)
    assert.is_true(client:sync())
  end))

  it("is left in two steps on a drain", h.test(function()
    local go = false
    local backend = h.backend(function(connection)
      while connection:read_request() do
        h.loop.wait(connection.changed, 20000, "the word", function() return go end)
        connection:send "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
      end
    end)
    local gateway = h.gateway { backend = backend }
    local client = connect(gateway)
    client:request(1)
    backend:wait_requests(1)
    gateway:signal "sigterm"
    client:until_(function() return client.goaway end)
    assert.same({ last = 2147483647, code = http2.NO_ERROR }, client.goaway)
    client:request(3) -- it was on its way when the notice came; the client answers the PING behind it
    client:until_(function() return client.goaway_count == 2 end)
    assert.same({ last = 3, code = http2.NO_ERROR }, client.goaway)
    backend:wait_requests(2)
    client:request(5) -- too late: ignored, the client may ask elsewhere
    go = true
    for _, connection in ipairs(backend.connections) do connection.changed:fire() end
    assert.equal("ok", client:response(1).body)
    assert.equal("ok", client:response(3).body)
    assert.equal("eof", client:finish())
    assert.is_nil(client.streams[5])
    assert.equal(2, #backend.requests)
    gateway:wait_exit()
  end))

  it("ends idle connections with a word", h.test(function()
    local gateway = h.gateway { backend = h.backend(), settings = { timeouts = { idle = 0.3 } } }
    local client = connect(gateway)
    client:request(1)
    client:response(1)
    assert.equal("eof", h.takes(250, 900, function() return client:finish() end))
    assert.equal(http2.NO_ERROR, client.goaway.code)
    gateway:expect_quiet()
  end))

  it("sleeps when it idles, and goes on as if it had not", h.test(function()
    local backend = h.backend(h.each(function(request)
      return ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Seen: %s\r\nX-Long: %s\r\n\r\n"):format(
        request.headers["x-a"] or "nothing", ("v"):rep(200))
    end))
    local gateway = h.gateway { backend = backend }
    local client = connect(gateway)
    for round = 0, 2 do
      local id = 4 * round + 1
      local fields = round == 0 and http2.field("x-a", "from the first", true) or http2.indexed(62)
      client:send(http2.HEADERS, 5, id, http2.head() .. fields)
      client:request(id + 2, { [":method"] = "POST" }, nil, { open = true }):data(id + 2, ("x"):rep(1000), true)
      assert.equal("from the first", client:response(id).headers["x-seen"])
      assert.equal(200, client:response(id + 2).status)
      assert.equal(("v"):rep(200), client.streams[id + 2].headers["x-long"])
      h.pass(1300)
    end
    assert.is_true(client:sync())
    h.pass(1300)
    gateway:signal "sigterm" -- it is woken for its last word
    assert.equal("eof", client:finish())
    assert.equal(http2.NO_ERROR, client.goaway.code)
    gateway:wait_exit()
  end, 20000))

  it("bounds the requests of a connection", h.test(function()
    local gateway = h.gateway { backend = h.backend(), settings = { keepalive_requests = 3 } }
    local client = connect(gateway)
    for id = 1, 5, 2 do
      client:request(id)
      assert.equal(200, client:response(id).status)
    end
    assert.equal("eof", client:finish())
    assert.equal(5, client.goaway.last)
  end))

  it("is named in the access log", h.test(function()
    local path = os.tmpname()
    local gateway = h.gateway { backend = h.backend(), settings = { access_log = { file = path, format = "$protocol $status" } } }
    local client = connect(gateway)
    client:request(1)
    client:response(1)
    client.stream:close()
    gateway:expect_quiet()
    gateway:stop()
    local file = assert(io.open(path))
    assert.equal("HTTP/2 200\n", file:read "*a")
    file:close()
    os.remove(path)
  end))
end)

describe("tools of others speak http/2:", function()
  local function run(path, args)
    local tool = h.spawn(path, { args = args })
    if not tool then pending(path .. " is not installed") end
    tool:wait_exit(30000)
    return tool
  end

  it("curl", h.test(function()
    local gateway = h.gateway { backend = h.backend(h.each(body_echo)) }
    local tool = run("/usr/bin/curl", { "-s", "--http2-prior-knowledge", "-d", ("x"):rep(100000), "-w", "%{http_version} %{size_download}",
      "-o", "/dev/null", "http://127.0.0.1:" .. gateway.port .. "/" })
    assert.equal("2 100000", tool.output)
  end))

  it("nghttp", h.test(function()
    local gateway = h.gateway { backend = h.backend() }
    local tool = run("/usr/bin/nghttp", { "-ns", "http://127.0.0.1:" .. gateway.port .. "/a", "http://127.0.0.1:" .. gateway.port .. "/b" })
    assert.is_truthy(tool.output:find "200 +%d+ /a")
    assert.is_truthy(tool.output:find "200 +%d+ /b")
  end))

  it("h2load", h.test(function()
    local gateway = h.gateway { backend = h.backend() }
    local tool = run("/usr/bin/h2load", { "-n", "2000", "-c", "4", "-m", "50", "http://127.0.0.1:" .. gateway.port .. "/" })
    assert.is_truthy(tool.output:find "2000 succeeded, 0 failed, 0 errored")
    gateway:expect_quiet()
  end))

  it("h2spec, strictly", h.test(function()
    local path = os.getenv "H2SPEC"
    if not path then pending "H2SPEC names no h2spec (go install github.com/summerwind/h2spec/cmd/h2spec@latest)" end
    local gateway = h.gateway { routes = { { path = "/", backends = "echo" } }, upstreams = { echo = { "builtin:echo" } } }
    local tool = run(path, { "-S", "-o", "1", "-h", "127.0.0.1", "-p", tostring(gateway.port) })
    -- What is no preface may be HTTP/1.1 on this port, and is answered so.
    assert.is_truthy(tool.output:find "146 tests, 145 passed, 0 skipped, 1 failed")
    assert.is_truthy(tool.output:find "× 2: Sends invalid connection preface")
  end, 120000))
end)
