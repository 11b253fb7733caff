-- What backends answer, rightly and wrongly (class A25 and the framing part of A08, A12-A15, A23), as data.
-- test/spec/responses_spec.lua plays each row to one request, then asks for something else on a fresh connection.
--
-- A case: { id, name, send, status, outcome, reused, ... }
--   send      raw bytes of the backend after it has read the request head
--   close     the backend closes its connection after that ("reset": with a RST)
--   is_silence_allowed  the end may overtake the head: a reset without a byte is an abort too
--   method    of the request; GET unless given
--   minor     HTTP/1.x of the request; 1 unless given
--   status    at the client; outcome "complete": the whole response came and the client's connection goes on;
--             "closed": the whole response came, then the connection ended in good order (by its framing, or announced);
--             "aborted": the response began and was broken off: it must not look whole; "none": not one byte came
--   body      what the client must get (de-chunked); for "aborted" what it may get at the most
--   fields    field lines that the client must see, exactly; absent: lower-case names it must not see
--   reason    of the status line, when it matters
--   reused    whether the backend's connection may carry the next request
-- A row whose send holds POISON also asserts that no client ever sees that word.
local cases = {}

local function add(id, name, case)
  case.id, case.name = id, name
  cases[#cases + 1] = case
end

local function show(text)
  return (#text > 50 and text:sub(1, 50) .. "..." or text):gsub("[%c\127-\255]", function(c)
    return ("\\x%02x"):format(c:byte())
  end)
end

-- Unusable: 502, and the connection to the backend is closed.
local function bad(id, name, send, more)
  local case = { send = send, status = 502, outcome = "complete", reused = false }
  for key, value in pairs(more or {}) do case[key] = value end
  add(id, name, case)
end

local function good(id, name, send, body, more)
  local case = { send = send, status = 200, outcome = "complete", body = body, reused = true }
  for key, value in pairs(more or {}) do case[key] = value end
  add(id, name, case)
end

local OK = "HTTP/1.1 200 OK\r\n"

-- Right, plain.
good("A25", "Content-Length", OK .. "Content-Length: 5\r\n\r\nhello", "hello")
good("A25", "Content-Length 0", OK .. "Content-Length: 0\r\n\r\n", "")
good("A25", "chunked", OK .. "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "hello")
good("A25", "chunked, empty", OK .. "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "")
good("A25", "chunked in upper case", OK .. "transfer-encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "hello")
good("A25", "chunk extensions are dropped", OK .. "Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0;z\r\n\r\n", "hello")
good("A25", "until close", OK .. "\r\nhello", "hello", { close = true, reused = false, absent = { "content-length" } })
good("A25", "until close, empty", OK .. "\r\n", "", { close = true, reused = false })
good("A25", "until close to an HTTP/1.0 client", OK .. "\r\nhello", "hello",
  { close = true, reused = false, minor = 0, outcome = "closed", absent = { "transfer-encoding" } })
good("A25", "chunked to an HTTP/1.0 client", OK .. "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "hello",
  { minor = 0, outcome = "closed", absent = { "transfer-encoding" } })
good("A25", "HTTP/1.0 with Content-Length", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", { reused = false })
good("A25", "HTTP/1.0 with keep-alive", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", "hello")
good("A25", "HTTP/1.0 until close", "HTTP/1.0 200 OK\r\n\r\nhello", "hello", { close = true, reused = false })
good("A25", "Connection: close of the backend is its own", OK .. "Connection: close\r\nContent-Length: 5\r\n\r\nhello", "hello",
  { reused = false, absent = { "connection" } })
good("A25", "hop-by-hop fields go", OK .. "Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nConnection: X-Mine\r\nX-Mine: 1\r\n" ..
  "X-Yours: 2\r\nContent-Length: 0\r\n\r\n", "", { absent = { "keep-alive", "proxy-authenticate", "x-mine", "connection" },
  fields = { "X-Yours: 2" } })
good("A25", "no reason, with the space", "HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nhello", "hello")
good("A25", "no reason, no space", "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", "hello")
good("A25", "a reason of its own", "HTTP/1.1 299 Whatever You Say\r\nContent-Length: 0\r\n\r\n", "",
  { status = 299, reason = "Whatever You Say" })
good("A25", "bytes above 127 in a value", OK .. "X: \128\255\r\nContent-Length: 0\r\n\r\n", "", { fields = { "X: \128\255" } })
good("A25", "Set-Cookie twice stays two fields", OK .. "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n", "",
  { fields = { "Set-Cookie: a=1", "Set-Cookie: b=2" } })
good("A25", "names with underscore pass", OK .. "X_Y: 1\r\nContent-Length: 0\r\n\r\n", "", { fields = { "X_Y: 1" } })
good("A25", "trailers by list", OK .. "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n",
  "hello", { trailers = "X-Sum: 1\r\n" })

-- Responses that have no body whatever they say.
for _, status in ipairs { "204 No Content", "304 Not Modified" } do
  local code = tonumber(status:sub(1, 3))
  good("A25", status, "HTTP/1.1 " .. status .. "\r\nX: y\r\n\r\n", "", { status = code, fields = { "X: y" } })
  good("A25", status .. " with a body", "HTTP/1.1 " .. status .. "\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON", "",
    { status = code, reused = false })
  good("A25", status .. " with a length and a body", "HTTP/1.1 " .. status .. "\r\nContent-Length: 6\r\n\r\nPOISON", "",
    { status = code, reused = false })
end
good("A25", "304 with Content-Length and no body", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n", "",
  { status = 304, fields = { "ETag: \"x\"" } })
good("A25", "HEAD with Content-Length", OK .. "Content-Length: 5\r\n\r\n", "", { method = "HEAD", fields = { "Content-Length: 5" } })
good("A25", "HEAD with chunked", OK .. "Transfer-Encoding: chunked\r\n\r\n", "", { method = "HEAD" })
good("A25", "HEAD without framing", OK .. "X: y\r\n\r\n", "", { method = "HEAD", reused = nil })
good("A25", "HEAD with a body", OK .. "Content-Length: 6\r\n\r\nPOISON", "", { method = "HEAD", reused = false })

-- Two framings, or none that can be trusted.
bad("A25", "CL and TE", OK .. "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
bad("A25", "TE and CL", OK .. "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n")
bad("A25", "TE in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
bad("A25", "CL and TE to HEAD", OK .. "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", { method = "HEAD" })
for _, fields in ipairs {
  "Content-Length: 5\r\nContent-Length: 6", "Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5, 5", "Content-Length: 5,6",
  "Content-Length: -5", "Content-Length: +5", "Content-Length: 0x5", "Content-Length: 5 5", "Content-Length:", "Content-Length: five",
  "Content-Length: 9223372036854775808", "Content-Length: 18446744073709551616", "Content-Length: 5.0", "Content-Length: 05",
  "Transfer-Encoding:", "Transfer-Encoding: identity", "Transfer-Encoding: gzip", "Transfer-Encoding: gzip, chunked",
  "Transfer-Encoding: chunked, chunked", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "Transfer-Encoding: xchunked",
  "Transfer-Encoding: chunked;x", "Transfer-Encoding: \11chunked", "Transfer-Encoding : chunked", "Transfer-Encoding: chunked, identity",
} do
  bad("A25", show(fields), OK .. fields .. "\r\n\r\nhello")
end

-- Status lines.
for _, line in ipairs {
  "HTTP/1.1 2000 OK", "HTTP/1.1 20 OK", "HTTP/1.1 2 OK", "HTTP/1.1 099 OK", "HTTP/1.1 000 OK", "HTTP/1.1 600 OK", "HTTP/1.1 999 OK", "HTTP/1.1 -200 OK",
  "HTTP/1.1 +20 OK", "HTTP/1.1 2x0 OK", "HTTP/1.1 OK", "HTTP/1.1  200 OK", "HTTP/1.1", "HTTP/1.1 ", "HTTP/2.0 200 OK", "HTTP/0.9 200 OK", "HTTP/1.2 200 OK",
  "HTTP/1.1200 OK", "http/1.1 200 OK", "HTTP/11 200 OK", "HTTP 200 OK", "ICY 200 OK", "RTSP/1.0 200 OK", " HTTP/1.1 200 OK", "200 OK", "hello", "",
  "HTTP/1.1\t200 OK", "HTTP/1.1 200\tOK", "HTTP/1.1 200 O\0K", "HTTP/1.1 200 O\rK", "HTTP/1.1 200 O\27K", "GET / HTTP/1.1",
} do
  bad("A25", "status line " .. show(line), line .. "\r\nContent-Length: 0\r\n\r\n")
end
bad("A25", "HTTP/0.9", "<html>hello</html>", { close = true })
bad("A25", "random bytes", "\1\2\3\4\5\r\n\r\n")
bad("A25", "a TLS alert", "\21\3\1\0\2\2\70", { close = true })
bad("A25", "a reason of 64 KiB", "HTTP/1.1 200 " .. ("x"):rep(65536) .. "\r\nContent-Length: 0\r\n\r\n")
bad("A25", "a head of 64 KiB", OK .. "X: " .. ("x"):rep(65536) .. "\r\nContent-Length: 0\r\n\r\n")
bad("A25", "a head that never ends, 1 MiB", OK .. ("X: y\r\n"):rep(180000))
bad("A25", "1,000 fields", OK .. ("X: y\r\n"):rep(1000) .. "Content-Length: 0\r\n\r\n")

-- Lines and fields.
for _, case in ipairs {
  { "A10", "LF only", "HTTP/1.1 200 OK\nContent-Length: 0\n\n" }, { "A10", "LF after the status line", "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n" },
  { "A10", "LF after a field", OK .. "X: y\nContent-Length: 0\r\n\r\n" }, { "A10", "LF as the empty line", OK .. "Content-Length: 0\r\n\n" },
  { "A11", "CR within a value", OK .. "X: y\rz\r\nContent-Length: 0\r\n\r\n" }, { "A11", "CR before CRLF", OK .. "X: y\r\r\nContent-Length: 0\r\n\r\n" },
  { "A12", "obs-fold", OK .. "X: y\r\n z\r\nContent-Length: 0\r\n\r\n" }, { "A12", "obs-fold with a tab", OK .. "X: y\r\n\tz\r\nContent-Length: 0\r\n\r\n" },
  { "A12", "folded Content-Length", OK .. "Content-Length:\r\n 0\r\n\r\n" }, { "A13", "space before the colon", OK .. "X : y\r\nContent-Length: 0\r\n\r\n" },
  { "A13", "space before the colon of Content-Length", OK .. "Content-Length : 0\r\n\r\n" }, { "A13", "no colon", OK .. "Xy\r\nContent-Length: 0\r\n\r\n" },
  { "A13", "an empty name", OK .. ": y\r\nContent-Length: 0\r\n\r\n" }, { "A13", "a space within a name", OK .. "X Y: z\r\nContent-Length: 0\r\n\r\n" },
  { "A13", "a control in a name", OK .. "X\1: z\r\nContent-Length: 0\r\n\r\n" }, { "A13", "a byte above 127 in a name", OK .. "X\200: z\r\nContent-Length: 0\r\n\r\n" },
  { "A13", "a line that begins with a space", OK .. " X: y\r\nContent-Length: 0\r\n\r\n" }, { "A14", "NUL in a value", OK .. "X: a\0b\r\nContent-Length: 0\r\n\r\n" },
  { "A14", "a control in a value", OK .. "X: a\27b\r\nContent-Length: 0\r\n\r\n" }, { "A14", "DEL in a value", OK .. "X: a\127b\r\nContent-Length: 0\r\n\r\n" },
} do
  bad(case[1], case[2], case[3])
end

-- Broken off: the client must be able to tell.
local function broken(name, send, body, more)
  local case = { send = send, status = 200, outcome = "aborted", body = body, reused = false, close = true }
  for key, value in pairs(more or {}) do case[key] = value end
  add("A25", name, case)
end

broken("shorter than its length", OK .. "Content-Length: 10\r\n\r\nhello", "hello")
broken("shorter than its length, reset", OK .. "Content-Length: 10\r\n\r\nhello", "hello", { close = "reset" })
broken("no body at all", OK .. "Content-Length: 10\r\n\r\n", "")
broken("chunked, ends within a chunk", OK .. "Transfer-Encoding: chunked\r\n\r\n5\r\nhe", "he")
broken("chunked, ends behind a chunk", OK .. "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "hello")
broken("chunked, ends within a chunk line", OK .. "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5", "hello")
broken("chunked, ends before the last CRLF", OK .. "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", "hello")
broken("chunked, ends within the trailers", OK .. "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y", "hello")
broken("chunked, reset", OK .. "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "hello", { close = "reset" })
broken("until close, reset", OK .. "\r\nhello", "hello", { close = "reset" })
broken("until close, reset, to an HTTP/1.0 client", OK .. "\r\nhello", "hello", { close = "reset", minor = 0 })
for _, body in ipairs {
  "x\r\nhello\r\n0\r\n\r\n", "5\nhello\r\n0\r\n\r\n", "5 \r\nhello\r\n0\r\n\r\n", "+5\r\nhello\r\n0\r\n\r\n", "0x5\r\nhello\r\n0\r\n\r\n", "-5\r\nhello\r\n0\r\n\r\n",
  "5\r\nhelloworld\r\n0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "5\r\nhello0\r\n\r\n", "10000000000000005\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\n\r\n",
  "5\r\nhello\r\n0\r\n\n", "5\r\nhello\r\n0\r\nX\r\n\r\n", "5\r\nhello\r\n0\r\nX: y\n\r\n", "5;" .. ("x"):rep(65536) .. "\r\nhello\r\n0\r\n\r\n", "\r\n5\r\nhello\r\n0\r\n\r\n",
} do
  broken("bad chunks " .. show(body), OK .. "Transfer-Encoding: chunked\r\n\r\n" .. body, "hello",
    { close = false, status = { 200, 502 }, is_silence_allowed = true })
end

-- More than was asked for: the client never sees it, nobody ever does.
good("A08", "two responses", OK .. "Content-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON", "hello", { reused = false })
good("A08", "bytes behind the length", OK .. "Content-Length: 5\r\n\r\nhelloPOISON", "hello", { reused = false })
good("A08", "one byte behind the length", OK .. "Content-Length: 5\r\n\r\nhello\n", "hello", { reused = false })
good("A08", "CRLF behind the length", OK .. "Content-Length: 5\r\n\r\nhello\r\n", "hello", { reused = false })
good("A08", "bytes behind the last chunk", OK .. "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nPOISON", "hello", { reused = false })
good("A08", "a response behind an empty one", OK .. "Content-Length: 0\r\n\r\n" .. OK .. "Content-Length: 6\r\n\r\nPOISON", "", { reused = false })

-- Interim responses that are wrong (A23).
bad("A23", "101 that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nPOISON")
bad("A23", "17 interim responses", ("HTTP/1.1 103 Early Hints\r\n\r\n"):rep(17) .. OK .. "Content-Length: 0\r\n\r\n", { is_interim = true })
bad("A23", "a flood of 100", ("HTTP/1.1 100 Continue\r\n\r\n"):rep(1000))
bad("A23", "an interim response in HTTP/1.0 clothes, then garbage", "HTTP/1.1 102 Processing\r\n\r\ngarbage\r\n\r\n", { is_interim = true })

-- Nothing useful before the end.
bad("A25", "closes at once", "", { close = true, method = "POST" })
bad("A25", "resets at once", "", { close = "reset", method = "POST" })
bad("A25", "closes within the status line", "HTTP/1.1 200", { close = true })
bad("A25", "closes within the head", OK .. "Content-Length: 5\r\n", { close = true })
bad("A25", "resets within the head", OK .. "Content-Length: 5\r\n", { close = "reset" })
bad("A25", "closes behind an interim response", "HTTP/1.1 103 Early Hints\r\n\r\n", { close = true, is_interim = true })

return cases
