-- The exchange as functions of scripts see it: request, response, headers, bodies; and where each may be used.
local cjson = require "cjson"
local h = require "test.support.harness"

local function json(response)
  local value = cjson.decode(response.body)
  assert.is_not_nil(value, response.raw)
  return value
end

-- A gateway with one route that has these functions.
local function start(functions, options)
  return h.script(([[
    local function try(fn, ...)
      local ok, err = pcall(fn, ...)
      return ok and "done" or tostring(err)
    end
    moongate.route { name = "r", path = "/", backends = "backend", %s }]]):format(functions), options)
end

local function access(body, options)
  return start("access = function(exchange) local request = exchange.request " .. body .. " end", options)
end

local function post(gateway, body, fields)
  return gateway:request(("POST /p HTTP/1.1\r\nHost: h.example\r\n%sContent-Length: %d\r\n\r\n%s"):format(
    fields or "", #body, body))
end

describe("a request", function()
  it("can be read", h.test(function()
    local gateway = access [[exchange:respond(200, { method = request.method, scheme = request.scheme, host = request.host,
      port = request.port, path = request.path, query = request.query, args = request.args, id = exchange.id,
      route = exchange.route, upstream = exchange.upstream or "none", address = request.client.address,
      client_port = request.client.port, status = exchange.response.status or "none", tls = request.tls or "none" })]]
    local client = gateway:connect()
    client:send "GET /a/../b%41//c?x=1&y=a%20b+c&x=2&z HTTP/1.1\r\nHost: Api.Example:8080\r\n\r\n"
    local seen = json(h.read_response(client))
    assert.equal("GET", seen.method)
    assert.equal("http", seen.scheme)
    assert.equal("api.example", seen.host:lower())
    assert.equal(8080, seen.port)
    assert.equal("/bA//c", seen.path)
    assert.equal("x=1&y=a%20b+c&x=2&z", seen.query)
    assert.same({ x = { "1", "2" }, y = "a b c", z = "" }, seen.args)
    assert.is_not_nil(seen.id:find "^%x+$")
    assert.equal(32, #seen.id)
    assert.equal("r", seen.route)
    assert.equal("none", seen.upstream)
    assert.equal("none", seen.status)
    assert.equal("127.0.0.1", seen.address)
    assert.equal(client:local_port(), seen.client_port)
  end))

  it("without a query has none, and args is empty", h.test(function()
    local gateway = access [[exchange:respond(200, tostring(request.query) .. tostring(next(request.args)))]]
    assert.equal("nilnil", gateway:get("/").body)
  end))

  it("can be changed: method, host, path, query, args", h.test(function()
    local gateway = access [[
      request.method = "PUT"
      request.host = "other.example:81"
      request.path = "/x/../y%41%20z/%7e"
      request.args = { b = { "1", "2" }, a = "x y&z", t = true, n = 3 }]]
    gateway:get "/old?gone=1"
    local request = gateway.backend:wait_requests(1)
    assert.equal("PUT", request.method)
    assert.equal("other.example:81", request.headers.host)
    assert.equal("/yA%20z/~?a=x%20y%26z&b=1&b=2&n=3&t", request.target)
  end))

  it("reads back what it was changed to", h.test(function()
    local gateway = start [[rewrite = function(exchange)
        local request = exchange.request
        request.path = "/a/./b"
        request.query = "q=1"
        request.headers["X-A"] = "1"
        request.query = nil
      end,
      access = function(exchange)
        local request = exchange.request
        exchange:respond(200, request.path .. " " .. tostring(request.query) .. " " .. request.headers["x-a"])
      end]]
    assert.equal("/a/b nil 1", gateway:get("/?old").body)
  end))

  it("refuses what could not be sent", h.test(function()
    local gateway = access [[
      local out = {}
      local function refuse(name, value)
        local before = request[name]
        out[#out + 1] = name .. ": " .. try(function() request[name] = value end)
        if name ~= "args" and name ~= "client" then assert(request[name] == before, name .. " was changed") end
      end
      refuse("method", "GE T") refuse("method", "") refuse("method", "CONNECT") refuse("method", 1)
      refuse("host", "a b") refuse("host", "h\r\nx: y") refuse("host", "a/b") refuse("host", "")
      refuse("path", "no-slash") refuse("path", "") refuse("path", "/a?b") refuse("path", "/a#b") refuse("path", "/%00")
      refuse("path", "/a\r\nb") refuse("path", "/\0") refuse("path", "/a b")
      refuse("query", "a b") refuse("query", "a\r\nb") refuse("query", "a#b") refuse("query", 7)
      refuse("args", "x")
      refuse("scheme", "https") refuse("port", 1) refuse("client", {}) refuse("nothing", 1)
      exchange:respond(200, table.concat(out, "\n"))]]
    local body = gateway:get("/p?q").body
    local count = 0
    for line in body:gmatch "[^\n]+" do
      count = count + 1
      assert.is_not_nil(line:find "gateway.lua:%d+: ", line)
      assert.is_nil(line:find "done$", line)
    end
    assert.equal(25, count, body)
  end))

  it("has vars and a consumer for all its phases", h.test(function()
    local gateway = start [[
      rewrite = function(exchange) exchange.vars.list = { 1 } exchange.consumer = { name = "ann" } end,
      access = function(exchange) table.insert(exchange.vars.list, 2) end,
      header_filter = function(exchange)
        exchange.response.headers["x-seen"] = table.concat(exchange.vars.list, ",") .. exchange.consumer.name
      end,
      log = function(exchange) moongate.log.info("logged " .. #exchange.vars.list .. exchange.consumer.name) end]]
    assert.equal("1,2ann", gateway:get("/").headers["x-seen"])
    gateway:wait_log "logged 2ann"
  end))

  it("names what cannot be assigned", h.test(function()
    local gateway = access [[exchange:respond(200, try(function() exchange.thing = 1 end))]]
    assert.is_not_nil(gateway:get("/").body:find("gateway.lua:%d+: exchange.thing cannot be assigned"))
  end))
end)

describe("headers", function()
  it("give all values joined, one by one, and in order", h.test(function()
    local gateway = access [[
      local headers, each = request.headers, {}
      for name, value in headers:each() do
        if name:lower():find "^x%-[loe]" then each[#each + 1] = name .. "=" .. value end
      end
      exchange:respond(200, { joined = headers["X-List"], cookies = headers.cookie, all = headers:all "x-LIST",
        none = headers["x-none"] or "nil", none_all = #headers:all "x-none", each = each, get = headers:get "get",
        empty = headers["x-empty"] })]]
    local seen = json(gateway:get("/", "X-List: a\r\nX-Other: o\r\nx-list: b, c\r\nCookie: a=1\r\nCookie: b=2\r\nGet: g\r\n"
      .. "X-Empty:\r\n"))
    assert.equal("a, b, c", seen.joined)
    assert.equal("a=1; b=2", seen.cookies)
    assert.same({ "a", "b, c" }, seen.all)
    assert.equal("nil", seen.none)
    assert.equal(0, seen.none_all)
    assert.equal("g", seen.get)
    assert.equal("", seen.empty)
    assert.equal("X-List=a X-Other=o x-list=b, c X-Empty=", table.concat(seen.each, " "))
  end))

  it("are set, added to and removed, both ways", h.test(function()
    local gateway = start([[
      access = function(exchange)
        local headers = exchange.request.headers
        headers["x-set"] = "one"
        headers["X-Number"] = 7
        headers["x-list"] = { "a", "b" }
        headers:add("x-list", "c")
        headers["x-gone"] = nil
        headers:set("x-method", "m")
        headers["user-agent"] = "moongate"
      end,
      header_filter = function(exchange)
        local headers = exchange.response.headers
        headers["x-seen"] = headers["x-backend"] .. " " .. exchange.response.status
        headers["x-backend"] = nil
        headers:add("set-cookie", "a=1")
        headers:add("set-cookie", "b=2")
        exchange.response.status = 201
      end]], { backend = h.backend(h.always(h.http1.response("200 OK", "x", "X-Backend: yes\r\n"))) })
    local response = gateway:get("/", "X-Set: old\r\nX-Set: older\r\nX-Gone: 1\r\nUser-Agent: curl\r\n")
    assert.equal(201, response.status)
    assert.equal("yes 200", response.headers["x-seen"])
    assert.is_nil(response.headers["x-backend"])
    assert.equal("a=1, b=2", response.headers["set-cookie"])
    local headers = gateway.backend.requests[1].headers
    assert.equal("one", headers["x-set"])
    assert.equal("7", headers["x-number"])
    assert.equal("a, b, c", headers["x-list"])
    assert.equal("m", headers["x-method"])
    assert.equal("moongate", headers["user-agent"])
    assert.is_nil(headers["x-gone"])
  end))

  it("refuse CR, LF, NUL, bad names, and the gateway's own fields", h.test(function()
    local gateway = access [[
      local out, headers = {}, request.headers
      local function refuse(name, value)
        out[#out + 1] = try(function() headers[name] = value end)
        out[#out + 1] = try(function() headers:add(name, value) end)
      end
      for _, value in ipairs { "a\r\nx-evil: 1", "a\nb", "a\rb", "a\0b", "\127" } do refuse("x-a", value) end
      for _, name in ipairs { "", "a b", "a:b", "a\r\nb", "x\0", "(" } do refuse(name, "v") end
      for _, name in ipairs { "Connection", "Transfer-Encoding", "Content-Length", "Keep-Alive", "TE", "Trailer", "Upgrade",
        "Proxy-Connection", "Host", "HTTP2-Settings", "Expect" } do refuse(name, "x") end
      refuse("x-a", true) refuse("x-a", print)
      out[#out + 1] = try(function() headers["x-a"] = { "fine", "b\r\nx-evil: 1" } end)
      out[#out + 1] = try(function() headers.host = nil end)
      exchange:respond(200, table.concat(out, "\n"))]]
    local count = 0
    for line in gateway:get("/").body:gmatch "[^\n]+" do
      count = count + 1
      assert.is_not_nil(line:find "gateway.lua:%d+: ", line)
    end
    assert.equal(50, count)
    gateway:expect_idle()
  end))

  it("over the memory of an exchange are an error, not nil", h.test(function()
    local gateway = access [[
      local ok, err
      for i = 1, 100000 do
        ok, err = pcall(function() request.headers["x-" .. i] = ("v"):rep(1000) end)
        if not ok then break end
      end
      local _, err2 = pcall(function() return request.headers["x-list"] end)
      exchange:respond(200, tostring(err) .. " / " .. tostring(err2))]]
    gateway:expect_log "."
    local response = gateway:get("/", ("X-List: %s\r\n"):format(("a"):rep(3000)):rep(3))
    assert.is_true(response.status == 200 and response.body:find "at its bound.*/.*at its bound" ~= nil
      or response.status == 500 or response.status == 431, response.raw:sub(1, 500))
    gateway:expect_idle()
  end))

  it("of a client that are read again and again cost no memory of the exchange", h.test(function()
    local gateway = access [[
      for _ = 1, 100000 do
        if request.client.address ~= "127.0.0.1" or request.headers["user-agent"] ~= "x" then error "wrong" end
      end
      exchange:respond(200, "same")]]
    assert.equal("same", gateway:get("/", "User-Agent: x\r\n").body)
  end))
end)

describe("a request's body", function()
  local BODY = h.http1.pattern(200000)

  it("is read whole, and the backend still gets it", h.test(function()
    local gateway = access [[
      local body, err = request:body()
      exchange.vars.len = #body
      assert(request:body() == body, "the second time")]]
    assert.equal(200, post(gateway, BODY).status)
    assert.is_true(gateway.backend.requests[1].body == BODY)
    gateway:request("POST /p HTTP/1.1\r\nHost: h.example\r\nTransfer-Encoding: chunked\r\n\r\n" .. h.http1.chunked(BODY, 5000))
    assert.is_true(gateway.backend.requests[2].body == BODY)
    gateway:expect_idle()
  end))

  it("that is not there is empty", h.test(function()
    local gateway = access [[exchange:respond(200, "[" .. request:body() .. "]")]]
    assert.equal("[]", gateway:get("/").body)
  end))

  it("has a bound, and a larger one may follow", h.test(function()
    local gateway = access [[
      local first, err = request:body { max = 1000 }
      local again, err2 = request:body { max = 1000 }
      local second = request:body { max = 300000 }
      exchange:respond(200, { first = first or "nil", err = err, again = again or "nil", err2 = err2, len = second and #second })]]
    local seen = json(post(gateway, BODY))
    assert.equal("nil", seen.first)
    assert.equal("too large", seen.err)
    assert.equal("nil", seen.again)
    assert.equal("too large", seen.err2)
    assert.equal(200000, seen.len)
    assert.equal(4, json(post(gateway, "four")).len or 4)
    gateway:expect_idle()
  end))

  it("is read in pieces, and consumed", h.test(function()
    local gateway = start [[access = function(exchange)
        local request, len, longest = exchange.request, 0, 0
        for piece in request:chunks() do
          len = len + #piece
          longest = math.max(longest, #piece)
          if len % 3 == 0 then moongate.sleep(0.001) end
        end
        if request.path == "/p" then exchange:respond(200, { len = len, longest = longest }) end
        if request.path == "/set" then request:set_body "other" end
      end]]
    local seen = json(post(gateway, BODY))
    assert.equal(200000, seen.len)
    assert.is_true(seen.longest <= 65536)
    assert.equal(200, gateway:request("POST /set HTTP/1.1\r\nHost: h.example\r\nContent-Length: 3\r\n\r\nabc").status)
    assert.equal("other", gateway.backend.requests[1].body)
    gateway:expect_log "not replaced"
    assert.equal(500, gateway:request("POST /lost HTTP/1.1\r\nHost: h.example\r\nContent-Length: 3\r\n\r\nabc").status)
    assert.equal(1, #gateway.backend.requests)
    gateway:expect_idle()
  end))

  it("that was read in pieces cannot be read whole", h.test(function()
    local gateway = access [[
      local second
      if request.path == "/p" then -- what was read whole is here, and can be had in pieces
        request:body()
        second = request:chunks()()
      else
        request:chunks()()
        second = try(function() return request:body() end)
      end
      exchange:respond(200, second)]]
    assert.equal("abc", post(gateway, "abc").body)
    assert.is_not_nil(gateway:request("POST /x HTTP/1.1\r\nHost: h.example\r\nContent-Length: 3\r\n\r\nabc").body
      :find "gateway.lua:%d+: the body is read in pieces already")
    gateway:expect_idle()
  end))

  it("is replaced", h.test(function()
    local gateway = access [[
      if request.path == "/big" then return request:set_body(("x"):rep(300000)) end
      if request.path == "/empty" then return request:set_body "" end
      if request.path == "/pieces" then for _ in request:chunks() do end end
      if request.path == "/p" then
        assert(request:body() == "abc")
        request:set_body "ABC"
      else
        request:set_body "ABC"
      end
      assert(request:body() == "ABC", "what it was replaced by")
      request:set_body(request:body() .. "!")
      local pieces = {}
      for piece in request:chunks() do pieces[#pieces + 1] = piece end
      assert(table.concat(pieces) == "ABC!", "in pieces, too")
      assert(select(2, request:body { max = 3 }) == "too large")
      assert(request:body() == "ABC!", "and again")]]
    post(gateway, "abc")
    assert.equal("ABC!", gateway.backend.requests[1].body)
    gateway:request "POST /big HTTP/1.1\r\nHost: h.example\r\nContent-Length: 3\r\n\r\nabc"
    assert.equal(300000, #gateway.backend.requests[2].body)
    gateway:request "POST /empty HTTP/1.1\r\nHost: h.example\r\nContent-Length: 3\r\n\r\nabc"
    assert.equal("", gateway.backend.requests[3].body)
    for i, path in ipairs { "/pieces", "/unread" } do
      gateway:request(("POST %s HTTP/1.1\r\nHost: h.example\r\nContent-Length: 3\r\n\r\nabc"):format(path))
      assert.equal("ABC!", gateway.backend.requests[3 + i].body)
    end
    gateway:expect_idle()
  end))

  it("is read by rewrite and by access, which see the same", h.test(function()
    local gateway = start [[
      rewrite = function(exchange) exchange.vars.first = exchange.request:body() end,
      access = function(exchange)
        assert(exchange.request:body() == exchange.vars.first, "not the same")
        exchange.request:set_body(exchange.vars.first .. "+")
      end]]
    assert.equal(200, post(gateway, BODY).status)
    assert.is_true(gateway.backend.requests[1].body == BODY .. "+")
    gateway:expect_idle()
  end))

  it("whose client goes in the middle ends the wait", h.test(function()
    for _, call in ipairs { "request:body()", "for _ in request:chunks() do end" } do
      local gateway = access('moongate.log.info "reads" ' .. call .. ' moongate.log.info "never"')
      local client = gateway:connect()
      client:send "POST / HTTP/1.1\r\nHost: h.example\r\nContent-Length: 100\r\n\r\nabc"
      gateway:wait_log "reads"
      client:reset()
      gateway:expect_idle()
      assert.is_nil(gateway:log():find "never")
    end
  end))
end)

describe("a response's body", function()
  it("passes in pieces, changed", h.test(function()
    local gateway = start([[body_filter = function(exchange)
        for piece in exchange.response:chunks() do
          exchange.response:write(piece:upper())
          exchange.response:write ""
        end
        exchange.response:write "[end]"
      end]], { backend = h.backend(h.always(h.http1.response("200 OK", ("abc"):rep(50000), "ETag: \"x\"\r\nDigest: sha-256=x\r\n"))) })
    local client = gateway:connect()
    for _ = 1, 2 do
      client:send "GET / HTTP/1.1\r\nHost: h.example\r\n\r\n"
      local response = h.read_response(client)
      assert.is_true(response.body == ("ABC"):rep(50000) .. "[end]")
      assert.is_nil(response.headers.digest)
    end
    client:close()
    gateway:expect_idle()
  end))

  it("is buffered, within a bound", h.test(function()
    local gateway = start [[body_filter = function(exchange)
        local body, err = exchange.response:buffer { max = 30 }
        exchange.response:write(body and body:reverse() or err)
      end]]
    assert.equal("\na/ rof deksa uoy", gateway:get("/a").body)
    assert.equal("too large", gateway:get("/" .. ("a"):rep(40)).body)
    gateway:expect_idle()
  end))

  it("may be dropped, cut short, or written without being read", h.test(function()
    local gateway = start([[body_filter = function(exchange)
        local response, path = exchange.response, exchange.request.path
        if path == "/drop" then return end
        if path == "/first" then return response:write(response:chunks()():sub(1, 3)) end
        response:write "only this"
      end]], { backend = h.backend(h.always(h.http1.response("200 OK", ("abc"):rep(100000)))) })
    local client = gateway:connect()
    for path, body in pairs { ["/drop"] = "", ["/first"] = "abc", ["/write"] = "only this" } do
      client:send(("GET %s HTTP/1.1\r\nHost: h.example\r\n\r\n"):format(path))
      assert.equal(body, h.read_response(client).body)
    end
    client:close()
    gateway:expect_idle()
  end))

  it("of a slow client is written with back-pressure", h.test(function()
    local gateway = start([[body_filter = function(exchange)
        for i = 1, 200 do exchange.response:write(("%04d"):format(i):rep(16384)) end
      end]])
    local client = gateway:connect { receive_buffer = 4096 }
    client.limit = 4096
    client:send "GET / HTTP/1.1\r\nHost: h.example\r\nConnection: close\r\n\r\n"
    h.loop.pass(200)
    assert.is_true(gateway:metrics().moongate_buffer_bytes < 1e6)
    client.limit = nil
    client:resume()
    local response = h.read_response(client, { ms = 20000 })
    assert.equal(200 * 65536, #response.body)
    client:close()
    gateway:expect_idle()
  end))

  it("is not filtered for HEAD, 204 and 304, and their heads are", h.test(function()
    local gateway = start([[header_filter = function(exchange) exchange.response.headers["x-seen"] = "1" end,
      body_filter = function(exchange)
        moongate.log.info "body_filter ran"
        exchange.response:write "a body"
      end]], { backend = h.backend(h.each(function(request)
        if request.method == "HEAD" then return "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n" end
        return ("HTTP/1.1 %s\r\n\r\n"):format(request.target:sub(2):gsub("%%20", " "))
      end)) })
    local response = gateway:request("HEAD / HTTP/1.1\r\nHost: h.example\r\n\r\n", { method = "HEAD" })
    assert.equal(200, response.status)
    assert.equal("1", response.headers["x-seen"])
    for _, status in ipairs { 204, 304 } do
      response = gateway:get(("/%d%%20No"):format(status))
      assert.equal(status, response.status)
      assert.equal("1", response.headers["x-seen"])
    end
    assert.is_nil(gateway:log():find "body_filter ran")
    gateway:expect_idle()
  end))

  it("of the gateway's own answers is filtered too", h.test(function()
    local gateway = start [[
      access = function(exchange) exchange:respond(200, "own answer") end,
      header_filter = function(exchange) exchange.response.headers["x-seen"] = tostring(exchange.response.status) end,
      body_filter = function(exchange) exchange.response:write((exchange.response:buffer():upper())) end]]
    local response = gateway:get "/"
    assert.equal("OWN ANSWER", response.body)
    assert.equal("200", response.headers["x-seen"])
  end))

  it("goes through two filters in order", h.test(function()
    local script = [[moongate.route { path = "/", backends = "backend", plugins = { "wrap" },
      body_filter = function(exchange)
        for piece in exchange.response:chunks() do
          moongate.sleep(0.001)
          exchange.response:write("(" .. piece .. ")")
        end
      end }]]
    local uv = require "luv"
    local path, dir = h.write_file(h.script_config(script, { backend = h.backend(h.always(h.http1.response("200 OK", "body"))) }))
    uv.fs_mkdir(dir .. "/plugins", 448)
    uv.fs_mkdir(dir .. "/plugins/wrap", 448)
    local file = assert(io.open(dir .. "/plugins/wrap/handler.lua", "w"))
    file:write [[return { version = "1", api = 1, body_filter = function(exchange)
      exchange.response:write "<"
      for piece in exchange.response:chunks() do exchange.response:write(piece) end
      exchange.response:write ">"
    end }]]
    file:close()
    local gateway = h.gateway { file = path }
    assert.equal("(<)(body)(>)", gateway:get("/").body)
    gateway:expect_quiet()
  end))

  it("may be read in a coroutine of the script's own", h.test(function()
    local gateway = start [[body_filter = function(exchange)
        local upper = coroutine.wrap(function()
          for piece in exchange.response:chunks() do coroutine.yield(piece:upper()) end
        end)
        for piece in upper do
          moongate.sleep(0.001)
          coroutine.wrap(function() exchange.response:write(piece) end)()
        end
      end]]
    assert.equal("YOU ASKED FOR /A\n", gateway:get("/a").body)
    gateway:expect_idle()
  end))

  it("is not for tasks and other phases, which are told so", h.test(function()
    local gateway = start([[
      header_filter = function(exchange)
        if kept_for_all.pull then moongate.log.info("header_filter: " .. try(kept_for_all.pull)) end
      end,
      body_filter = function(exchange)
        kept_for_all.pull = exchange.response:chunks()
        local read = moongate.spawn(function() return kept_for_all.pull() end)
        local write = moongate.spawn(function() exchange.response:write "no" end)
        moongate.log.info("read: " .. try(moongate.wait_all, read))
        moongate.log.info("write: " .. try(moongate.wait_all, write))
        exchange.response:write "fine"
      end, ]] .. "}; kept_for_all = {}; moongate.route { path = '/none', backends = 'backend'")
    for _ = 1, 2 do assert.equal("fine", gateway:get("/").body) end
    gateway:wait_log "read: [^\n]*not by a task or another phase"
    gateway:wait_log "write: [^\n]*not by a task or another phase"
    gateway:wait_log "header_filter: [^\n]*gateway.lua:%d+: [^\n]*not by a task or another phase"
    gateway:expect_idle()
  end))

  it("writes take strings only", h.test(function()
    local gateway = start [[body_filter = function(exchange)
        moongate.log.info("refused " .. try(function() exchange.response:write(7) end))
        exchange.response:write "fine"
      end]]
    assert.equal("fine", gateway:get("/").body)
    gateway:wait_log "refused [^\n]*gateway.lua:%d+: response:write takes a string, got number"
  end))
end)

describe("a response's status", function()
  it("cannot become one without a body, nor nonsense", h.test(function()
    local gateway = start [[header_filter = function(exchange)
        local out = {}
        for _, status in ipairs { 204, 304, 101, 99, 600, "x" } do
          out[#out + 1] = try(function() exchange.response.status = status end)
        end
        exchange.response.status = 299
        for _, line in ipairs(out) do moongate.log.info("refused " .. line) end
      end]]
    assert.equal(299, gateway:get("/").status)
    local _, count = gateway:log():gsub("refused [^\n]*gateway.lua:%d+: response.status takes", "")
    assert.equal(6, count)
  end))
end)

describe("an upgrade", function()
  it("goes through every phase but body_filter, and the tunnel holds no function", h.test(function()
    local backend = h.backend(function(connection)
      connection:read_head()
      connection:send "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n"
      while true do
        local bytes = connection:read(4, 20000)
        if not bytes then return end
        connection:send(bytes)
      end
    end)
    local gateway = start([[
      access = function(exchange) moongate.sleep(0.01) moongate.spawn(function() moongate.sleep(60) end) end,
      header_filter = function(exchange)
        moongate.sleep(0.01)
        exchange.response.headers["x-seen"] = tostring(exchange.response.status)
        moongate.log.info("status: " .. try(function() exchange.response.status = 200 end))
      end,
      body_filter = function(exchange) moongate.log.info "body_filter ran" end,
      log = function(exchange) moongate.sleep(0.05) moongate.log.info("logged " .. exchange.response.status) end]],
      { backend = backend })
    local client = gateway:connect()
    client:send "GET /x HTTP/1.1\r\nHost: h.example\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    local response = h.read_response(client)
    assert.equal(101, response.status)
    assert.equal("101", response.headers["x-seen"])
    for _ = 1, 3 do
      client:send "ping"
      assert.equal("ping", client:read(4))
    end
    gateway:wait_log "logged 101"
    gateway:wait_metrics("a tunnel, and nothing of Lua", function(metrics)
      return metrics.moongate_tunnels_live == 1 and metrics.moongate_coroutines_live == 0 and metrics.moongate_arenas_live == 0
    end)
    assert.is_nil(gateway:log():find "body_filter ran")
    gateway:wait_log "status: [^\n]*response.status takes"
    client:close()
    gateway:expect_idle()
  end))
end)

describe("where things can be used", function()
  local CASES = {
    { "access", "exchange.response.headers['x'] = '1'", "header_filter" },
    { "access", "return exchange.response.headers['x']", "header_filter, body_filter and log" },
    { "access", "return exchange.response.headers:get 'x'", "header_filter, body_filter and log" },
    { "access", "return exchange.response.headers:all 'x'", "header_filter, body_filter and log" },
    { "access", "return exchange.response.headers:each()", "header_filter, body_filter and log" },
    { "access", "exchange.response.status = 201", "header_filter" },
    { "access", "exchange.response:write 'x'", "body_filter" },
    { "access", "return exchange.response:chunks()", "body_filter" },
    { "access", "return exchange.response:buffer()", "body_filter" },
    { "header_filter", "exchange.request.path = '/x'", "rewrite and access" },
    { "header_filter", "exchange.request.headers['x'] = '1'", "rewrite and access" },
    { "header_filter", "exchange.request:set_body 'x'", "rewrite and access" },
    { "header_filter", "return exchange.request:body()", "rewrite and access" },
    { "header_filter", "return exchange.request:chunks()()", "rewrite and access" },
    { "header_filter", "exchange.response:write 'x'", "body_filter" },
    { "body_filter", "exchange.response.headers['x'] = '1'", "header_filter" },
    { "body_filter", "exchange.response.status = 201", "header_filter" },
    { "body_filter", "exchange.request.method = 'PUT'", "rewrite and access" },
    { "log", "exchange.response.headers['x'] = '1'", "header_filter" },
    { "log", "exchange.response.status = 201", "header_filter" },
    { "log", "exchange.request.args = {}", "rewrite and access" },
    { "log", "exchange.response:write 'x'", "body_filter" },
  }

  it("is in the message of each refusal", h.test(function()
    local by_hook, parts = {}, {}
    for i, case in ipairs(CASES) do
      by_hook[case[1]] = (by_hook[case[1]] or "") ..
        (' moongate.log.info("case %d: " .. try(function() %s end))'):format(i, case[2])
    end
    for hook, body in pairs(by_hook) do
      if hook == "body_filter" then body = body .. " exchange.response:write 'fine'" end
      parts[#parts + 1] = ("%s = function(exchange) %s end"):format(hook, body)
    end
    local gateway = start(table.concat(parts, ", "))
    assert.equal("fine", gateway:get("/").body)
    for i, case in ipairs(CASES) do
      gateway:wait_log(("case %d: "):format(i))
      local line = gateway:log():match(("case %d: ([^\n]*)"):format(i))
      assert.is_not_nil(line:find("gateway.lua:%d+: "), case[2] .. ": " .. line)
      assert.is_not_nil(line:find(case[3], 1, true), case[2] .. ": " .. line)
      assert.is_not_nil(line:find("this is " .. case[1], 1, true), case[2] .. ": " .. line)
    end
  end))

  it("also outside of every phase", h.test(function()
    local path = h.write_file(h.script_config("moongate.sleep(1)", {}))
    local result = h.exec { "check", path }
    assert.equal(1, result.code)
    assert.is_not_nil((result.stdout .. result.stderr):find "gateway.lua:%d+: moongate.sleep can be used in phases")
    path = h.write_file(h.script_config("moongate.spawn(print)", {}))
    result = h.exec { "check", path }
    assert.is_not_nil((result.stdout .. result.stderr):find "gateway.lua:%d+: moongate.spawn can be used in phases")
  end))
end)

describe("globals written in a phase", function()
  it("are the exchange's own, for as long as it waits #threads", h.test(function()
    local gateway = h.script([[
      shared = "from the top"
      moongate.route { path = "/", access = function(exchange)
        mine = exchange.request.query
        for _ = 1, 3 do
          moongate.sleep(0.01)
          if mine ~= exchange.request.query then error("another's: " .. tostring(mine)) end
        end
        exchange:respond(200, mine .. " " .. shared)
      end }]], { settings = { workers = 2 } })
    local clients = {}
    for i = 1, 50 do clients[i] = gateway:connect() end
    for round = 1, 4 do
      for i, client in ipairs(clients) do
        client:send(("GET /?%d-%d HTTP/1.1\r\nHost: h.example\r\n\r\n"):format(round, i))
      end
      for i, client in ipairs(clients) do
        assert.equal(("%d-%d from the top"):format(round, i), h.read_response(client).body)
      end
    end
    for _, client in ipairs(clients) do client:close() end
    gateway:expect_idle()
  end))
end)
